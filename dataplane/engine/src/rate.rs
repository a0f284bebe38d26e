//! How much endpoints may send out of the node and receive (specification, 1.4, 1.6 step 6, 2.14).
//!
//! Excess is dropped, not delayed: pacing is for the device's scheduler.

use std::net::IpAddr;

use octoplane_flow::Tuple;
use octoplane_tables::model::Role;
use octoplane_tables::{Action, Buckets, Target};

use crate::drop_reason::DropReason;
use crate::engine::Rx;

/// Who limits packets that came with the addresses `tuple` and go to `target`.
fn buckets<'a>(rx: &'a Rx<'_>, tuple: &Tuple, target: &Target) -> Option<(&'a Buckets, bool)> {
    if !rx.snapshot.limits_any() {
        return None;
    }
    if target.action == Action::Deliver {
        let buckets = rx.snapshot.buckets(target.endpoint)?;
        // The node itself, which checks the endpoint's health, is not held up.
        return (rx.view.role != Role::Host).then_some((buckets, true));
    }
    if rx.view.role != Role::Pod {
        return None;
    }
    let owner = match tuple.src() {
        IpAddr::V4(src) => rx.snapshot.route4(src.to_bits()),
        IpAddr::V6(src) => rx.snapshot.route6(src.to_bits()),
    };
    rx.snapshot
        .buckets(owner.endpoint)
        .map(|buckets| (buckets, false))
}

/// Whether anybody limits packets that came with the addresses `tuple` and go to `target`.
pub(crate) fn is_limited(rx: &Rx<'_>, tuple: &Tuple, target: &Target) -> bool {
    buckets(rx, tuple, target).is_some()
}

/// Whether a frame of so many bytes may go now; if so, it counts.
pub(crate) fn admit(rx: &Rx<'_>, tuple: &Tuple, target: &Target, bytes: usize) -> Result<(), DropReason> {
    match buckets(rx, tuple, target) {
        Some((buckets, true)) if !buckets.receive(rx.now, bytes) => Err(DropReason::RateLimited),
        Some((buckets, false)) if !buckets.send(rx.now, bytes) => Err(DropReason::EdtHorizon),
        _ => Ok(()),
    }
}
