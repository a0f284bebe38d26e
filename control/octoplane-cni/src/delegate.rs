//! Another plugin that gives addresses out (specification, "Plugin Delegation").

use std::path::PathBuf;
use std::process::Stdio;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::spec::{CniError, CniResult, Code, Environment, NetConf, SUPPORTED, Version};

/// An IPAM plugin that was found.
#[derive(Debug, Clone)]
pub(crate) struct Delegate {
    plugin: String,
    program: PathBuf,
    /// The whole configuration, which it gets as we got it, but for the version.
    conf: Value,
    /// The newest version that it and the runtime speak.
    version: Version,
}

impl Delegate {
    /// The one that the configuration names, if it does. Asks it which versions it speaks: many are older than this one, and the
    /// configuration's version is ours to choose for it.
    pub(crate) async fn find(
        conf: &NetConf,
        environment: &Environment,
        version: Version,
    ) -> Result<Option<Self>, CniError> {
        let plugin = &conf.ipam.plugin;
        if plugin.is_empty() {
            return Ok(None);
        }
        if plugin.contains('/') {
            return Err(CniError::new(
                Code::Conf,
                format!("ipam.type: \"{plugin}\" is a path, expected the name of a plugin"),
            ));
        }
        let mut places = environment.path.iter().map(|place| place.join(plugin));
        let Some(program) = places.find(|path| path.is_file()) else {
            return Err(CniError::new(
                Code::Conf,
                format!("ipam.type: there is no plugin \"{plugin}\" in CNI_PATH"),
            ));
        };
        let mut delegate = Self {
            plugin: plugin.clone(),
            program,
            conf: conf.text.clone(),
            version,
        };
        let spoken = delegate.versions().await?;
        let common = SUPPORTED
            .into_iter()
            .filter(|it| *it <= version && spoken.contains(&it.to_string()))
            .max();
        delegate.version = common.ok_or_else(|| {
            let text = format!("{plugin}: speaks {}, not {version} or older", spoken.join(", "));
            CniError::new(Code::Version, text)
        })?;
        if let Value::Object(conf) = &mut delegate.conf {
            conf.insert("cniVersion".into(), delegate.version.to_string().into());
        }
        Ok(Some(delegate))
    }

    /// The result of ADD.
    pub(crate) async fn add(&self) -> Result<CniResult, CniError> {
        let output = self.run("ADD", &[]).await?;
        let value: Value = serde_json::from_str(&output)
            .map_err(|error| CniError::new(Code::Decode, format!("{}: {error}", self.plugin)))?;
        CniResult::parse(&value).map_err(|error| error.during(&self.plugin))
    }

    /// DEL for another container than ours.
    pub(crate) async fn del(&self, container: &str, interface: &str) -> Result<(), CniError> {
        let variables = [("CNI_CONTAINERID", container), ("CNI_IFNAME", interface)];
        self.run("DEL", &variables).await.map(drop)
    }

    /// CHECK, or another command without an answer.
    pub(crate) async fn call(&self, command: &str) -> Result<(), CniError> {
        self.run(command, &[]).await.map(drop)
    }

    /// Whether it knows the commands of a version.
    pub(crate) fn speaks(&self, version: Version) -> bool {
        self.version >= version
    }

    async fn versions(&self) -> Result<Vec<String>, CniError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Versions {
            #[serde(default)]
            supported_versions: Vec<String>,
        }
        let output = self.run("VERSION", &[]).await?;
        let versions: Versions = serde_json::from_str(&output)
            .map_err(|error| CniError::new(Code::Decode, format!("{}: VERSION: {error}", self.plugin)))?;
        Ok(versions.supported_versions)
    }

    /// Runs it; what it says on standard output. `variables` replace those of the call to us, with which it runs else.
    async fn run(&self, command: &str, variables: &[(&str, &str)]) -> Result<String, CniError> {
        let what = format!("{} {command}", self.plugin);
        let failed = |error: std::io::Error| CniError::from(error).during(&what);
        let mut child = tokio::process::Command::new(&self.program)
            .env("CNI_COMMAND", command)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(self.conf.to_string().as_bytes()).await {
                // It need not read it.
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(failed(error)),
                _ => {}
            }
        }
        let output = child.wait_with_output().await.map_err(failed)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        #[derive(Deserialize)]
        struct Said {
            code: u32,
            #[serde(default)]
            msg: String,
            #[serde(default)]
            details: String,
        }
        Err(match serde_json::from_str::<Said>(&text) {
            Ok(said) => CniError {
                code: said.code,
                message: format!("{what}: {}", said.msg),
                details: said.details,
            },
            Err(_) => CniError::new(Code::Io, format!("{what}: {}", output.status)),
        })
    }
}
