//! Objects in the state file that have more to them: what each looks like there, and as a message.

mod names;
mod node;
mod policy;
mod remote;
mod service;

pub(crate) use node::Node;
pub(crate) use policy::Policy;
pub(crate) use remote::{EgressGateway, Ipcache};
pub(crate) use service::Service;

/// Whether a setting is at its default, and need not be written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
