//! Services: what the workers look up, and how they choose a backend.

mod backend_set;
mod frontend;
mod ids;
pub mod maglev;
mod murmur;
mod names;
mod source_ranges;
mod table;

pub use backend_set::{Backend, BackendSet};
pub use frontend::Frontend;
pub(crate) use ids::Ids;
pub(crate) use names::{BackendKey, FrontendKey, MAX_FRONTEND_ID, NameError, Names};
pub use source_ranges::SourceRanges;
pub(crate) use table::ServiceTable;
