//! What is known of addresses elsewhere.

use octoplane_api::v1;
use octoplane_packet::Prefix;
use octoplane_tables::model::{
    AuthKey, Authentication, EgressGateway, EgressGatewayRule, EgressKey, IpcacheEntry,
};

use crate::field::Fields;
use crate::mistake::{Mistake, clip};

/// The prefix of an ipcache entry.
pub fn ipcache_prefix(text: &str) -> Result<Prefix, Mistake> {
    let object = format!("ipcache {}", clip(text));
    Fields { object: &object }.prefix("prefix", text)
}

/// An ipcache entry in the tables' terms.
pub fn ipcache(message: &v1::Ipcache) -> Result<IpcacheEntry, Mistake> {
    let object = format!("ipcache {}", clip(&message.prefix));
    let it = Fields { object: &object };
    Ok(IpcacheEntry {
        prefix: it.prefix("prefix", &message.prefix)?,
        identity: message.identity,
        tunnel: it.maybe("tunnel_endpoint", &message.tunnel_endpoint)?,
        key: it.byte("key", message.key)?,
        skip_tunnel: message.skip_tunnel,
    })
}

/// An ipcache entry as a message.
pub fn ipcache_message(entry: &IpcacheEntry) -> v1::Ipcache {
    v1::Ipcache {
        prefix: entry.prefix.to_string(),
        identity: entry.identity,
        tunnel_endpoint: crate::objects::text(entry.tunnel),
        key: entry.key.into(),
        skip_tunnel: entry.skip_tunnel,
    }
}

/// What an egress-gateway rule is about.
pub fn egress_key(source: &str, destination: &str) -> Result<EgressKey, Mistake> {
    let object = format!("egress gateway {} to {}", clip(source), clip(destination));
    let it = Fields { object: &object };
    Ok(EgressKey {
        source: it.prefix("source", source)?,
        destination: it.prefix("destination", destination)?,
    })
}

/// An egress-gateway rule in the tables' terms.
pub fn egress_gateway(message: &v1::EgressGateway) -> Result<EgressGatewayRule, Mistake> {
    use v1::egress_gateway::Gateway;
    let key = egress_key(&message.source, &message.destination)?;
    let object = format!("egress gateway {} to {}", key.source, key.destination);
    let it = Fields { object: &object };
    Ok(EgressGatewayRule {
        key,
        gateway: match &message.gateway {
            Some(Gateway::Node(text)) => EgressGateway::Node(it.address("node", text)?),
            Some(Gateway::Missing(true)) => EgressGateway::Missing,
            Some(Gateway::Excluded(true)) => EgressGateway::Excluded,
            _ => return Err(it.refuse("gateway", "expected one of node, missing, excluded")),
        },
        egress_ip: it.maybe("egress_ip", &message.egress_ip)?,
    })
}

/// An egress-gateway rule as a message.
pub fn egress_gateway_message(rule: &EgressGatewayRule) -> v1::EgressGateway {
    use v1::egress_gateway::Gateway;
    v1::EgressGateway {
        source: rule.key.source.to_string(),
        destination: rule.key.destination.to_string(),
        gateway: Some(match rule.gateway {
            EgressGateway::Node(addr) => Gateway::Node(addr.to_string()),
            EgressGateway::Missing => Gateway::Missing(true),
            EgressGateway::Excluded => Gateway::Excluded(true),
        }),
        egress_ip: crate::objects::text(rule.egress_ip),
    }
}

/// What an authentication is about.
pub fn authentication_key(message: &v1::Authentication) -> Result<AuthKey, Mistake> {
    let object = format!(
        "authentication {} to {}",
        message.local_identity, message.remote_identity
    );
    let it = Fields { object: &object };
    Ok(AuthKey {
        local_identity: message.local_identity,
        remote_identity: message.remote_identity,
        remote_node: it.maybe("remote_node", &message.remote_node)?,
        auth_type: it.byte("auth_type", message.auth_type)?,
    })
}

/// An authentication in the tables' terms.
pub fn authentication(message: &v1::Authentication) -> Result<Authentication, Mistake> {
    Ok(Authentication {
        key: authentication_key(message)?,
        expires: message.expires,
    })
}

/// An authentication as a message.
pub fn authentication_message(it: &Authentication) -> v1::Authentication {
    v1::Authentication {
        local_identity: it.key.local_identity,
        remote_identity: it.key.remote_identity,
        remote_node: crate::objects::text(it.key.remote_node),
        auth_type: it.key.auth_type.into(),
        expires: it.expires,
    }
}
