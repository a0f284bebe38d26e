//! ADD: a pod gets its network, or nothing is left behind.

use std::net::IpAddr;

use octoplane_api::v1;
use serde_json::{Map, Value};

use super::Call;
use crate::link::{Netns, Pair, Setup, delete, set_up};
use crate::names::{Names, mac};
use crate::spec::{CniError, CniResult, Code, Interface, Ip, Route};

/// What was done, in this order, and is undone in the reverse order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Done {
    Nothing,
    Reserved,
    Delegated,
    Paired,
    Ported,
    Attached,
}

/// What the first steps find out.
struct Made {
    attachment: v1::Attachment,
    host_mac: String,
    pod_mac: String,
    routes: Vec<(IpAddr, u8)>,
    dns: Value,
}

pub(crate) async fn add(call: &Call) -> Result<CniResult, CniError> {
    let previous = call.conf.previous()?;
    let environment = &call.environment;
    let netns = Netns::open(&environment.netns)?.ok_or_else(|| {
        CniError::new(
            Code::Environment,
            format!("CNI_NETNS: {} is not a network namespace", environment.netns),
        )
    })?;
    let names = call.names();
    let mut done = Done::Nothing;
    match make(call, &names, &netns, &mut done).await {
        Ok(made) => Ok(answer(call, &names, &made).behind(previous)),
        Err(error) => Err(undo(call, &names, done, error).await),
    }
}

async fn make(call: &Call, names: &Names, netns: &Netns, done: &mut Done) -> Result<Made, CniError> {
    let environment = &call.environment;
    let wanted_mac = call.conf.mac(environment.arg("MAC")).map(mac).transpose()?;
    let reservation = reservation(call).await?;
    let reserved = call.daemon.reserve(reservation).await?;
    // A runtime does not add twice (specification, "ADD"). Whatever went wrong, a pod that works is not to suffer for it.
    if reserved.endpoint != 0 || reserved.network != call.conf.name {
        return Err(CniError::new(
            Code::Daemon,
            format!(
                "interface {} of container {} is attached already, to network {}",
                environment.interface, environment.container, reserved.network
            ),
        ));
    }
    *done = Done::Reserved;

    let (mut given, mut routes, mut dns) = (Vec::new(), Vec::new(), call.conf.dns.clone());
    if let Some(delegate) = &call.delegate {
        // What it did is undone even if it failed half-way (specification, "Plugin Delegation").
        *done = Done::Delegated;
        let result = delegate.add().await?;
        // What the network says comes first, as with the reference plugins.
        if dns.is_null() {
            dns = result.dns;
        }
        for ip in &result.ips {
            given.push(prefix(&ip.address)?.0);
        }
        for route in &result.routes {
            routes.push(prefix(&route.dst)?);
        }
        if given.is_empty() {
            return Err(CniError::new(
                Code::Conf,
                format!("{}: gave no address out", call.conf.ipam.plugin),
            ));
        }
    }

    let pair = Pair {
        host: &names.port,
        pod: &environment.interface,
        mac: wanted_mac,
        mtu: call.conf.mtu,
        alias: &names.alias,
    };
    // A pair that is there with our name is of an ADD that was killed: nobody uses it, or this ADD would not have been called.
    delete(&names.port).await?;
    *done = Done::Paired;
    let host_mac = pair.make(netns).await?;

    // Likewise.
    *done = Done::Ported;
    call.daemon.remove_port(names).await?;
    call.daemon.add_port(names, &call.conf).await?;

    let name = environment.interface.clone();
    let pod_mac = netns.run(async move || crate::link::inspect(&name).await)?.mac;
    *done = Done::Attached;
    let attachment = call
        .daemon
        .attach(v1::AttachRequest {
            key: Some(call.key()),
            port: names.port.clone(),
            mac: pod_mac.clone(),
            addresses: given.iter().map(ToString::to_string).collect(),
        })
        .await?;

    let setup = setup(call, &attachment, routes)?;
    let routes = setup.routes.clone();
    netns.run(async move || set_up(&setup).await)?;
    Ok(Made {
        attachment,
        host_mac,
        pod_mac,
        routes,
        dns,
    })
}

