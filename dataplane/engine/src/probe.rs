//! Frames that ask for a neighbour's Ethernet address. The control plane makes them, workers send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use octoplane_packet::MacAddr;
use octoplane_packet::checksum::{fold, pseudo_header, sum};
use octoplane_packet::headers::{Arp, Ethernet, Ipv6, ethertype, icmp6, protocol};
use zerocopy::IntoBytes;

use crate::ndp::{MESSAGE_WITH_OPTION, SOLICITATION_OPTION, solicited_node, write_message};

/// A question for `target` from our address `source` of the same family: to everybody, or to `known` alone to see
/// whether it is still there. `None` if the families differ.
pub fn question(mac: MacAddr, source: IpAddr, target: IpAddr, known: Option<MacAddr>) -> Option<Vec<u8>> {
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => Some(arp_request(mac, source, target, known)),
        (IpAddr::V6(source), IpAddr::V6(target)) => Some(solicitation(mac, source, target, known)),
        _ => None,
    }
}

fn arp_request(mac: MacAddr, source: Ipv4Addr, target: Ipv4Addr, known: Option<MacAddr>) -> Vec<u8> {
    let ethernet = Ethernet {
        dst: known.unwrap_or(MacAddr::BROADCAST).0,
        src: mac.0,
        ethertype: ethertype::ARP.into(),
    };
    let arp = Arp {
        hardware: 1.into(),
        protocol: ethertype::IPV4.into(),
        hardware_len: 6,
        protocol_len: 4,
        operation: Arp::REQUEST.into(),
        sender_mac: mac.0,
        sender_ip: source.octets(),
        target_mac: [0; 6],
        target_ip: target.octets(),
    };
    [ethernet.as_bytes(), arp.as_bytes()].concat()
}

fn solicitation(mac: MacAddr, source: Ipv6Addr, target: Ipv6Addr, known: Option<MacAddr>) -> Vec<u8> {
    let dst = if known.is_some() {
        target
    } else {
        solicited_node(target)
    };
    let dst_mac = known.unwrap_or_else(|| MacAddr::for_ipv6_multicast(dst.octets()));
    let ethernet = Ethernet {
        dst: dst_mac.0,
        src: mac.0,
        ethertype: ethertype::IPV6.into(),
    };
    let ip = Ipv6 {
        version_class_flow: (6 << 28).into(),
        payload_len: (MESSAGE_WITH_OPTION as u16).into(),
        next_header: protocol::ICMPV6,
        hop_limit: 255,
        src: source.octets(),
        dst: dst.octets(),
    };
    let mut message = [0; MESSAGE_WITH_OPTION];
    write_message(
        &mut message,
        icmp6::NEIGHBOUR_SOLICITATION,
        0,
        target,
        (SOLICITATION_OPTION, mac),
    );
    let checksum = !fold(pseudo_header(&ip.src, &ip.dst, protocol::ICMPV6, message.len()) + sum(&message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    [ethernet.as_bytes(), ip.as_bytes(), &message].concat()
}
