//! `octoctl doctor`: whether this machine is ready for the daemon, and what to do where it is not.

mod cpus;
mod daemon;
mod devices;
mod machine;
mod memory;
mod software;

use std::path::{Path, PathBuf};

use octoplane_config::{Config, CpuSet};
use serde::Serialize;

use crate::cli::{Format, Remote};
use crate::error::Failure;
use crate::output;

use machine::Machine;

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or not for long.
    Warning,
    /// The daemon will not start, or will not do what its configuration says.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) check: &'static str,
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) found: String,
    /// What to do; empty if nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) advice: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            found: found.into(),
            advice: String::new(),
        }
    }

    fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Warning,
            found: found.into(),
            advice: advice.into(),
        }
    }

    fn failure(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Failure,
            found: found.into(),
            advice: advice.into(),
        }
    }
}

/// All findings, and the worst of them.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    findings: Vec<Finding>,
}

/// Looks at everything and prints what was found.
pub(crate) async fn run(
    config: &Path,
    root: &Path,
    socket: &Path,
    remote: &Remote,
    format: Format,
) -> Result<(), Failure> {
    let machine = Machine::new(root);
    let mut findings = Vec::new();
    let config = configuration(&machine, config, &mut findings);
    let running = daemon::check(&machine, socket, remote, &mut findings).await;
    findings.extend(memory::check(&machine, config.as_ref(), running.is_some()));
    findings.extend(devices::check(&machine, config.as_ref()));
    findings.extend(cpus::check(&machine, config.as_ref()));
    findings.extend(software::check(&machine, config.as_ref(), running.as_ref()));
    let verdict = findings.iter().map(|it| it.verdict).max().unwrap_or(Verdict::Ok);
    let failures = findings
        .iter()
        .filter(|it| it.verdict == Verdict::Failure)
        .count();
    let report = Report { verdict, findings };
    match format {
        Format::Table => table(&report),
        Format::Json | Format::Yaml => output::print(&report, format)?,
    }
    match failures {
        0 => Ok(()),
        1 => Err(Failure::Entry("1 thing stands in the way".into())),
        many => Err(Failure::Entry(format!("{many} things stand in the way"))),
    }
}

fn table(report: &Report) {
    let width = report.findings.iter().map(|it| it.check.len()).max().unwrap_or(0);
    for Finding {
        check,
        verdict,
        found,
        advice,
    } in &report.findings
    {
        let sign = match verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warning => "warn",
            Verdict::Failure => "FAIL",
        };
        output::write(&format!("{sign}  {check:<width$}  {found}\n"));
        for line in advice.lines() {
            output::write(&format!("{:width$}    -> {line}\n", "", width = width + 4));
        }
    }
}

/// The configuration, if it has no mistakes: what the machine needs follows from it.
fn configuration(machine: &Machine, path: &Path, findings: &mut Vec<Finding>) -> Option<Config> {
    const CHECK: &str = "configuration";
    let file: PathBuf = machine.path(path);
    let cpus = machine.online_cpus().unwrap_or_else(CpuSet::allowed);
    match octoplane_config::load_for(&file, &cpus) {
        Ok(config) => {
            let ports = config.ports.len();
            findings.push(Finding::ok(CHECK, format!("{}: {ports} ports", path.display())));
            Some(config)
        }
        Err(error) if error.mistakes().is_empty() => {
            findings.push(Finding::failure(
                CHECK,
                error.to_string(),
                "write one (config/octoplaned.toml shows every key), or name it with --config",
            ));
            None
        }
        Err(error) => {
            let first: Vec<String> = error
                .mistakes()
                .iter()
                .take(3)
                .map(|mistake| format!("{}:{mistake}", path.display()))
                .collect();
            findings.push(Finding::failure(
                CHECK,
                format!("{}: {} mistakes", path.display(), error.mistakes().len()),
                format!(
                    "{}\nsee all of them: octoplaned --check-config --config {}",
                    first.join("\n"),
                    path.display()
                ),
            ));
            None
        }
    }
}
