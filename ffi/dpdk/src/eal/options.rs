//! Typed EAL options and the argument vector they become.

use std::fmt::Write as _;

/// Where the EAL takes its memory from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Memory {
    /// Huge pages, reserved up front.
    Hugepages {
        /// Megabytes on each NUMA node, node 0 first. Empty: as much as is asked for, when it is.
        mb_per_socket: Vec<u32>,
    },
    /// Ordinary pages: for tests and for machines without huge pages. No device can do DMA into them.
    NoHuge {
        /// Megabytes in all.
        mb: u32,
    },
}

/// What devices take addresses to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IovaMode {
    /// The EAL's choice.
    #[default]
    Auto,
    /// Virtual addresses, through an IOMMU.
    Virtual,
    /// Physical addresses.
    Physical,
}

/// The least severe message DPDK logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Errors.
    Error,
    /// Warnings.
    Warning,
    /// Remarkable conditions.
    #[default]
    Notice,
    /// What goes on.
    Info,
    /// Everything compiled in.
    Debug,
}

impl LogLevel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Options that contradict each other or DPDK.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// With `no_pci` no PCI device is looked for, so none can be allowed.
    #[error("PCI devices are allowed by name although PCI is switched off")]
    AllowWithoutPci,
    /// The main thread needs a CPU.
    #[error("the list of CPUs for the main thread is empty")]
    NoMainCpus,
    /// A fixed amount of memory cannot be nothing.
    #[error("0 MB of memory")]
    NoMemory,
    /// DPDK answers it by ending the process.
    #[error("argument {0:?} makes DPDK end the process")]
    Exits(String),
}

/// What [`crate::Eal::init`] is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EalOptions {
    /// Name of the program, in DPDK's messages.
    pub program: String,
    /// Memory.
    pub memory: Memory,
    /// Keep no files in the huge page file system or the run directory: nothing to clean up after a crash, and no
    /// secondary process can attach. Without huge pages it is always so.
    pub in_memory: bool,
    /// Tells processes on one machine apart that do keep files.
    pub file_prefix: Option<String>,
    /// Look for no PCI device at all.
    pub no_pci: bool,
    /// PCI addresses to probe, each with its device arguments (`0002:02:00.0,max_sqb_count=512`).
    /// Empty: every device bound to a userspace driver.
    pub allow: Vec<String>,
    /// Virtual devices to make (`net_ring0`, `net_af_packet0,iface=eth0`).
    pub vdevs: Vec<String>,
    /// CPUs of the thread that initialises the EAL, which becomes lcore 0. `None`: those it may use now.
    pub main_cpus: Option<Vec<usize>>,
    /// What devices take addresses to be.
    pub iova_mode: IovaMode,
    /// Verbosity.
    pub log_level: LogLevel,
    /// Open the telemetry socket that `dpdk-telemetry.py` reads.
    pub telemetry: bool,
    /// Passed on as they are, behind the others. They can undo what this crate's safety rests on
    /// (`--mbuf-pool-ops-name=ring_sp_sc`), so they belong to whoever administers the machine.
    pub extra: Vec<String>,
}

impl Default for EalOptions {
    fn default() -> Self {
        Self {
            program: "octoplane".to_owned(),
            memory: Memory::Hugepages {
                mb_per_socket: Vec::new(),
            },
            in_memory: true,
            file_prefix: None,
            no_pci: false,
            allow: Vec::new(),
            vdevs: Vec::new(),
            main_cpus: None,
            iova_mode: IovaMode::default(),
            log_level: LogLevel::default(),
            telemetry: false,
            extra: Vec::new(),
        }
    }
}

impl EalOptions {
    /// Neither huge pages nor PCI: `mb` megabytes of ordinary memory, and virtual devices only.
    #[must_use]
    pub fn without_hardware(mb: u32) -> Self {
        Self {
            memory: Memory::NoHuge { mb },
            no_pci: true,
            ..Self::default()
        }
    }

    /// The argument vector. `allowed_cpus` are those of the calling thread.
    pub(crate) fn to_args(&self, allowed_cpus: &[usize]) -> Result<Vec<String>, OptionsError> {
        if self.no_pci && !self.allow.is_empty() {
            return Err(OptionsError::AllowWithoutPci);
        }
        if let Some(arg) = self.extra.iter().find(|arg| ends_the_process(arg)) {
            return Err(OptionsError::Exits(arg.clone()));
        }
        let mut args = vec![self.program.clone()];
        args.push(format!(
            "--lcores={}",
            lcores(self.main_cpus.as_deref().unwrap_or(allowed_cpus))?
        ));
        self.push_memory(&mut args)?;
        if let Some(prefix) = &self.file_prefix {
            args.push(format!("--file-prefix={prefix}"));
        }
        if self.no_pci {
            args.push("--no-pci".to_owned());
        }
        args.extend(self.allow.iter().map(|address| format!("--allow={address}")));
        args.extend(self.vdevs.iter().map(|vdev| format!("--vdev={vdev}")));
        match self.iova_mode {
            IovaMode::Auto => {}
            IovaMode::Virtual => args.push("--iova-mode=va".to_owned()),
            IovaMode::Physical => args.push("--iova-mode=pa".to_owned()),
        }
        args.push(format!("--log-level={}", self.log_level.as_str()));
        if !self.telemetry {
            args.push("--no-telemetry".to_owned());
        }
        args.extend(self.extra.iter().cloned());
        Ok(args)
    }

