//! The commands of the specification, a file each.

mod add;
mod check;
mod del;
mod gc;
mod status;

pub(crate) use add::add;
pub(crate) use check::check;
pub(crate) use del::del;
pub(crate) use gc::gc;
pub(crate) use status::status;

use octoplane_api::v1;

use crate::daemon::Daemon;
use crate::delegate::Delegate;
use crate::names::Names;
use crate::spec::{CniError, Environment, NetConf, Version};

/// What a command works with.
pub(crate) struct Call {
    pub(crate) environment: Environment,
    pub(crate) conf: NetConf,
    pub(crate) daemon: Daemon,
    pub(crate) delegate: Option<Delegate>,
}

impl Call {
    /// Checks the configuration, and connects.
    pub(crate) async fn new(
        environment: Environment,
        conf: NetConf,
        version: Version,
    ) -> Result<Self, CniError> {
        conf.check()?;
        let delegate = Delegate::find(&conf, &environment, version).await?;
        let daemon = Daemon::connect(&conf.socket).await?;
        Ok(Self {
            environment,
            conf,
            daemon,
            delegate,
        })
    }

    fn names(&self) -> Names {
        Names::new(
            &self.conf.name,
            &self.environment.container,
            &self.environment.interface,
        )
    }

    fn key(&self) -> v1::AttachmentKey {
        key(&self.environment.container, &self.environment.interface)
    }
}

fn key(container: &str, interface: &str) -> v1::AttachmentKey {
    v1::AttachmentKey {
        container_id: container.to_owned(),
        interface: interface.to_owned(),
    }
}
