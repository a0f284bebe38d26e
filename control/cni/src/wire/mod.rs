//! `CNIAction`, as the host's CNI plugin speaks it (specification of the systems, section 1.3: gRPC protocol).

mod functions;
mod service;

pub use functions::PortOfDevice;
pub use functions::{ByConfiguration, Functions, Sdp, index};
pub use service::{Action, NETWORK};

/// The messages and the service, as generated.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated"
)]
pub mod pb {
    // The protos have no package.
    tonic::include_proto!("_");
}