    fn push_memory(&self, args: &mut Vec<String>) -> Result<(), OptionsError> {
        match &self.memory {
            Memory::Hugepages { mb_per_socket } => {
                if !mb_per_socket.is_empty() {
                    if mb_per_socket.iter().all(|&mb| mb == 0) {
                        return Err(OptionsError::NoMemory);
                    }
                    let list: Vec<String> = mb_per_socket.iter().map(u32::to_string).collect();
                    args.push(format!("--socket-mem={}", list.join(",")));
                }
                if self.in_memory {
                    args.push("--in-memory".to_owned());
                }
            }
            Memory::NoHuge { mb: 0 } => return Err(OptionsError::NoMemory),
            Memory::NoHuge { mb } => {
                // --in-memory excludes --no-huge; --no-shconf is the half of it that still means something.
                args.extend([
                    "--no-huge".to_owned(),
                    format!("-m{mb}"),
                    "--no-shconf".to_owned(),
                ]);
            }
        }
        Ok(())
    }
}

/// Lcore 0 on all of `cpus`: workers are threads of ours that register themselves, so the EAL starts none.
fn lcores(cpus: &[usize]) -> Result<String, OptionsError> {
    let (first, rest) = cpus.split_first().ok_or(OptionsError::NoMainCpus)?;
    let mut text = format!("0@({first}");
    for cpu in rest {
        // Writing to a String does not fail.
        let _ = write!(text, ",{cpu}");
    }
    text.push(')');
    Ok(text)
}

/// getopt takes any unambiguous prefix of a long option.
fn ends_the_process(arg: &str) -> bool {
    arg == "-h" || (arg.len() > 2 && "--help".starts_with(arg))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(options: &EalOptions) -> Vec<String> {
        options.to_args(&[0, 1]).unwrap()
    }

    #[test]
    fn defaults_keep_no_files_and_no_telemetry() {
        assert_eq!(
            args(&EalOptions::default()),
            [
                "octoplane",
                "--lcores=0@(0,1)",
                "--in-memory",
                "--log-level=notice",
                "--no-telemetry"
            ]
        );
    }

    #[test]
    fn without_hugepages_in_memory_is_not_passed() {
        let args = args(&EalOptions::without_hardware(64));
        assert!(args.contains(&"--no-shconf".to_owned()) && args.contains(&"-m64".to_owned()));
        assert!(!args.contains(&"--in-memory".to_owned()));
    }

    #[test]
    fn everything_set() {
        let options = EalOptions {
            memory: Memory::Hugepages {
                mb_per_socket: vec![512, 0],
            },
            in_memory: false,
            file_prefix: Some("dp0".into()),
            allow: vec!["0002:02:00.0".into()],
            vdevs: vec!["net_null0".into()],
            main_cpus: Some(vec![3]),
            iova_mode: IovaMode::Virtual,
            log_level: LogLevel::Debug,
            telemetry: true,
            extra: vec!["--huge-unlink=always".into()],
            ..EalOptions::default()
        };
        assert_eq!(
            args(&options)[1..],
            [
                "--lcores=0@(3)",
                "--socket-mem=512,0",
                "--file-prefix=dp0",
                "--allow=0002:02:00.0",
                "--vdev=net_null0",
                "--iova-mode=va",
                "--log-level=debug",
                "--huge-unlink=always"
            ]
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let mut options = EalOptions {
            allow: vec!["0000:00:01.0".into()],
            ..EalOptions::without_hardware(64)
        };
        assert_eq!(options.to_args(&[0]), Err(OptionsError::AllowWithoutPci));
        options.allow.clear();
        assert_eq!(options.to_args(&[]), Err(OptionsError::NoMainCpus));
        for help in ["-h", "--help", "--hel"] {
            options.extra = vec![help.into()];
            assert_eq!(options.to_args(&[0]), Err(OptionsError::Exits(help.into())));
        }
        assert_eq!(
            EalOptions::without_hardware(0).to_args(&[0]),
            Err(OptionsError::NoMemory)
        );
    }
}
