//! Policies: what the workers ask, and what they get told.

mod endpoint;
mod stored;
mod table;
mod verdict;

pub use endpoint::EndpointPolicy;
pub use stored::StoredPolicy;
pub(crate) use table::PolicyTable;
pub use verdict::{Decision, MatchType, Verdict};
