//! DEL: nothing of a pod's network is left, however much of it there was.

use super::{Call, key};
use crate::link::delete;
use crate::names::Names;
use crate::spec::{CniError, Code};

pub(crate) async fn del(call: &Call) -> Result<(), CniError> {
    let environment = &call.environment;
    remove(call, &environment.container, &environment.interface).await
}

/// Removes an attachment. What is kept of it goes last: whoever is killed on the way leaves something to be found.
pub(super) async fn remove(call: &Call, container: &str, interface: &str) -> Result<(), CniError> {
    let key = key(container, interface);
    // It is called after the network that it was added to, whose name may have changed since.
    let network = match call.daemon.attachment(key.clone()).await {
        Ok(attachment) => attachment.network,
        Err(error) if error.code == Code::UnknownContainer as u32 => call.conf.name.clone(),
        Err(error) => return Err(error),
    };
    let names = Names::new(&network, container, interface);
    call.daemon.detach(key.clone(), true).await?;
    call.daemon.remove_port(&names).await?;
    delete(&names.port).await?;
    if let Some(delegate) = &call.delegate {
        delegate.del(container, interface).await?;
    }
    call.daemon.detach(key, false).await
}
