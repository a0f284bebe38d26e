//! The policy of one endpoint as the workers see it.

use crate::model::{Direction, Node, PolicyEntry, PolicyKey, PolicyMode, PolicyValue};
use crate::policy::{Decision, MatchType, PolicyTable, StoredPolicy, Verdict};

/// The precedence that no other entry can beat: a denial of the highest priority (section 2.7).
const HIGHEST: u32 = u32::MAX;

/// What one endpoint may talk to, with the node's settings applied.
#[derive(Debug, Clone)]
pub struct EndpointPolicy {
    /// Different whenever a verdict may be. Never 0.
    pub revision: u64,
    /// Whether what it receives must match an entry.
    pub enforce_ingress: bool,
    /// Whether what it sends must match an entry.
    pub enforce_egress: bool,
    /// Whether what is refused is allowed and reported only.
    pub audit: bool,
    table: PolicyTable,
}

impl EndpointPolicy {
    /// A stored policy under the node's settings; `None` if nothing is enforced on this node.
    pub(crate) fn new(stored: &StoredPolicy, node: &Node, revision: u64) -> Option<Self> {
        let always = node.policy_mode == PolicyMode::Always;
        (node.policy_mode != PolicyMode::Never).then(|| Self {
            revision,
            enforce_ingress: stored.enforce_ingress || always,
            enforce_egress: stored.enforce_egress || always,
            audit: stored.audit || node.audit,
            table: stored.table.clone(),
        })
    }

    /// What holds for endpoints without policy; `None`: everything is allowed.
    pub(crate) fn missing(node: &Node, revision: u64) -> Option<Self> {
        (node.policy_mode == PolicyMode::Always).then(|| Self {
            revision,
            enforce_ingress: true,
            enforce_egress: true,
            audit: node.audit,
            table: PolicyTable::default(),
        })
    }

    /// What becomes of a packet that the endpoint sends to (`egress`) or receives from `identity`
    /// (specification of the datapath, section 2.6). `port` is the destination port, or 0 where there is none.
    pub fn lookup(&self, egress: bool, identity: u32, protocol: u8, port: u16) -> Verdict {
        if !self.enforces(egress) {
            return Verdict::UNENFORCED;
        }
        let verdict = self.decide(egress, identity, protocol, port);
        match verdict.decision {
            Decision::Deny | Decision::NoMatch if self.audit => Verdict {
                decision: Decision::Allow,
                audited: true,
                ..verdict
            },
            _ => verdict,
        }
    }

    /// Whether what the endpoint sends (`egress`) or receives must match an entry.
    pub fn enforces(&self, egress: bool) -> bool {
        if egress {
            self.enforce_egress
        } else {
            self.enforce_ingress
        }
    }

    /// The entry that [`EndpointPolicy::lookup`] decides by; `None` if there is none, or nothing is enforced.
    pub fn entry(&self, egress: bool, identity: u32, protocol: u8, port: u16) -> Option<PolicyEntry> {
        let enforced = self.enforces(egress);
        let verdict = self.decide(egress, identity, protocol, port);
        let (identity, len) = match verdict.match_type {
            MatchType::None => return None,
            MatchType::L3Only | MatchType::L3L4 | MatchType::L3Proto => {
                (identity, self.table.longest(egress, identity, protocol, port)?.1)
            }
            MatchType::L4Only | MatchType::All | MatchType::ProtoOnly => {
                (0, self.table.longest(egress, 0, protocol, port)?.1)
            }
        };
        let bits = len.saturating_sub(8).min(16);
        let key = PolicyKey {
            direction: if egress {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            identity,
            protocol: if len == 0 { 0 } else { protocol },
            port: port & u16::MAX.checked_shl(16 - u32::from(bits)).unwrap_or(0),
            port_prefix_len: bits,
        };
        let value = *self.table.get(&key)?;
        enforced.then_some(PolicyEntry { key, value })
    }

    fn decide(&self, egress: bool, identity: u32, protocol: u8, port: u16) -> Verdict {
        let exact = self.table.longest(egress, identity, protocol, port);
        if let Some((value, len)) = exact
            && value.precedence == HIGHEST
        {
            return verdict(value, None, match_type(identity != 0, len));
        }
        let any = self.table.longest(egress, 0, protocol, port);
        match (exact, any) {
            (Some((l, l_len)), Some((w, w_len))) => {
                if (w.precedence, w_len) > (l.precedence, l_len) {
                    verdict(w, Some(l), match_type(false, w_len))
                } else {
                    verdict(l, Some(w), match_type(identity != 0, l_len))
                }
            }
            (Some((l, len)), None) => verdict(l, None, match_type(identity != 0, len)),
            (None, Some((w, len))) => verdict(w, None, match_type(false, len)),
            (None, None) => Verdict {
                decision: Decision::NoMatch,
                match_type: MatchType::None,
                ..Verdict::UNENFORCED
            },
        }
    }
}

/// What the entry that won says (section 2.6, step 5).
fn verdict(winner: &PolicyValue, loser: Option<&PolicyValue>, match_type: MatchType) -> Verdict {
    let plain = Verdict {
        decision: Decision::Deny,
        proxy_port: 0,
        auth_type: 0,
        cookie: winner.cookie,
        match_type,
        audited: false,
    };
    if winner.deny {
        return plain;
    }
    let auth_type = match loser {
        Some(loser) if !winner.auth_explicit && loser.precedence == winner.precedence => {
            winner.auth_type.max(loser.auth_type)
        }
        _ => winner.auth_type,
    };
    Verdict {
        decision: if auth_type == 0 {
            Decision::Allow
        } else {
            Decision::AuthRequired
        },
        proxy_port: winner.proxy_port,
        auth_type,
        ..plain
    }
}

fn match_type(identity: bool, prefix_len: u8) -> MatchType {
    match (identity, prefix_len) {
        (true, 0) => MatchType::L3Only,
        (true, 1..=8) => MatchType::L3Proto,
        (true, _) => MatchType::L3L4,
        (false, 0) => MatchType::All,
        (false, 1..=8) => MatchType::ProtoOnly,
        (false, _) => MatchType::L4Only,
    }
}
