//! `octoplaned`: takes ports through DPDK, forwards between them on pinned threads, and lets a control socket program
//! the tables.

#![forbid(unsafe_code)]

mod attachments;
mod authentications;
mod daemon;
mod interfaces;
mod ipsec;
mod neighbours;
mod observe;
mod plan;
mod ports;
mod report;
mod resume;
mod status;
mod supervisor;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use octoplane_config::ConfigErrors;
use tracing::error;
use tracing_subscriber::EnvFilter;

/// The Octoplane data plane.
///
/// Exit status: 0 after SIGTERM or SIGINT, 1 when it could not start or stop cleanly, 2 when the configuration has
/// mistakes.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only check the configuration: print it with all defaults, or every mistake in it. No device is touched.
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before anything is pinned: which CPUs there are is part of the check.
    let config = match octoplane_config::load(&arguments.config) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            if let ConfigErrors::Invalid { mistakes, .. } = &errors {
                eprintln!(
                    "{} mistake{} in the configuration",
                    mistakes.len(),
                    if mistakes.len() == 1 { "" } else { "s" }
                );
            }
            return ExitCode::from(2);
        }
    };
    if arguments.check_config {
        print!("{config}");
        return ExitCode::SUCCESS;
    }
    let filter = EnvFilter::try_new(&config.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
    match daemon::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
