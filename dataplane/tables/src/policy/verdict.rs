//! What policy says of a packet.

/// What becomes of a packet (specification of the datapath, section 2.6, step 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It passes.
    Allow,
    /// An entry refuses it: drop reason 181.
    Deny,
    /// No entry matches it: drop reason 133.
    NoMatch,
    /// It passes once the two sides have authenticated: drop reason 189.
    AuthRequired,
}

impl Decision {
    /// The drop reason; `None` if the packet passes.
    pub fn drop_reason(self) -> Option<u8> {
        match self {
            Self::Allow => None,
            Self::Deny => Some(181),
            Self::NoMatch => Some(133),
            Self::AuthRequired => Some(189),
        }
    }
}

/// How closely the entry that decided matches, with the number that verdict events carry (section 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum MatchType {
    /// No entry.
    #[default]
    None = 0,
    /// Identity, any protocol.
    L3Only = 1,
    /// Identity, protocol and port.
    L3L4 = 2,
    /// Any identity, protocol and port.
    L4Only = 3,
    /// Any identity and protocol.
    All = 4,
    /// Identity and protocol, any port.
    L3Proto = 5,
    /// Any identity, protocol, any port.
    ProtoOnly = 6,
}

/// What policy says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// What becomes of it.
    pub decision: Decision,
    /// Port of the proxy that takes it; 0: none. Only of an allowed packet.
    pub proxy_port: u16,
    /// How the two sides must authenticate; 0: not at all.
    pub auth_type: u8,
    /// Number of the entry that decided.
    pub cookie: u32,
    /// How closely that entry matches.
    pub match_type: MatchType,
    /// Whether it is allowed in audit mode only.
    pub audited: bool,
}

impl Verdict {
    /// The verdict where policy is not enforced.
    pub const UNENFORCED: Self = Self {
        decision: Decision::Allow,
        proxy_port: 0,
        auth_type: 0,
        cookie: 0,
        match_type: MatchType::All,
        audited: false,
    };

    /// Whether the packet passes.
    pub fn allowed(&self) -> bool {
        self.decision == Decision::Allow
    }
}
