//! The settings of this node.

use octoplane_api::v1;
use octoplane_tables::model::{
    Dsr, DsrDispatch, NoBackend, Node, PolicyMode, Routing, Tunnel, TunnelProtocol,
};

use crate::field::Fields;
use crate::mistake::Mistake;
use crate::service::{forwarding, forwarding_message};

/// UDP port of Geneve (RFC 8926).
const GENEVE: u16 = 6081;

/// Settings in the tables' terms.
pub fn node(message: &v1::Node) -> Result<Node, Mistake> {
    let it = Fields { object: "node" };
    let defaults = Node::default();
    let addresses = |field, texts| it.each(field, texts, |field, text| it.address(field, text));
    let port = |field, value, default| match it.word(field, value)? {
        0 => Ok::<u16, Mistake>(default),
        port => Ok(port),
    };
    Ok(Node {
        addresses: addresses("addresses", &message.addresses)?,
        masquerade4: it.maybe4("masquerade4", &message.masquerade4)?,
        masquerade6: it.maybe6("masquerade6", &message.masquerade6)?,
        native_cidrs: it.each("native_cidrs", &message.native_cidrs, |field, text| {
            it.prefix(field, text)
        })?,
        nodeport_addresses: addresses("nodeport_addresses", &message.nodeport_addresses)?,
        nodeport_min: port("nodeport_min", message.nodeport_min, defaults.nodeport_min)?,
        nodeport_max: port("nodeport_max", message.nodeport_max, defaults.nodeport_max)?,
        routing: match it.choice("routing", message.routing)? {
            v1::Routing::Unspecified | v1::Routing::Native => Routing::Native,
            v1::Routing::Tunnel => Routing::Tunnel,
        },
        tunnel: match &message.tunnel {
            Some(message) => tunnel(it, message)?,
            None => defaults.tunnel,
        },
        policy_mode: match it.choice("policy_mode", message.policy_mode)? {
            v1::PolicyMode::Unspecified | v1::PolicyMode::Default => PolicyMode::Default,
            v1::PolicyMode::Always => PolicyMode::Always,
            v1::PolicyMode::Never => PolicyMode::Never,
        },
        audit: message.audit,
        policy_deny_response: message.policy_deny_response,
        no_backend: match it.choice("no_backend", message.no_backend)? {
            v1::NoBackend::Unspecified | v1::NoBackend::Reject => NoBackend::Reject,
            v1::NoBackend::Drop => NoBackend::Drop,
        },
        forwarding: forwarding(it, message.forwarding)?.unwrap_or_default(),
        dsr: match &message.dsr {
            Some(message) => dsr(it, message)?,
            None => defaults.dsr,
        },
    })
}

fn dsr(it: Fields<'_>, message: &v1::Dsr) -> Result<Dsr, Mistake> {
    let prefix = |field, text: &str| match text {
        "" => Ok(None),
        text => it.prefix(field, text).map(Some),
    };
    Ok(Dsr {
        dispatch: match it.choice("dsr.dispatch", message.dispatch)? {
            v1::DsrDispatch::Unspecified | v1::DsrDispatch::Opt => DsrDispatch::Opt,
            v1::DsrDispatch::Geneve => DsrDispatch::Geneve,
            v1::DsrDispatch::Ipip => DsrDispatch::Ipip,
        },
        source4: prefix("dsr.source4", &message.source4)?,
        source6: prefix("dsr.source6", &message.source6)?,
    })
}

fn tunnel(it: Fields<'_>, message: &v1::Tunnel) -> Result<Tunnel, Mistake> {
    let protocol = match it.choice("tunnel.protocol", message.protocol)? {
        v1::TunnelProtocol::Unspecified | v1::TunnelProtocol::Vxlan => TunnelProtocol::Vxlan,
        v1::TunnelProtocol::Geneve => TunnelProtocol::Geneve,
    };
    let port = match (it.word("tunnel.port", message.port)?, protocol) {
        (0, TunnelProtocol::Vxlan) => Tunnel::default().port,
        (0, TunnelProtocol::Geneve) => GENEVE,
        (port, _) => port,
    };
    Ok(Tunnel {
        protocol,
        port,
        local4: it.maybe4("tunnel.local4", &message.local4)?,
        local6: it.maybe6("tunnel.local6", &message.local6)?,
    })
}

/// Settings as a message.
pub fn node_message(node: &Node) -> v1::Node {
    v1::Node {
        addresses: node.addresses.iter().map(ToString::to_string).collect(),
        masquerade4: crate::objects::text(node.masquerade4),
        masquerade6: crate::objects::text(node.masquerade6),
        native_cidrs: node.native_cidrs.iter().map(ToString::to_string).collect(),
        nodeport_addresses: node.nodeport_addresses.iter().map(ToString::to_string).collect(),
        nodeport_min: node.nodeport_min.into(),
        nodeport_max: node.nodeport_max.into(),
        routing: match node.routing {
            Routing::Native => v1::Routing::Native,
            Routing::Tunnel => v1::Routing::Tunnel,
        }
        .into(),
        tunnel: Some(v1::Tunnel {
            protocol: match node.tunnel.protocol {
                TunnelProtocol::Vxlan => v1::TunnelProtocol::Vxlan,
                TunnelProtocol::Geneve => v1::TunnelProtocol::Geneve,
            }
            .into(),
            port: node.tunnel.port.into(),
            local4: crate::objects::text(node.tunnel.local4),
            local6: crate::objects::text(node.tunnel.local6),
        }),
        policy_mode: match node.policy_mode {
            PolicyMode::Default => v1::PolicyMode::Default,
            PolicyMode::Always => v1::PolicyMode::Always,
            PolicyMode::Never => v1::PolicyMode::Never,
        }
        .into(),
        audit: node.audit,
        policy_deny_response: node.policy_deny_response,
        no_backend: match node.no_backend {
            NoBackend::Reject => v1::NoBackend::Reject,
            NoBackend::Drop => v1::NoBackend::Drop,
        }
        .into(),
        forwarding: forwarding_message(Some(node.forwarding)),
        dsr: Some(v1::Dsr {
            dispatch: match node.dsr.dispatch {
                DsrDispatch::Opt => v1::DsrDispatch::Opt,
                DsrDispatch::Geneve => v1::DsrDispatch::Geneve,
                DsrDispatch::Ipip => v1::DsrDispatch::Ipip,
            }
            .into(),
            source4: crate::objects::text(node.dsr.source4),
            source6: crate::objects::text(node.dsr.source6),
        }),
    }
}
