//! What may be forwarded by its address alone.

use octoplane_tables::Target;

use crate::engine::Rx;

/// Whether packets from or to this address are forwarded: not "this network", loopback, multicast, reserved or
/// broadcast (RFC 1812, sections 4.2.2.11 and 5.3.7), even if a default route covers it.
#[inline(always)]
pub(crate) fn routable4(addr: u32) -> bool {
    let net = addr >> 24;
    net.wrapping_sub(1) < 223 && net != 127
}

/// The same for IPv6: not multicast, link-local, unspecified or loopback (RFC 4291, section 2).
#[inline(always)]
pub(crate) fn routable6(addr: u128) -> bool {
    addr >> 120 != 0xff && addr >> 118 != 0x3fa && addr > 1
}

/// Whether an endpoint behind the receiving port owns a source address that this target is of (specification, 1.2 step 7).
pub(crate) fn may_send(owner: &Target, rx: &Rx<'_>) -> bool {
    owner.endpoint != 0 && owner.port == rx.port
}
