//! `octoctl`: looks at the data plane and programs it, over its control socket.

#![forbid(unsafe_code)]

mod attachment;
mod authentication;
mod cli;
mod connect;
mod doctor;
mod error;
mod explain;
mod flow;
mod ipsec;
mod monitor;
mod objects;
mod output;
mod own_ipsec;
mod program;
mod show;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use octoplane_api::v1;

use crate::cli::{Arguments, Verb};
use crate::error::Failure;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.verb {
        Verb::Completion { shell } => {
            clap_complete::generate(
                *shell,
                &mut Arguments::command(),
                "octoctl",
                &mut std::io::stdout(),
            );
            Ok(())
        }
        Verb::Version => {
            output::write(&format!(
                "octoctl {}, API octoplane.v1\n",
                env!("CARGO_PKG_VERSION")
            ));
            Ok(())
        }
        _ => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::Local)
            .and_then(|runtime| runtime.block_on(run(arguments))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("octoctl: {failure}");
            failure.exit_code()
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    // It looks at the machine, too, and says itself whether somebody answers.
    if let Verb::Doctor { config, root } = &arguments.verb {
        let Arguments {
            socket,
            remote,
            output,
            ..
        } = &arguments;
        return doctor::run(config, root, socket, remote, *output).await;
    }
    // A file with mistakes is refused before anybody is asked.
    let wanted = match &arguments.verb {
        Verb::Apply { file, .. } | Verb::Resync { file, .. } => Some(octoplane_state::read(file)?),
        _ => None,
    };
    let channel = connect::connect(&arguments.socket, &arguments.remote).await?;
    match arguments.verb {
        Verb::Completion { .. } | Verb::Version | Verb::Doctor { .. } => Ok(()),
        Verb::Apply { dry_run, .. } => {
            let Some(wanted) = wanted else { return Ok(()) };
            program::replace(channel, wanted, dry_run, arguments.output).await
        }
        Verb::Resync { dry_run, kinds, .. } => {
            let Some(wanted) = wanted else { return Ok(()) };
            let begin = v1::ResyncBegin {
                kinds: kinds
                    .into_iter()
                    .map(|kind| v1::Kind::from(kind).into())
                    .collect(),
                dry_run,
                ..Default::default()
            };
            program::resync(channel, wanted, begin, arguments.output).await
        }
        Verb::Endpoint(verb) => program::endpoint(channel, verb, arguments.output).await,
        Verb::Route(verb) => program::route(channel, verb, arguments.output).await,
        Verb::Neigh(verb) => program::neighbour(channel, verb, arguments.output).await,
        Verb::Port(verb) => program::port(channel, verb, arguments.output).await,
        Verb::Node(verb) => objects::node(channel, verb, arguments.output).await,
        Verb::Service(verb) => objects::service(channel, verb, arguments.output).await,
        Verb::Policy(verb) => objects::policy(channel, verb, arguments.output).await,
        Verb::Ipcache(verb) => objects::ipcache(channel, verb, arguments.output).await,
        Verb::EgressGateway(verb) => objects::egress_gateway(channel, verb, arguments.output).await,
        Verb::Auth(verb) => authentication::verb(channel, verb, arguments.output).await,
        Verb::Attachment(verb) => attachment::run(channel, verb, arguments.output).await,
        Verb::Ipsec(verb) => ipsec::run(channel, verb, arguments.output).await,
        Verb::Explain {
            from,
            to,
            protocol,
            source_port,
            in_port,
        } => {
            let to = to.address();
            let request = v1::ExplainRequest {
                from,
                to: to.ip().to_string(),
                port: to.port().into(),
                protocol: protocol.number().into(),
                source_port: source_port.into(),
                in_port: in_port.unwrap_or_default(),
            };
            explain::run(channel, request, arguments.output).await
        }
        Verb::Monitor {
            endpoint,
            verdicts,
            drops,
        } => monitor::run(channel, endpoint, verdicts, drops, arguments.output).await,
        Verb::Flow(verb) => flow::run(channel, verb, arguments.output).await,
        Verb::Export => program::export(channel, arguments.output).await,
        Verb::Watch { initial, from, kinds } => {
            let request = v1::WatchRequest {
                initial_state: initial,
                from_revision: from,
                kinds: kinds
                    .into_iter()
                    .map(|kind| v1::Kind::from(kind).into())
                    .collect(),
            };
            show::watch(channel, request, arguments.output).await
        }
        Verb::Status => show::status(channel, arguments.output).await,
        Verb::Drops => show::drops(channel, arguments.output).await,
        Verb::Stages => show::stages(channel, arguments.output).await,
    }
}
