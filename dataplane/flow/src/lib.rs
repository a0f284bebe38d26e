//! The table of connections, shared by all workers.
//!
//! See the folder's README for the layout. [`FlowTable`] is what is shared; a [`FlowHandle`] is what each worker holds.
//! The meaning of the engine's three words per direction is the engine's, with one exception: [`FlowHandle::sweep`] asks
//! it when a connection ends.

#![forbid(unsafe_code)]

mod handle;
mod kept;
mod looks;
mod memory;
mod table;
mod tuple;

pub use handle::FlowHandle;
pub use kept::{Kept, Purpose, Resumed, Unusable};
pub use segment::{Directory, SegmentError};
pub use table::{FlowError, FlowRef, FlowTable, Half, PAYLOAD, SPARE};
pub use tuple::{Hasher, Tuple};
