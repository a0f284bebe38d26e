//! A process for each measurement: the EAL starts once per process, and none inherits what another left.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::cli::Source;
use crate::cpus;
use crate::job::{Job, Setup, Subject};
use crate::sample::Sample;
use crate::{generator, macswap, worker};

/// Runs a job in a process of its own and waits for it.
pub(crate) fn run(subject: Subject, setup: &Setup) -> anyhow::Result<Sample> {
    let job = Job {
        subject,
        setup: setup.clone(),
    };
    spawn("job", &serde_json::to_string(&job)?, &format!("{subject:?}"))
}

/// Runs a command of ours with a job in a process of its own and waits for the result.
pub(crate) fn spawn(command: &str, spec: &str, what: &str) -> anyhow::Result<Sample> {
    let output = Command::new(env::current_exe()?)
        .args([command, spec])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("no process for the measurement")?;
    if !output.status.success() {
        bail!("the measurement of {what} failed: {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // DPDK may have written something, too.
    let line = text
        .lines()
        .rev()
        .find(|line| line.starts_with('{'))
        .with_context(|| format!("the measurement of {what} printed no result"))?;
    Ok(serde_json::from_str(line)?)
}

/// The other side: does the job and prints the result.
pub(crate) fn serve(spec: &str) -> anyhow::Result<()> {
    let Job { subject, setup } = serde_json::from_str(spec).context("the job is not valid")?;
    cpus::pin(setup.control)?;
    let sample = match (setup.source, subject) {
        (Source::Generator, _) => generator::run(&setup, subject),
        (Source::Pcap, Subject::Octoplane) => worker::run(&setup),
        (Source::Pcap, Subject::Macswap) => macswap::run(&setup),
    }?;
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}
