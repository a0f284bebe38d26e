//! What endpoints may talk to.

/// The endpoint number of the node itself in policies: the host firewall.
pub const HOST_ENDPOINT: u32 = 0;

/// Which packets of an endpoint an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Those it receives.
    Ingress,
    /// Those it sends.
    Egress,
}

/// What an entry matches; no two entries of a policy match the same (specification of the datapath, section 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// Packets received or sent.
    pub direction: Direction,
    /// Security identity of the other side; 0: any.
    pub identity: u32,
    /// Protocol number; 0: any.
    pub protocol: u8,
    /// The destination port's leading bits, the others 0.
    pub port: u16,
    /// How many leading bits of `port` count, 0 to 16; 0: any port.
    pub port_prefix_len: u8,
}

/// What becomes of packets that an entry matches (specification of the datapath, section 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PolicyValue {
    /// Whether they are dropped.
    pub deny: bool,
    /// Port of the proxy that takes them; 0: none.
    pub proxy_port: u16,
    /// How the two sides must have authenticated; 0: not at all.
    pub auth_type: u8,
    /// Whether `auth_type` was asked for, so that no other entry's counts (section 2.6, step 5).
    pub auth_explicit: bool,
    /// The higher one wins (section 2.7).
    pub precedence: u32,
    /// Number reported with verdicts.
    pub cookie: u32,
}

/// One entry of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PolicyEntry {
    /// What it matches.
    pub key: PolicyKey,
    /// What becomes of it.
    pub value: PolicyValue,
}

/// What one endpoint may talk to, as the control plane gives it. No policy: everything is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Id of the endpoint, which need not be there yet; [`HOST_ENDPOINT`]: the node.
    pub endpoint: u32,
    /// Whether what it receives must match an entry; else everything is allowed in.
    pub enforce_ingress: bool,
    /// Whether what it sends must match an entry; else everything is allowed out.
    pub enforce_egress: bool,
    /// Whether what is refused is allowed and reported only.
    pub audit: bool,
    /// The entries, in any order.
    pub entries: Vec<PolicyEntry>,
}
