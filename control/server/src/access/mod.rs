//! Who may do what: classes of methods, clients with their limits, and the layer in front of all services that asks both.

mod acl;
mod body;
mod client;
mod layer;
mod methods;

pub(crate) use acl::let_group_in;
pub(crate) use client::{ClientId, Clients, ConnectionPermit, Peer};
pub(crate) use layer::AccessLayer;
pub use methods::{Kind, METHODS, Method};
use octoplane_config::{Class, ClientLimits, ControlTcp};

/// Who may use the services besides root and the server's group, and how much of it each.
#[derive(Debug, Clone)]
pub struct Access {
    /// Group that may use the socket for what is in `read_group_may`.
    pub read_group: Option<String>,
    /// What that group may do.
    pub read_group_may: Vec<Class>,
    /// How much each client may ask for.
    pub limits: ClientLimits,
    /// Where the services are offered over TCP.
    pub tcp: Option<ControlTcp>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            read_group: None,
            read_group_may: vec![Class::Read],
            limits: ClientLimits::default(),
            tcp: None,
        }
    }
}

/// A set of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Classes(u8);

impl Classes {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn all() -> Self {
        Self::of(&Class::ALL)
    }

    pub(crate) fn of(classes: &[Class]) -> Self {
        Self(classes.iter().fold(0, |set, class| set | 1 << *class as u8))
    }

    pub(crate) fn contains(self, class: Class) -> bool {
        self.0 & 1 << class as u8 != 0
    }
}

/// As in "read and debug".
impl std::fmt::Display for Classes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<_> = Class::ALL
            .iter()
            .filter(|class| self.contains(**class))
            .map(|class| class.as_str())
            .collect();
        match words.as_slice() {
            [] => f.write_str("nothing"),
            [one] => f.write_str(one),
            [first @ .., last] => write!(f, "{} and {last}", first.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_classes() {
        let set = Classes::of(&[Class::Read, Class::Debug]);
        assert!(set.contains(Class::Read) && set.contains(Class::Debug) && !set.contains(Class::Program));
        assert_eq!(set.to_string(), "read and debug");
        assert_eq!(Classes::NONE.to_string(), "nothing");
        assert_eq!(Classes::all().to_string(), "read, program and debug");
    }
}
