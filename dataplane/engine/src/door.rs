//! Where other nodes' tunnels end, as the fast path sees it: packets inside are found without taking them out.

use octoplane_flow::Tuple;
use octoplane_packet::checksum::ipv4_words_ok;
use octoplane_packet::headers::{ETHERNET_LEN, protocol};
use octoplane_tables::model::{Role, TunnelProtocol};
use octoplane_tables::{Action, TUNNEL_HEADERS_V4, identity};

use crate::connection::Upper;
use crate::engine::Rx;
use crate::fast::{FRAGMENT, TYPE_V4, TYPE_V6, V4, V6, be64, le32, le64, pair, upper};

/// Tunnel headers over IPv4, and Ethernet, IPv4 and ports inside.
const INNER_V4: usize = TUNNEL_HEADERS_V4 + V4 + 8;
/// The same for IPv6.
const INNER_V6: usize = TUNNEL_HEADERS_V4 + V6 + 8;
/// Where the packet inside begins.
const IP: usize = TUNNEL_HEADERS_V4 + ETHERNET_LEN;

/// What a tunnel packet to this node looks like, over IPv4. Words are as they stand in a packet, with the least significant
/// byte first.
pub(crate) struct Door {
    /// Our address; 0: the slow path takes packets out.
    pub(crate) addr: u32,
    /// The destination port.
    port: u64,
    /// The bits of the tunnel's header that count, and what they are.
    bits: u64,
    expected: u64,
    /// Whether the sender's identity may depend on the family.
    dual_stack: bool,
}

/// A packet in a tunnel.
pub(crate) struct Inner {
    pub(crate) tuple: Tuple,
    pub(crate) upper: Upper,
    pub(crate) identity: u32,
}

impl Door {
    /// No header has what this one expects.
    pub(crate) const SHUT: Self = Self {
        addr: 0,
        port: 0,
        bits: 0,
        expected: 1,
        dual_stack: false,
    };

    /// The end that packets from an uplink come to. Where they should be encrypted is for the slow path to find out.
    #[inline]
    pub(crate) fn of(rx: &Rx<'_>) -> Self {
        let node = rx.snapshot.node();
        let Some(addr) = node.tunnel.local4 else {
            return Self::SHUT;
        };
        let action = rx.snapshot.route4(addr.to_bits()).action;
        let own = matches!(action, Action::Local | Action::Host);
        if !own || rx.view.role != Role::Uplink || rx.ipsec.is_some() && !rx.decrypted {
            return Self::SHUT;
        }
        let header = |bytes| u64::from_le_bytes(bytes);
        let (bits, expected) = match node.tunnel.protocol {
            // The VNI is valid (RFC 7348, section 5).
            TunnelProtocol::Vxlan => ([0x08, 0, 0, 0, 0, 0, 0, 0], [0x08, 0, 0, 0, 0, 0, 0, 0]),
            // Version 0, no options, neither for control nor critical, Ethernet (RFC 8926, section 3.4).
            TunnelProtocol::Geneve => (
                [0xff, 0xc0, 0xff, 0xff, 0, 0, 0, 0],
                [0, 0, 0x65, 0x58, 0, 0, 0, 0],
            ),
        };
        Self {
            addr: u32::from_le_bytes(addr.octets()),
            port: node.tunnel.port.swap_bytes().into(),
            bits: header(bits),
            expected: header(expected),
            dual_stack: node.dual_stack,
        }
    }

    /// The packet in a tunnel packet to our address, whose IPv4 header was checked; `first` is the word that it begins with.
    /// `None` for everything that is out of the ordinary.
    #[inline(always)]
    pub(crate) fn look_in(&self, frame: &[u8], first: u64, outer: u8) -> Option<Inner> {
        let len = frame.len();
        let outer_total = usize::from(((first >> 16) as u16).swap_bytes());
        let header = frame.first_chunk::<INNER_V4>()?;
        let (udp, tunnel) = (le64(header, V4), le64(header, V4 + 8));
        let udp_len = usize::from(((udp >> 32) as u16).swap_bytes());
        let plain = outer == protocol::UDP
            && (first >> 48) as u16 & FRAGMENT == 0
            && udp >> 16 & 0xffff == self.port
            && tunnel & self.bits == self.expected
            // Nothing stands behind what is inside.
            && outer_total + ETHERNET_LEN == len
            && udp_len + V4 == len;
        if !plain {
            return None;
        }
        let identity = (tunnel.swap_bytes() >> 8) as u32 & 0xff_ffff;
        // No other node speaks for this one.
        if identity == identity::HOST || identity == identity::WORLD && self.dual_stack {
            return None;
        }
        let outer_ecn = (first >> 8) as u8 & 3;
        let same = |class: u8| outer_ecn == 0 || class & 3 == outer_ecn;
        let kind = le32(header, IP - 2);
        if kind & 0x00ff_ffff == TYPE_V4 {
            let (first, second, third) = (le64(header, IP), le64(header, IP + 8), le32(header, IP + 16));
            let end = IP + usize::from(((first >> 16) as u16).swap_bytes());
            let whole = (first >> 48) as u16 & FRAGMENT == 0;
            let sound = whole
                && end >= IP + 20
                && end <= len
                && second & 0xff > 1
                && same((first >> 8) as u8)
                && ipv4_words_ok(first, second, third);
            if !sound {
                return None;
            }
            let (src, dst) = (((second >> 32) as u32).swap_bytes(), third.swap_bytes());
            let protocol = (second >> 8) as u8;
            let upper = upper(frame, protocol, IP + 20, end)?;
            let [sport, dport] = pair([header[84], header[85], header[86], header[87]]);
            return Some(Inner {
                tuple: Tuple::v4(src, dst, sport, dport, protocol, 0),
                upper,
                identity,
            });
        }
        let header = frame.first_chunk::<INNER_V6>()?;
        if kind & 0x00f0_ffff != TYPE_V6 {
            return None;
        }
        let end = IP + 40 + usize::from(u16::from_be_bytes([header[IP + 4], header[IP + 5]]));
        if end > len || header[IP + 7] < 2 || !same(header[IP + 1] >> 4) {
            return None;
        }
        let protocol = header[IP + 6];
        let upper = upper(frame, protocol, IP + 40, end)?;
        let (src, dst) = (
            [be64(header, IP + 8), be64(header, IP + 16)],
            [be64(header, IP + 24), be64(header, IP + 32)],
        );
        let [sport, dport] = pair([header[104], header[105], header[106], header[107]]);
        Some(Inner {
            tuple: Tuple::v6(src, dst, sport, dport, protocol, 0),
            upper,
            identity,
        })
    }
}
