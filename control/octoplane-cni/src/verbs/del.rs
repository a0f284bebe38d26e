//! DEL: nothing of a pod's network is left, however much of it there was.

use super::{Call, key};
use crate::link::delete;
use crate::names::Names;
use crate::spec::CniError;

pub(crate) async fn del(call: &Call) -> Result<(), CniError> {
    let environment = &call.environment;
    remove(call, &environment.container, &environment.interface).await
}

/// Removes an attachment. What is kept of it goes last: whoever is killed on the way leaves something to be found.
pub(super) async fn remove(call: &Call, container: &str, interface: &str) -> Result<(), CniError> {
    let names = Names::new(&call.conf.name, container, interface);
    let key = key(container, interface);
    call.daemon.detach(key.clone(), true).await?;
    call.daemon.remove_port(&names).await?;
    delete(&names.port).await?;
    if let Some(delegate) = &call.delegate {
        delegate.del(container, interface).await?;
    }
    call.daemon.detach(key, false).await
}
