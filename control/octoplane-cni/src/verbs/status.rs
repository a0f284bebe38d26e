//! STATUS: whether ADD would have a chance.

use super::Call;
use crate::spec::{CniError, Code, Environment, NetConf, Version};

pub(crate) async fn status(
    environment: Environment,
    conf: NetConf,
    version: Version,
) -> Result<(), CniError> {
    let not_available = |mut error: CniError| {
        // Whatever is in the way, this is what the runtime asked about; mistakes in the configuration have their own code.
        if error.code == Code::TryAgain as u32 || error.code == Code::Daemon as u32 {
            error.code = Code::NotAvailable as u32;
        }
        error
    };
    let call = Call::new(environment, conf, version)
        .await
        .map_err(not_available)?;
    if let Some(delegate) = &call.delegate {
        if delegate.speaks(version) {
            delegate.call("STATUS").await?;
        }
        // Whether the data plane answers is asked all the same.
        return call.daemon.pools().await.map(drop).map_err(not_available);
    }
    let pools = call.daemon.pools().await.map_err(not_available)?;
    if pools.is_empty() {
        return Err(CniError::new(
            Code::NotAvailable,
            "the daemon has no pools (cni.pools), and ipam.type names no plugin",
        ));
    }
    for (v6, wanted) in [(false, call.conf.ipv4), (true, call.conf.ipv6)] {
        let mut of_family = pools
            .iter()
            .filter(|pool| pool.prefix.contains(':') == v6)
            .peekable();
        if wanted == Some(false) || (wanted.is_none() && of_family.peek().is_none()) {
            continue;
        }
        if !of_family.any(|pool| pool.used.saturating_add(pool.resting) < pool.size) {
            return Err(CniError::new(
                Code::NotAvailable,
                format!("no IPv{} address is free", if v6 { 6 } else { 4 }),
            ));
        }
    }
    Ok(())
}
