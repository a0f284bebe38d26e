//! The settings of this node.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use octoplane_packet::Prefix;

use crate::error::ChangeError;
use crate::model::{
    DsrDispatch, MAX_NATIVE_CIDRS, MAX_NODE_ADDRESSES, Node, Routing, Service, TunnelProtocol,
};
use crate::services::FrontendKey;
use crate::state::State;
use crate::store::Capacity;
use crate::validate::{field, unusable};

impl State {
    pub(super) fn put_node(&mut self, node: Node, capacity: &Capacity) -> Result<(), ChangeError> {
        addresses("addresses", &node.addresses)?;
        addresses("nodeport_addresses", &node.nodeport_addresses)?;
        for &addr in &node.addresses {
            if let Some(owner) = self.owner(addr) {
                return Err(ChangeError::NodeAddressTaken {
                    addr,
                    owner: owner.id,
                });
            }
            if self.gateways.contains(addr) {
                return refuse(
                    "addresses",
                    format!("holds {addr}, which is the gateway that pods see"),
                );
            }
        }
        let single = [
            ("masquerade4", node.masquerade4.map(IpAddr::from)),
            ("masquerade6", node.masquerade6.map(IpAddr::from)),
            ("tunnel.local4", node.tunnel.local4.map(IpAddr::from)),
            ("tunnel.local6", node.tunnel.local6.map(IpAddr::from)),
        ];
        for (name, addr) in single {
            if let Some((addr, why)) = addr.and_then(|addr| Some((addr, unusable(addr)?))) {
                return refuse(name, format!("{addr} is not the address of a node: {why}"));
            }
        }
        native_cidrs(&node.native_cidrs)?;
        let (min, max) = (node.nodeport_min, node.nodeport_max);
        if min == 0 {
            return refuse("nodeport_min", "0 is out of range, expected 1 to 65535".into());
        }
        if max < min || max == u16::MAX {
            return refuse(
                "nodeport_max",
                format!("{max} is out of range, expected nodeport_min ({min}) to 65534"),
            );
        }
        if node.tunnel.port == 0 {
            return refuse("tunnel.port", "0 is out of range, expected 1 to 65535".into());
        }
        if node.routing == Routing::Tunnel && node.tunnel.local4.is_none() && node.tunnel.local6.is_none() {
            return refuse(
                "tunnel",
                "has neither local4 nor local6, expected one for routing tunnel".into(),
            );
        }
        dsr(&node)?;
        self.set_node(Some(Arc::new(node)), capacity)
    }

    pub(super) fn remove_node(&mut self, capacity: &Capacity) -> Result<(), ChangeError> {
        if self.node.is_none() {
            return Err(ChangeError::NotFound {
                object: "node".into(),
            });
        }
        self.set_node(None, capacity)
    }

    /// Sets the settings, and gives services the frontends that the node's NodePort addresses make.
    fn set_node(&mut self, node: Option<Arc<Node>>, capacity: &Capacity) -> Result<(), ChangeError> {
        let old = std::mem::replace(&mut self.node, node);
        let new = self.node.clone().unwrap_or_default();
        let old = old.unwrap_or_default();
        if old.nodeport_addresses() == new.nodeport_addresses() {
            return Ok(());
        }
        let services: Vec<(Arc<str>, Arc<Service>)> = self
            .surrogates
            .iter()
            .filter_map(|name| Some((Arc::clone(name), Arc::clone(self.services.get(name)?))))
            .collect();
        for (_, service) in &services {
            let kept: BTreeSet<_> = FrontendKey::all(service, &new)
                .into_iter()
                .map(|it| it.0)
                .collect();
            for (key, _) in FrontendKey::all(service, &old) {
                if !kept.contains(&key) {
                    self.names.release_frontend(&key);
                }
            }
        }
        for (name, service) in &services {
            self.take_frontends(name, service, &new, capacity)?;
        }
        Ok(())
    }
}

fn addresses(name: &str, list: &[IpAddr]) -> Result<(), ChangeError> {
    if list.len() > MAX_NODE_ADDRESSES {
        return refuse(
            name,
            format!(
                "has {} addresses, expected at most {MAX_NODE_ADDRESSES}",
                list.len()
            ),
        );
    }
    let mut seen = BTreeSet::new();
    for &addr in list {
        if let Some(why) = unusable(addr) {
            return refuse(name, format!("holds {addr}, which is not a node's: {why}"));
        }
        if !seen.insert(addr) {
            return refuse(name, format!("holds {addr} twice"));
        }
    }
    Ok(())
}

fn native_cidrs(list: &[Prefix]) -> Result<(), ChangeError> {
    if list.len() > MAX_NATIVE_CIDRS {
        return refuse(
            "native_cidrs",
            format!("has {} prefixes, expected at most {MAX_NATIVE_CIDRS}", list.len()),
        );
    }
    let mut seen = BTreeSet::new();
    match list.iter().find(|prefix| !seen.insert(**prefix)) {
        Some(prefix) => refuse("native_cidrs", format!("holds {prefix} twice")),
        None => Ok(()),
    }
}

fn dsr(node: &Node) -> Result<(), ChangeError> {
    let tunnel = &node.tunnel;
    match node.dsr.dispatch {
        DsrDispatch::Geneve if tunnel.protocol != TunnelProtocol::Geneve => {
            return refuse(
                "dsr.dispatch",
                "geneve needs Geneve tunnels, expected tunnel.protocol geneve".into(),
            );
        }
        DsrDispatch::Geneve if tunnel.local4.is_none() && tunnel.local6.is_none() => {
            return refuse(
                "dsr.dispatch",
                "geneve needs an end of tunnels, expected tunnel.local4 or tunnel.local6".into(),
            );
        }
        DsrDispatch::Ipip if node.routing == Routing::Tunnel => {
            return refuse(
                "dsr.dispatch",
                "ipip reaches backends by the underlying network only, expected routing native".into(),
            );
        }
        DsrDispatch::Opt | DsrDispatch::Geneve | DsrDispatch::Ipip => {}
    }
    let sources = [
        ("dsr.source4", node.dsr.source4, true),
        ("dsr.source6", node.dsr.source6, false),
    ];
    for (name, prefix, v4) in sources {
        let Some(prefix) = prefix else { continue };
        if prefix.addr().is_ipv4() != v4 {
            let family = if v4 { "IPv4" } else { "IPv6" };
            return refuse(name, format!("{prefix} is not an {family} prefix"));
        }
        if let Some(why) = unusable(prefix.addr()) {
            return refuse(name, format!("{prefix} does not hold addresses of a node: {why}"));
        }
    }
    Ok(())
}

fn refuse(name: &str, why: String) -> Result<(), ChangeError> {
    Err(field("node", name, why))
}
