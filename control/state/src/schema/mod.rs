//! Objects in the state file that have more to them: what each looks like there, and as a message.

mod names;
mod node;
mod policy;
mod remote;
mod service;

pub use node::{Dsr, Node, Tunnel};
pub use policy::{Policy, PolicyEntry};
pub use remote::{Authentication, EgressGateway, Ipcache};
pub use service::{Backend, Frontend, Service};

/// Whether a setting is at its default, and need not be written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
