//! ARP (RFC 826): answers for the gateway towards pods, for our addresses on uplinks, for everything towards the
//! kernel; on uplinks it also learns.

use std::net::{IpAddr, Ipv4Addr};

use octoplane_packet::headers::{Arp, ETHERNET_LEN, Ethernet};
use octoplane_packet::{BufPool, MacAddr, PacketBuf};
use octoplane_tables::Action;
use octoplane_tables::model::Role;
use zerocopy::FromBytes;

use crate::drop_reason::DropReason;
use crate::engine::{Core, Rx};
use crate::event::NeighbourEvent;
use crate::verdict::Verdict;

impl<P: BufPool> Core<P> {
    pub(crate) fn arp(&mut self, rx: &Rx<'_>, buf: &mut P::Buf) -> Verdict {
        let Ok((arp, _)) = Arp::read_from_prefix(&buf.data()[ETHERNET_LEN..]) else {
            return Verdict::Drop(DropReason::InvalidPacket);
        };
        let sender = MacAddr(arp.sender_mac);
        if !arp.is_ipv4_over_ethernet() || !sender.is_unicast() {
            return Verdict::Drop(DropReason::InvalidPacket);
        }
        let (from, to) = (Ipv4Addr::from(arp.sender_ip), Ipv4Addr::from(arp.target_ip));
        let ask = arp.operation.get() == Arp::REQUEST;
        let mine = match rx.view.role {
            // A pod has one neighbour, us: whatever it asks for is reached through the gateway. Only when it checks
            // that nobody has its own address there must be silence.
            Role::Pod => from != to && !owned_by_sender(rx, to),
            // The kernel, too, may check (RFC 5227) whether it may have an address: only what is taken is answered.
            Role::Host => from != to && (!from.is_unspecified() || taken(rx, to)),
            Role::Uplink => rx.view.addresses.contains(&IpAddr::V4(to)),
        };
        if rx.view.role == Role::Uplink && !from.is_unspecified() {
            let heard = NeighbourEvent::Heard {
                port: rx.port,
                addr: from.into(),
                mac: sender,
                addressed: mine,
            };
            // A full list loses news that will be repeated.
            let _ = self.events.try_push(heard);
        }
        if !(ask && mine) {
            return Verdict::Consumed;
        }
        let reply = Arp {
            operation: Arp::REPLY.into(),
            sender_mac: rx.view.mac.0,
            sender_ip: arp.target_ip,
            target_mac: arp.sender_mac,
            target_ip: arp.sender_ip,
            ..arp
        };
        let data = buf.data_mut();
        let Ok((ethernet, rest)) = Ethernet::mut_from_prefix(data) else {
            return Verdict::Drop(DropReason::InvalidPacket);
        };
        ethernet.dst = arp.sender_mac;
        ethernet.src = rx.view.mac.0;
        match Arp::mut_from_prefix(rest) {
            Ok((arp, _)) => *arp = reply,
            Err(_) => return Verdict::Drop(DropReason::InvalidPacket),
        }
        Verdict::Answer
    }
}

/// Whether an endpoint, or the gateway, has this address.
fn taken(rx: &Rx<'_>, addr: Ipv4Addr) -> bool {
    matches!(
        rx.snapshot.route4(addr.to_bits()).action,
        Action::Deliver | Action::Gateway
    )
}

/// Whether an endpoint behind the receiving port has this address.
fn owned_by_sender(rx: &Rx<'_>, addr: Ipv4Addr) -> bool {
    crate::address::may_send(rx.snapshot.route4(addr.to_bits()), rx)
}
