//! Policy (specification, 2.6, 2.7 and section 4).

use crate::config::{Direction, PolicyEntry, PolicyMode, Subject};
use crate::fib::identity;
use crate::model::Model;
use crate::outcome::{Verdict, code};
use crate::wire::{Packet, Tuple};

/// What policy says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The proxy to go through, 0 for none; or a drop code.
    pub(crate) result: Result<u16, u16>,
    pub(crate) event: Verdict,
}

/// Length of an entry's prefix behind the identity: 0, 8 with a protocol, and up to 16 more with a port.
fn prefix_len(entry: &PolicyEntry) -> u8 {
    match entry.protocol {
        0 => 0,
        _ => 8 + entry.port_prefix_len.min(16),
    }
}

fn matches(entry: &PolicyEntry, identity: u32, direction: Direction, protocol: u8, port: u16) -> bool {
    let bits = u32::from(prefix_len(entry)).saturating_sub(8);
    entry.direction == direction
        && entry.identity == identity
        && (entry.protocol == 0 || entry.protocol == protocol)
        && (bits == 0 || (entry.port ^ port) >> (16 - bits) == 0)
}

/// The entry with the longest prefix.
fn lookup(
    entries: &[PolicyEntry],
    identity: u32,
    direction: Direction,
    protocol: u8,
    port: u16,
) -> Option<&PolicyEntry> {
    entries
        .iter()
        .filter(|entry| matches(entry, identity, direction, protocol, port))
        .max_by_key(|entry| prefix_len(entry))
}

/// The entry that counts, and the one that does not (specification, 2.6).
pub(crate) fn decide(
    entries: &[PolicyEntry],
    identity: u32,
    direction: Direction,
    protocol: u8,
    port: u16,
) -> Option<(&PolicyEntry, Option<&PolicyEntry>)> {
    let exact = lookup(entries, identity, direction, protocol, port);
    if let Some(exact) = exact
        && exact.precedence == u32::MAX
    {
        return Some((exact, None));
    }
    let wild = lookup(entries, 0, direction, protocol, port);
    match (exact, wild) {
        (Some(exact), Some(wild)) => {
            let wins = wild.precedence > exact.precedence
                || wild.precedence == exact.precedence && prefix_len(wild) > prefix_len(exact);
            Some(if wins {
                (wild, Some(exact))
            } else {
                (exact, Some(wild))
            })
        }
        (Some(only), None) | (None, Some(only)) => Some((only, None)),
        (None, None) => None,
    }
}

impl Model {
    /// Whether policy is enforced on a subject in a direction, whether denials are only reported, and the entries.
    fn enforced(&self, subject: Subject, direction: Direction) -> (bool, bool, &[PolicyEntry]) {
        let policy = self
            .state
            .policies
            .iter()
            .find(|policy| policy.endpoint == subject);
        let asked = policy.is_some_and(|policy| match direction {
            Direction::Ingress => policy.enforce_ingress,
            Direction::Egress => policy.enforce_egress,
        });
        let enforced = match self.state.node.policy_mode {
            PolicyMode::Never => false,
            PolicyMode::Always => true,
            PolicyMode::Default => asked,
        };
        let audit = self.state.node.audit || policy.is_some_and(|policy| policy.audit);
        (
            enforced,
            audit,
            policy.map_or(&[], |policy| policy.entries.as_slice()),
        )
    }

    /// Whether there is a host firewall: none where nothing is ever enforced.
    pub(crate) fn host_firewall(&self) -> bool {
        let mut policies = self.state.policies.iter();
        self.state.node.policy_mode != PolicyMode::Never
            && policies.any(|policy| policy.endpoint == Subject::Host)
    }

    /// Whether `subject` and the other side, of identity `remote`, have authenticated.
    fn authenticated(
        &self,
        subject: Subject,
        direction: Direction,
        remote: u32,
        tuple: &Tuple,
        auth_type: u8,
    ) -> bool {
        let other = match direction {
            Direction::Egress => tuple.dst,
            Direction::Ingress => tuple.src,
        };
        let node = self.ipcache(other).and_then(|entry| entry.tunnel_endpoint);
        let local = match subject {
            Subject::Host => identity::HOST,
            Subject::Endpoint(id) => {
                let mut endpoints = self.state.endpoints.iter();
                endpoints.find(|it| it.id == id).map_or(0, |it| it.identity)
            }
        };
        self.state.authentications.iter().any(|it| {
            it.local_identity == local
                && it.remote_identity == remote
                && it.remote_node == node
                && it.auth_type == auth_type
        })
    }

    /// What the policy of `subject` says of a packet between it and `remote`.
    pub(crate) fn policy(
        &self,
        subject: Subject,
        direction: Direction,
        remote: u32,
        packet: &Packet,
        tuple: &Tuple,
    ) -> Decision {
        // ICMP rules: the type stands for the destination port.
        let kind = packet.icmp().map(|(kind, _)| kind).or(packet.kind);
        let port = kind.map_or(tuple.dport, u16::from);
        let mut event = Verdict {
            subject,
            direction,
            remote,
            verdict: 0,
            dport: port,
            protocol: tuple.protocol,
            match_type: 0,
            audited: false,
            auth_type: 0,
            cookie: 0,
        };
        if !packet.v6 && packet.icmp() == Some((3, 4)) {
            return Decision { result: Ok(0), event };
        }
        let (enforced, audit, entries) = self.enforced(subject, direction);
        if !enforced {
            event.match_type = 4;
            return Decision { result: Ok(0), event };
        }
        let mut auth = 0;
        let mut result = match decide(entries, remote, direction, tuple.protocol, port) {
            None => Err(code::POLICY),
            Some((entry, other)) => {
                event.match_type = match (entry.identity, prefix_len(entry)) {
                    (0, 0) => 4,
                    (0, 8) => 6,
                    (0, _) => 3,
                    (_, 0) => 1,
                    (_, 8) => 5,
                    _ => 2,
                };
                event.cookie = entry.cookie;
                auth = match other {
                    Some(other) if !entry.auth_explicit && other.precedence == entry.precedence => {
                        entry.auth_type.max(other.auth_type)
                    }
                    _ => entry.auth_type,
                };
                if entry.deny {
                    Err(code::POLICY_DENY)
                } else {
                    Ok(entry.proxy_port)
                }
            }
        };
        if result.is_ok() && auth != 0 {
            event.auth_type = auth;
            if !self.authenticated(subject, direction, remote, tuple, auth) {
                result = Err(code::AUTH);
            }
        }
        if audit && matches!(result, Err(code::POLICY | code::POLICY_DENY)) {
            event.audited = true;
            result = Ok(0);
        }
        event.verdict = match result {
            Ok(port) => port.into(),
            Err(code) => -i32::from(code),
        };
        Decision { result, event }
    }
}
