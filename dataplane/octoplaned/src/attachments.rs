//! Pods that come and go by way of CNI plugins: what the daemon adds to `octoplane-cni-server`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context as _, bail};
use octoplane_cni_server::listen::{ListenError, Listeners};
use octoplane_cni_server::wire::{Action, ByConfiguration, Functions, Sdp};
use octoplane_cni_server::{Attachments, Directory, Rules, sdp};
use octoplane_config::schema::{self, Config, DeviceSpec};
use octoplane_worker::Dataplane;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::error;

/// How often it is looked for what nobody came back for.
const COLLECT: Duration = Duration::from_secs(10);

/// Attachments and those who ask for them, not yet served.
pub(crate) struct Cni {
    attachments: Arc<Attachments>,
    functions: Arc<dyn Functions>,
    config: schema::Cni,
}

impl Cni {
    /// Over the tables of a data plane.
    pub(crate) fn new(config: &Config, dataplane: &Arc<Dataplane>) -> Self {
        let config = config.cni.clone();
        let attachments = Attachments::new(
            &config,
            dataplane.store.clone(),
            Box::new(Directory::new(&config.directory)),
            Box::new(Rules::new(&config.identities)),
        );
        let functions: Arc<dyn Functions> = if config.ports.is_empty() {
            let dataplane: Weak<Dataplane> = Arc::downgrade(dataplane);
            Arc::new(Sdp {
                devices: sdp::devices(),
                port: Box::new(move |address| {
                    let ports = dataplane.upgrade()?.ports();
                    let port = ports.iter().find(|bound| bound.plan.device == address)?;
                    Some(port.plan.name.clone())
                }),
            })
        } else {
            Arc::new(ByConfiguration(config.ports.clone()))
        };
        Self {
            attachments: Arc::new(attachments),
            functions,
            config,
        }
    }

    /// The attachments.
    pub(crate) fn attachments(&self) -> Arc<Attachments> {
        Arc::clone(&self.attachments)
    }

    /// Restores what was attached before, listens, and looks after attachments. Inside a runtime.
    pub(crate) fn start(self) -> anyhow::Result<Running> {
        self.attachments
            .restore()
            .context("cni.directory: attachments could not be restored")?;
        let listeners = Listeners::bind(&self.config)?;
        let (stop, stopped) = watch::channel(());
        let wait = move || {
            let mut stopped = stopped.clone();
            // Ends when the sender goes.
            async move { while stopped.changed().await.is_ok() {} }
        };
        let action = Action::new(Arc::clone(&self.attachments), self.functions);
        let serving = tokio::spawn(async move {
            let served = listeners.serve(action, wait).await;
            if let Err(error) = &served {
                error!("{error}: CNIAction is not served any more");
            }
            served
        });
        let attachments = self.attachments;
        let collecting = tokio::spawn(async move {
            let mut rounds = tokio::time::interval(COLLECT);
            loop {
                rounds.tick().await;
                let attachments = Arc::clone(&attachments);
                let _ = tokio::task::spawn_blocking(move || attachments.collect()).await;
            }
        });
        Ok(Running {
            stop,
            serving,
            collecting,
        })
    }
}

/// Listeners that are served.
pub(crate) struct Running {
    stop: watch::Sender<()>,
    serving: JoinHandle<Result<(), ListenError>>,
    collecting: JoinHandle<()>,
}

impl Running {
    /// Ends all of it.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        self.collecting.abort();
        self.serving.await.context("cni")??;
        Ok(())
    }
}

/// Refuses a configuration that has the management wire among its ports.
pub(crate) fn leave_management(config: &Config) -> anyhow::Result<()> {
    for port in &config.ports {
        if is_management(&port.device) {
            bail!("ports.{}.device: {}", port.name, management_text(&port.device));
        }
    }
    Ok(())
}

/// Whether a device is the SDP function over which the host manages the DPU.
pub(crate) fn is_management(device: &DeviceSpec) -> bool {
    device.is_pci() && sdp::management(&sdp::devices()).as_deref() == Some(device.name())
}

/// What is said about it.
pub(crate) fn management_text(device: &DeviceSpec) -> String {
    format!(
        "{device} is the first SDP function, the management wire between host and DPU, which stays with the kernel: expected \
         another device"
    )
}
