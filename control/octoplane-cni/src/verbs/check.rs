//! CHECK: whether a pod's network is as ADD left it.

use std::net::IpAddr;

use super::Call;
use crate::link::{Netns, exists, inspect};
use crate::spec::{CniError, Code};

pub(crate) async fn check(call: &Call) -> Result<(), CniError> {
    let environment = &call.environment;
    let previous = call
        .conf
        .previous()?
        .ok_or_else(|| CniError::new(Code::Conf, "prevResult: is missing"))?;
    let names = call.names();
    let broken = |text: String| Err(CniError::new(Code::Broken, text));
    let attachment = call.daemon.attachment(call.key()).await?;
    if attachment.endpoint == 0 {
        return broken("the data plane has the reservation only".into());
    }
    if attachment.identity == 0 {
        return broken(format!("endpoint {} is gone", attachment.endpoint));
    }
    if attachment.port != names.port {
        return broken(format!(
            "endpoint {} is at port {}",
            attachment.endpoint, attachment.port
        ));
    }
    if !exists(&names.port).await? {
        return broken(format!("interface {} is gone", names.port));
    }
    let Some(netns) = Netns::open(&environment.netns)? else {
        return broken(format!("{} is not a network namespace", environment.netns));
    };
    let name = environment.interface.clone();
    let found = netns.run(async move || inspect(&name).await)?;
    if !found.up {
        return broken(format!("interface {} is down", environment.interface));
    }
    if found.mac != attachment.mac {
        return broken(format!(
            "interface {} has the address {}, the endpoint {}",
            environment.interface, found.mac, attachment.mac
        ));
    }
    if found.mtu != call.conf.mtu {
        return broken(format!(
            "interface {} has an MTU of {}, expected {}",
            environment.interface, found.mtu, call.conf.mtu
        ));
    }
    // Ours among what all plugins of the list made.
    let ours: Vec<usize> = (0..previous.interfaces.len())
        .filter(|index| {
            let interface = &previous.interfaces[*index];
            interface.name == environment.interface && !interface.sandbox.is_empty()
        })
        .collect();
    for ip in &previous.ips {
        if ip.interface.is_some_and(|index| !ours.contains(&index)) {
            continue;
        }
        let bare = ip.address.split('/').next().unwrap_or_default();
        let Ok(address) = bare.parse::<IpAddr>() else {
            return broken(format!("prevResult: \"{}\" is not an address", ip.address));
        };
        if !attachment.addresses.iter().any(|it| it.parse() == Ok(address)) {
            return broken(format!(
                "endpoint {} does not have {address}",
                attachment.endpoint
            ));
        }
        if !found.addresses.contains(&address) {
            return broken(format!(
                "interface {} does not have {address}",
                environment.interface
            ));
        }
    }
    for route in &previous.routes {
        let is_default = matches!(route.dst.as_str(), "0.0.0.0/0" | "::/0");
        let gateway = route.gw.parse::<IpAddr>().ok();
        if is_default && gateway.is_some_and(|gateway| !found.gateways.contains(&gateway)) {
            return broken(format!("there is no default route via {}", route.gw));
        }
    }
    if let Some(delegate) = &call.delegate {
        delegate.call("CHECK").await?;
    }
    Ok(())
}
