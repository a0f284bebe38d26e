//! `octoplane-cni`: a CNI plugin (specification 1.1.0 and those before it from 0.3.1) that attaches pods to the data plane
//! of this machine by a pair of veth interfaces.

#![forbid(unsafe_code)]

mod daemon;
mod delegate;
mod link;
mod names;
mod spec;
mod verbs;

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::json;
use spec::{CniError, Code, Command, Environment, NetConf, SUPPORTED, Version};
use verbs::Call;

/// What is said in errors when the configuration does not say which version it is of.
const NEWEST: &str = "1.1.0";

fn main() -> ExitCode {
    let mut version = NEWEST.to_owned();
    let printed = match run(&mut version) {
        Ok(output) => return print(&output),
        Err(error) => error.to_json(&version),
    };
    print(&printed);
    ExitCode::FAILURE
}

fn print(output: &str) -> ExitCode {
    if output.is_empty() {
        return ExitCode::SUCCESS;
    }
    match writeln!(std::io::stdout(), "{output}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What is to be printed. `said` becomes the version of the answer once it is known.
fn run(said: &mut String) -> Result<String, CniError> {
    let environment = Environment::read(|name| std::env::var(name).ok())?;
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input)?;
    if environment.command == Command::Version {
        return versions(&input);
    }
    let (conf, version) = NetConf::parse(&input)?;
    *said = version.to_string();
    let since = |first: Version, name: &str| {
        if version < first {
            let text =
                format!("{name} is there since version {first} of the specification, not in {version}");
            return Err(CniError::new(Code::Version, text));
        }
        Ok(())
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let call = async |environment, conf| Call::new(environment, conf, version).await;
        match environment.command {
            Command::Add => {
                let result = verbs::add(&call(environment, conf).await?).await?;
                Ok(format!("{:#}", result.to_json(version)))
            }
            Command::Del => verbs::del(&call(environment, conf).await?)
                .await
                .map(|()| String::new()),
            Command::Check => {
                since(Version::V0_4_0, "CHECK")?;
                verbs::check(&call(environment, conf).await?)
                    .await
                    .map(|()| String::new())
            }
            Command::Gc => {
                since(Version::V1_1_0, "GC")?;
                verbs::gc(&call(environment, conf).await?, version)
                    .await
                    .map(|()| String::new())
            }
            Command::Status => {
                since(Version::V1_1_0, "STATUS")?;
                verbs::status(environment, conf, version)
                    .await
                    .map(|()| String::new())
            }
            Command::Version => versions(&input),
        }
    })
}

/// VERSION: in the version that was asked for, whatever it is.
fn versions(input: &str) -> Result<String, CniError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Asked {
        cni_version: Option<String>,
    }
    let asked: Asked = if input.trim().is_empty() {
        Asked { cni_version: None }
    } else {
        serde_json::from_str(input)
            .map_err(|error| CniError::new(Code::Decode, format!("the configuration: {error}")))?
    };
    let supported: Vec<_> = SUPPORTED.iter().map(ToString::to_string).collect();
    Ok(format!(
        "{:#}",
        json!({
            "cniVersion": asked.cni_version.unwrap_or_else(|| NEWEST.to_owned()),
            "supportedVersions": supported,
        })
    ))
}
