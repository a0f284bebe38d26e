//! `[eal]`.

/// How DPDK's environment abstraction layer is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eal {
    /// Prefix of DPDK's runtime files: two daemons on one machine need different ones. Default `octoplane`.
    pub file_prefix: String,
    /// DPDK's own log level: a level name (`notice`), a number (1 to 8), or `pattern:level`. Default `notice`.
    pub log_level: String,
    /// Whether devices see virtual or physical addresses. Default [`IovaMode::Auto`].
    pub iova: IovaMode,
    /// Further EAL arguments, passed on as they are. None of them is one that the daemon sets itself.
    /// Default none.
    pub extra_args: Vec<String>,
    /// Whether EAL scans the PCI bus. Default: whether some port is a PCI device.
    pub pci: bool,
}

/// What addresses devices use for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IovaMode {
    /// EAL decides.
    #[default]
    Auto,
    /// Virtual addresses, by way of an IOMMU.
    Va,
    /// Physical addresses.
    Pa,
}

impl IovaMode {
    /// Spelling in the file, which is EAL's too; `auto` means that the option is not given to EAL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Va => "va",
            Self::Pa => "pa",
        }
    }
}

impl Default for Eal {
    fn default() -> Self {
        Self {
            file_prefix: "octoplane".into(),
            log_level: "notice".into(),
            iova: IovaMode::Auto,
            extra_args: Vec::new(),
            pci: false,
        }
    }
}
