//! Which connection the later fragments of a packet belong to (specification, 1.2 step 9 a, 2.10).
//!
//! The first fragment has the ports, and leaves them in a table of its own for those that follow. Those that come before it
//! wait for it a while, where packets wait for neighbours, instead of being dropped as in Cilium.
//!
//! An entry is a connection of that table: its forward tuple has the fragments' addresses and, in place of the ports, their
//! identification; the other one is the same turned round, in another zone. Its words are the ports, when it was made in the
//! unit in which entries expire, and the same in nanoseconds.
//!
//! When there are too many, old ones give way to new ones: fragments of one packet mostly follow each other closely.

use octoplane_flow::{FlowError, FlowHandle, Tuple};
use octoplane_packet::BufPool;
use octoplane_packet::headers::{ETHERNET_LEN, protocol};

use crate::connection::{Packet, Part, Upper, tcp};
use crate::engine::{Core, Rx};

/// How long fragments of a packet may follow, in seconds (RFC 8200, section 4.5, for both families).
const SECONDS: u32 = 60;
/// Where the protocol is in the first word, behind ports, policy's port, and whether it is an echo.
const PROTOCOL: u32 = 56;
/// So that a packet and one the other way with the same identification are told apart.
const BACK: u8 = 1;

/// What the later fragments of a packet have in common; `None` for what is no fragment.
fn key(frame: &[u8], packet: &Packet) -> Option<Tuple> {
    let tuple = &packet.tuple;
    let id = match tuple.is_v6() {
        // The fragment header is the last one before the upper layer's, or before data from its middle.
        true => u32::from_be_bytes(*frame.get(packet.fragment? + 4..)?.first_chunk()?),
        false => u16::from_be_bytes(*frame.get(ETHERNET_LEN + 4..)?.first_chunk()?).into(),
    };
    // What later fragments of IPv6 say about the protocol does not count (RFC 8200, section 4.5).
    let protocol = match tuple.is_v6() {
        true => protocol::FRAGMENT,
        false => tuple.protocol(),
    };
    Some(Tuple::new(
        tuple.src(),
        tuple.dst(),
        (id >> 16) as u16,
        id as u16,
        protocol,
        tuple.zone(),
    ))
}

fn back(key: &Tuple) -> Tuple {
    let back = key.reverse();
    Tuple::new(
        back.src(),
        back.dst(),
        back.sport(),
        back.dport(),
        back.protocol(),
        BACK,
    )
}

impl<P: BufPool> Core<P> {
    /// Gives a later fragment the ports of its packet, and remembers those of a first one. `Err` with what it has to wait
    /// for.
    pub(crate) fn find_ports(&mut self, rx: &Rx<'_>, frame: &[u8], packet: &mut Packet) -> Result<(), Tuple> {
        let Some(key) = (match packet.part {
            Part::Whole => None,
            Part::First | Part::Later => key(frame, packet),
        }) else {
            return Ok(());
        };
        if packet.part == Part::First {
            self.remember_ports(rx, &key, packet);
            return Ok(());
        }
        let word = ports_of(&self.fragments, &key).ok_or(key)?;
        let tuple = packet.tuple;
        let protocol = (word >> PROTOCOL) as u8;
        packet.tuple = Tuple::new(
            tuple.src(),
            tuple.dst(),
            word as u16,
            (word >> 16) as u16,
            protocol,
            tuple.zone(),
        );
        packet.port = (word >> 32) as u16;
        packet.upper = match (protocol, tuple.is_v6()) {
            (protocol::TCP, _) => Upper::Tcp(tcp::ACK),
            (protocol::UDP, _) => Upper::Udp,
            (protocol::SCTP, _) => Upper::Sctp,
            (protocol::ICMP, false) | (protocol::ICMPV6, true) if word >> 48 & 1 != 0 => Upper::Echo,
            _ => Upper::Other,
        };
        Ok(())
    }

    fn remember_ports(&mut self, rx: &Rx<'_>, key: &Tuple, packet: &Packet) {
        let echo = packet.upper == Upper::Echo;
        let word = u64::from(packet.tuple.sport())
            | u64::from(packet.tuple.dport()) << 16
            | u64::from(packet.port) << 32
            | u64::from(echo) << 48
            | u64::from(packet.tuple.protocol()) << PROTOCOL;
        let payload = [word, u64::from(rx.second), rx.now];
        let look = rx.second.saturating_add(SECONDS);
        let table = self.fragments.table();
        let known = match table.find(table.hash(key), key) {
            // An identification that is used again.
            Some(known) => Some(known),
            None => {
                self.fragments.make_room(|half| half.word::<2>());
                match self.fragments.insert([key, &back(key)], [payload, [0; 3]], look) {
                    Ok(_) => None,
                    Err(FlowError::Taken(known)) => Some(known),
                    // Another worker has been held up for so long that what made room cannot be used: what follows waits in vain.
                    Err(_) => return,
                }
            }
        };
        if let Some(half) = known.and_then(|known| self.fragments.table().half(known)) {
            half.set_word::<0>(payload[0]);
            half.set_word::<1>(payload[1]);
            half.set_word::<2>(payload[2]);
        }
        self.parking.first_fragment_came();
    }

    /// Whether the first of these fragments has been seen.
    pub(crate) fn first_fragment_seen(&self, key: &Tuple) -> bool {
        ports_of(&self.fragments, key).is_some()
    }
}

fn ports_of(handle: &FlowHandle, key: &Tuple) -> Option<u64> {
    let table = handle.table();
    Some(table.half(table.find(table.hash(key), key)?)?.word::<0>())
}

/// Forgets packets whose fragments do not come any more.
pub(crate) fn expire(handle: &mut FlowHandle, now: u32, records: usize) {
    handle.sweep(now, records, |table, entry| {
        let ends = (table.half(entry)?.word::<1>() as u32).saturating_add(SECONDS);
        (ends > now).then_some(ends)
    });
}
