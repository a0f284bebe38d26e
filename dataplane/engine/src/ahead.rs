//! What the first packets of connections will read of services, fetched for all of a burst at once: where there are many
//! services, no cache holds it, and one packet after the other would wait for one place after the other.

use arrayvec::ArrayVec;
use octoplane_packet::headers::ethertype;
use octoplane_packet::{BufPool, PacketBuf};
use octoplane_tables::model::Role;
use octoplane_tables::{Backend, Frontend, Snapshot};

use crate::connection::{find, remote};
use crate::engine::{BURST, Core, Rx, next_random};
use crate::fast::{SLOW, V4, V6};

/// Frontends from which it pays.
const MANY: usize = 512;

impl<P: BufPool> Core<P> {
    /// Has what the packets of a burst that are not for the fast path will need of services fetched side by side. Each loop does
    /// so little that the processor is in several rounds of it at once. Nothing follows from it but speed.
    #[inline(never)]
    pub(crate) fn fetch_services(&self, rx: &Rx<'_>, burst: &[P::Buf], ports: &[u16; BURST]) {
        let snapshot = rx.snapshot;
        if snapshot.frontends() < MANY {
            return;
        }
        let slow = burst.iter().zip(ports).filter(|(_, port)| **port == SLOW);
        let frontends: ArrayVec<&Frontend, BURST> = slow
            .filter_map(|(buf, _)| meant(snapshot, buf.data()))
            .take(BURST)
            .collect();
        if frontends.len() < 2 {
            return;
        }
        for frontend in &frontends {
            frontend.prefetch();
        }
        if rx.view.role != Role::Pod {
            frontends.iter().for_each(|frontend| frontend.external.prefetch());
            return;
        }
        for frontend in &frontends {
            frontend.internal.prefetch();
        }
        // Endpoints are given backends by chance: the chances to come are known already.
        let mut seed = self.seed;
        let backends: ArrayVec<&Backend, BURST> = frontends
            .iter()
            .filter_map(|frontend| frontend.internal.pick_random(next_random(&mut seed)))
            .collect();
        for backend in &backends {
            backend.prefetch();
        }
        let known = backends.iter().fold(0, |known, backend| {
            known ^ find(snapshot, backend.addr) ^ remote(snapshot, backend.addr).identity
        });
        std::hint::black_box(known);
    }
}

/// The frontend that a packet is for if it has the plainest of headers.
fn meant<'a>(snapshot: &'a Snapshot, frame: &[u8]) -> Option<&'a Frontend> {
    match u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]) {
        ethertype::IPV4 => {
            let header: &[u8; V4 + 4] = frame.first_chunk()?;
            let dst = u32::from_be_bytes([header[30], header[31], header[32], header[33]]);
            let port = u16::from_be_bytes([header[V4 + 2], header[V4 + 3]]);
            snapshot.frontend4(dst, port, header[23])
        }
        ethertype::IPV6 => {
            let (header, ports): (&[u8; V6], _) = frame.split_first_chunk()?;
            let dst: &[u8; 16] = header.last_chunk()?;
            let ports: &[u8; 4] = ports.first_chunk()?;
            snapshot.frontend6(
                u128::from_be_bytes(*dst),
                u16::from_be_bytes([ports[2], ports[3]]),
                header[20],
            )
        }
        _ => None,
    }
}