/// What is asked of the daemon.
async fn reservation(call: &Call) -> Result<v1::ReserveRequest, CniError> {
    let (environment, conf) = (&call.environment, &call.conf);
    let text = |name: &str| environment.arg(name).unwrap_or_default().to_owned();
    let mut request = v1::ReserveRequest {
        key: Some(call.key()),
        network: conf.name.clone(),
        pod_namespace: text("K8S_POD_NAMESPACE"),
        pod_name: text("K8S_POD_NAME"),
        ..Default::default()
    };
    if call.delegate.is_some() {
        return Ok(request);
    }
    let static_addresses = conf.addresses(environment.arg("IP"))?;
    if !static_addresses.is_empty() {
        request.addresses = static_addresses.iter().map(ToString::to_string).collect();
        return Ok(request);
    }
    let pools = call.daemon.pools().await?;
    let has = |v6: bool| pools.iter().any(|pool| pool.prefix.contains(':') == v6);
    request.ipv4 = conf.ipv4.unwrap_or_else(|| has(false));
    request.ipv6 = conf.ipv6.unwrap_or_else(|| has(true));
    if !request.ipv4 && !request.ipv6 {
        return Err(CniError::new(
            Code::Conf,
            "there is nowhere to take an address from: the daemon has no pools (cni.pools), and ipam.type names no plugin",
        ));
    }
    Ok(request)
}

fn setup(call: &Call, attachment: &v1::Attachment, routes: Vec<(IpAddr, u8)>) -> Result<Setup, CniError> {
    let parse = |text: &String| {
        text.parse::<IpAddr>()
            .map_err(|_| CniError::new(Code::Daemon, format!("\"{text}\" is not an address")))
    };
    let addresses: Vec<IpAddr> = attachment.addresses.iter().map(parse).collect::<Result<_, _>>()?;
    let default =
        |v4: bool| -> Result<(IpAddr, u8), CniError> { prefix(if v4 { "0.0.0.0/0" } else { "::/0" }) };
    let routes = if routes.is_empty() {
        let families = [true, false]
            .into_iter()
            .filter(|v4| addresses.iter().any(|address| address.is_ipv4() == *v4));
        families.map(default).collect::<Result<_, _>>()?
    } else {
        routes
    };
    Ok(Setup {
        name: call.environment.interface.clone(),
        addresses,
        gateways: [parse(&attachment.gateway4)?, parse(&attachment.gateway6)?],
        routes,
    })
}

/// A prefix, or an address with the length of its network.
fn prefix(text: &str) -> Result<(IpAddr, u8), CniError> {
    let parsed = text
        .split_once('/')
        .and_then(|(address, length)| Some((address.parse().ok()?, length.parse().ok()?)));
    parsed
        .filter(|(address, length): &(IpAddr, u8)| *length <= if address.is_ipv4() { 32 } else { 128 })
        .ok_or_else(|| CniError::new(Code::Decode, format!("\"{text}\" is not ADDRESS/LENGTH")))
}

fn answer(call: &Call, names: &Names, made: &Made) -> CniResult {
    let gateway = |v6: bool| {
        if v6 {
            made.attachment.gateway6.clone()
        } else {
            made.attachment.gateway4.clone()
        }
    };
    let interface = |name: &str, mac: &str, sandbox: &str| Interface {
        name: name.to_owned(),
        mac: mac.to_owned(),
        mtu: Some(call.conf.mtu),
        sandbox: sandbox.to_owned(),
        rest: Map::new(),
    };
    let environment = &call.environment;
    CniResult {
        interfaces: vec![
            interface(&names.port, &made.host_mac, ""),
            interface(&environment.interface, &made.pod_mac, &environment.netns),
        ],
        ips: made
            .attachment
            .addresses
            .iter()
            .map(|address| {
                let v6 = address.contains(':');
                Ip {
                    address: format!("{address}/{}", if v6 { 128 } else { 32 }),
                    gateway: gateway(v6),
                    interface: Some(1),
                }
            })
            .collect(),
        routes: made
            .routes
            .iter()
            .map(|(destination, length)| Route {
                dst: format!("{destination}/{length}"),
                gw: gateway(destination.is_ipv6()),
                mtu: None,
                rest: Map::new(),
            })
            .collect(),
        dns: made.dns.clone(),
    }
}

/// Undoes what was done. Whatever fails is added to the error, and the rest is undone all the same: what stays is still
/// reserved, which DEL and GC find.
async fn undo(call: &Call, names: &Names, done: Done, mut error: CniError) -> CniError {
    let environment = &call.environment;
    let mut note = |what: &str, result: Result<(), CniError>| {
        if let Err(left) = &result {
            error = error.clone().and(format_args!("{what} stays: {}", left.message));
        }
        result.is_ok()
    };
    let mut clean = true;
    if done >= Done::Attached {
        clean &= note("the endpoint", call.daemon.detach(call.key(), true).await);
    }
    if done >= Done::Ported {
        clean &= note("the port", call.daemon.remove_port(names).await);
    }
    if done >= Done::Paired {
        clean &= note("the pair of interfaces", delete(&names.port).await);
    }
    if done >= Done::Delegated
        && let Some(delegate) = &call.delegate
    {
        let freed = delegate.del(&environment.container, &environment.interface).await;
        clean &= note("the address", freed);
    }
    if done >= Done::Reserved && clean {
        note("the reservation", call.daemon.detach(call.key(), false).await);
    }
    error
}
