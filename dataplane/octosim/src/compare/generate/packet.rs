//! Packets: sound ones, odd ones, broken ones.

use std::net::IpAddr;

use octoplane_tables::model::Role;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use super::pools::{self, FAR4, FAR6, NODES4, NODES6, ODD4, ODD6, OWN4, OWN6, PODS4, PODS6, WORLD4, WORLD6};
use crate::compare::frame::{
    ICMP, ICMP6, Ip, Mac, Piece, SCTP, TCP, UDP, be16, dissect, ethernet, fix_upper, packet, put, udp,
};
use crate::setup::Setup;

/// What is behind the IP header.
#[derive(Debug, Clone)]
pub(crate) enum Upper {
    Tcp { sport: u16, dport: u16, flags: u8 },
    Udp { sport: u16, dport: u16, with_sum: bool },
    Sctp { sport: u16, dport: u16 },
    Echo { id: u16, reply: bool },
    Icmp { kind: u8, code: u8 },
    Other(u8),
}

/// Where an outer packet comes from and who it says sent what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Tunnel {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) vni: u32,
    pub(crate) class: u8,
    pub(crate) geneve: bool,
    /// Geneve options, or the flags of VXLAN, that are not usual.
    pub(crate) odd: Option<u8>,
    pub(crate) with_sum: bool,
    pub(crate) port: u16,
    /// Whether a Geneve option says that a client used 203.0.113.80:80, or that and nothing sensible.
    pub(crate) told: Option<bool>,
}

/// What is done to a frame that was sound.
#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    /// One byte is another.
    Byte { at: prop::sample::Index, flip: u8 },
    /// The end is missing.
    Cut { at: prop::sample::Index },
    /// The IP header says another length.
    Length { delta: i8 },
    /// The IP header checksum is made right again after one byte of the header is another.
    Header { at: u8, flip: u8 },
}

/// Which station it is addressed to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Station {
    Ours,
    Other,
    Everybody,
}

/// A packet that a port receives.
#[derive(Debug, Clone)]
pub(crate) struct PacketPlan {
    pub(crate) port: &'static str,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) upper: Upper,
    pub(crate) len: u16,
    pub(crate) ttl: u8,
    pub(crate) class: u8,
    pub(crate) id: u16,
    pub(crate) df: bool,
    /// IPv4 options, or the number of the first IPv6 extension header and all of them.
    pub(crate) options: Option<(u8, Vec<u8>)>,
    pub(crate) trailer: u8,
    pub(crate) station: Station,
    pub(crate) vlan: Option<u16>,
    pub(crate) tunnel: Option<Tunnel>,
    /// Whether it is in an IP packet to an endpoint.
    pub(crate) around: bool,
    pub(crate) mutation: Option<Mutation>,
}

impl Upper {
    fn protocol(&self, v6: bool) -> u8 {
        match self {
            Self::Tcp { .. } => TCP,
            Self::Udp { .. } => UDP,
            Self::Sctp { .. } => SCTP,
            Self::Echo { .. } | Self::Icmp { .. } if v6 => ICMP6,
            Self::Echo { .. } | Self::Icmp { .. } => ICMP,
            Self::Other(number) => *number,
        }
    }

    fn bytes(&self, src: IpAddr, dst: IpAddr, len: u16) -> Vec<u8> {
        let v6 = src.is_ipv6();
        let data: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let mut bytes = match *self {
            Self::Tcp { sport, dport, flags } => {
                let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 16, 0, 0, 0, 0, 0]);
                bytes
            }
            Self::Udp {
                sport,
                dport,
                with_sum,
            } => return udp(src, dst, sport, dport, &data, with_sum),
            Self::Sctp { sport, dport } => {
                let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
                bytes.extend([0, 0, 0, 9, 0, 0, 0, 0]);
                bytes
            }
            Self::Echo { id, reply } => {
                let kind = match (v6, reply) {
                    (false, false) => 8,
                    (false, true) => 0,
                    (true, false) => 128,
                    (true, true) => 129,
                };
                let mut bytes = vec![kind, 0, 0, 0];
                bytes.extend(id.to_be_bytes());
                bytes.extend([0, 1]);
                bytes
            }
            Self::Icmp { kind, code } => vec![kind, code, 0, 0, 0, 0, 0, 0],
            Self::Other(_) => Vec::new(),
        };
        bytes.extend(data);
        fix_upper(src, dst, self.protocol(v6), &mut bytes);
        bytes
    }
}

impl PacketPlan {
    /// The frame; `piece` makes a fragment of it: its first 24 bytes, or the rest.
    pub(crate) fn frame(&self, setup: &Setup, piece: Option<bool>) -> Vec<u8> {
        let port = setup.ports.iter().find(|port| port.name == self.port);
        let (ours, role) = port.map_or(([0; 6], Role::Pod), |port| (port.mac.0, port.role));
        let to: Mac = match self.station {
            Station::Ours => ours,
            Station::Other => [2, 9, 9, 9, 9, 9],
            Station::Everybody => [0xff; 6],
        };
        let from: Mac = match role {
            Role::Pod => [2, 0, 0, 0, 0, 1],
            Role::Uplink => [2, 0, 0, 0, 1, 0xfe],
            Role::Host => [2, 0, 0, 0, 2, 1],
        };
        let upper = self.upper.bytes(self.src, self.dst, self.len);
        let (upper, piece) = match piece {
            Some(true) => (
                upper.get(..24).unwrap_or(&upper),
                Some(Piece {
                    offset: 0,
                    more: true,
                }),
            ),
            Some(false) => (
                upper.get(24..).unwrap_or(&[]),
                Some(Piece {
                    offset: 3,
                    more: false,
                }),
            ),
            None => (&*upper, None),
        };
        let ip = Ip {
            src: self.src,
            dst: self.dst,
            ttl: self.ttl,
            class: self.class,
            id: self.id,
            df: self.df && piece.is_none(),
        };
        let options = self.options.as_ref().map(|(number, bytes)| (*number, &**bytes));
        let inner = packet(
            &ip,
            self.upper.protocol(self.src.is_ipv6()),
            upper,
            piece,
            options,
        );
        let inner = match self.around && self.tunnel.is_none() {
            true => around(&inner),
            false => inner,
        };
        let mut frame = match &self.tunnel {
            None => ethernet(to, from, &inner),
            Some(tunnel) => {
                let inner = ethernet([2, 0, 0, 0, 7, 1], [2, 0, 0, 0, 7, 2], &inner);
                tunnel.wrap(to, from, &inner)
            }
        };
        if let Some(vlan) = self.vlan {
            let tag = [0x81, 0x00, (vlan >> 8) as u8, vlan as u8];
            frame.splice(12..12, tag);
        }
        frame.extend(std::iter::repeat_n(0xee, self.trailer.into()));
        match &self.mutation {
            None => {}
            Some(Mutation::Byte { at, flip }) => {
                let at = at.index(frame.len());
                frame[at] ^= flip;
            }
            Some(Mutation::Cut { at }) => frame.truncate(at.index(frame.len())),
            Some(Mutation::Length { delta }) => {
                let at = if self.src.is_ipv4() { 16 } else { 18 };
                let len = be16(&frame, at).wrapping_add_signed((*delta).into());
                put(&mut frame, at, &len.to_be_bytes());
                fix_header(&mut frame);
            }
            Some(Mutation::Header { at, flip }) => {
                if let Some(byte) = frame.get_mut(14 + usize::from(*at)) {
                    *byte ^= flip;
                }
                fix_header(&mut frame);
            }
        }
        frame
    }
}

fn fix_header(frame: &mut [u8]) {
    if be16(frame, 12) != 0x0800 || frame.len() < 34 {
        return;
    }
    let header = usize::from(frame[14] & 15) * 4;
    put(frame, 24, &[0, 0]);
    if let Some(bytes) = frame.get(14..14 + header) {
        let sum = crate::compare::frame::checksum(bytes);
        put(frame, 24, &sum.to_be_bytes());
    }
}

/// What a load balancer sends to the first endpoint (specification, 3.6).
fn around(inner: &[u8]) -> Vec<u8> {
    let v6 = inner.first().is_some_and(|first| first >> 4 == 6);
    let addr = |four: &str, six: &str| -> IpAddr {
        let text = if v6 { six } else { four };
        text.parse().unwrap_or_else(|_| IpAddr::from([0; 4]))
    };
    let ip = Ip {
        src: addr(NODES4[0], NODES6[0]),
        dst: addr(PODS4[0], PODS6[0]),
        ttl: 64,
        class: 0,
        id: 0,
        df: true,
    };
    packet(&ip, if v6 { 41 } else { 4 }, inner, None, None)
}

/// What a client used, as a load balancer says it in the header, and what is not that.
fn told(v6: bool) -> impl Strategy<Value = (u8, Vec<u8>)> {
    if v6 {
        let option = |len: u8, port: u8| {
            let mut header = vec![0, 2, 0x1b, len, 0x20, 1, 0x0d, 0xb8, 0x01, 0x13];
            header.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, port, 0, 0]);
            (60u8, header)
        };
        select(vec![
            option(20, 80),
            option(20, 80),
            option(20, 81),
            option(19, 80),
            option(20, 0),
        ])
    } else {
        let option = |len: u8, port: u8| (0u8, vec![0x9a, len, port, 0, 80, 113, 0, 203]);
        select(vec![
            option(8, 80),
            option(8, 80),
            option(8, 81),
            option(7, 80),
            option(9, 80),
            option(8, 0),
        ])
    }
}

impl Tunnel {
    /// A tunnel packet around a frame.
    pub(crate) fn wrap(&self, to: Mac, from: Mac, inner: &[u8]) -> Vec<u8> {
        let vni = self.vni.to_be_bytes();
        let (mut first, kind, options): (u8, [u8; 2], &[u8]) = match (self.geneve, self.odd) {
            (false, Some(odd)) => (odd, [0, 0], &[]),
            (false, None) => (8, [0, 0], &[]),
            // An option that need not be understood.
            (true, None) if self.told == Some(true) => (
                3,
                [0x65, 0x58],
                &[0x01, 0x4b, 0x81, 2, 203, 0, 113, 80, 0, 80, 0, 0],
            ),
            (true, None) if self.told == Some(false) => (
                3,
                [0x65, 0x58],
                &[0x01, 0x4b, 0x81, 1, 203, 0, 113, 80, 0, 1, 1, 0],
            ),
            (true, Some(_)) => (1, [0x65, 0x58], &[0, 1, 0x02, 0]),
            (true, None) => (0, [0x65, 0x58], &[]),
        };
        let mut second = if self.told.is_some() && first == 3 {
            0x40
        } else {
            0
        };
        if let (true, Some(odd)) = (self.geneve, self.odd) {
            // Version, control and critical bits.
            first |= odd & 0xc0;
            second = odd << 6 & 0xc0;
        }
        let mut data = vec![first, second];
        data.extend(kind);
        data.extend(&vni[1..]);
        data.push(0);
        data.extend(options);
        data.extend(inner);
        let bytes = udp(
            self.src,
            self.dst,
            50000,
            self.port,
            &data,
            self.with_sum || self.src.is_ipv6(),
        );
        let ip = Ip {
            src: self.src,
            dst: self.dst,
            ttl: 64,
            class: self.class,
            id: 0,
            df: true,
        };
        ethernet(to, from, &packet(&ip, UDP, &bytes, None, None))
    }
}

fn upper(v6: bool) -> impl Strategy<Value = Upper> {
    let ports = || (pools::client_port(), pools::server_port());
    // SYN, SYN+ACK, ACK, FIN+ACK, RST, PSH+ACK, nothing, everything.
    let flags = select(vec![2u8, 2, 2, 18, 16, 16, 17, 4, 24, 0, 0xff]);
    let kinds = if v6 {
        select(vec![1u8, 2, 3, 4, 133, 134, 137, 130, 200])
    } else {
        select(vec![3u8, 11, 12, 5, 13, 4, 40])
    };
    prop_oneof![
        6 => (ports(), flags).prop_map(|((sport, dport), flags)| Upper::Tcp { sport, dport, flags }),
        5 => (ports(), proptest::bool::weighted(0.85))
            .prop_map(|((sport, dport), with_sum)| Upper::Udp { sport, dport, with_sum }),
        2 => ports().prop_map(|(sport, dport)| Upper::Sctp { sport, dport }),
        3 => (select(vec![7u16, 8, 0]), proptest::bool::weighted(0.2))
            .prop_map(|(id, reply)| Upper::Echo { id, reply }),
        1 => (kinds, select(vec![0u8, 1, 3, 4])).prop_map(|(kind, code)| Upper::Icmp { kind, code }),
        1 => select(vec![47u8, 50, 89, 4, 59]).prop_map(Upper::Other),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let flip = || 1u8..=255;
    prop_oneof![
        (any::<prop::sample::Index>(), flip()).prop_map(|(at, flip)| Mutation::Byte { at, flip }),
        any::<prop::sample::Index>().prop_map(|at| Mutation::Cut { at }),
        (-40i8..40).prop_map(|delta| Mutation::Length { delta }),
        (0u8..40, flip()).prop_map(|(at, flip)| Mutation::Header { at, flip }),
    ]
}

/// IPv4 options: nothing, a router alert, a timestamp that is no use; or chains of IPv6 extension headers.
fn options(v6: bool) -> impl Strategy<Value = (u8, Vec<u8>)> {
    if v6 {
        // Each begins with the number of the next; the last one's is filled in.
        let padding = [0, 0, 1, 4, 0, 0, 0, 0];
        let then = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        select(vec![
            (0u8, padding.to_vec()),
            (60, padding.to_vec()),
            (0, [then(60), padding].concat()),
            (43, padding.to_vec()),
            (60, [then(60), then(60), padding].concat()),
            (60, [then(60), then(60), then(60), padding].concat()),
            (60, [then(60), then(60), then(60), then(60), padding].concat()),
            (60, vec![0, 9, 1, 4, 0, 0, 0, 0]),
        ])
    } else {
        select(vec![
            (0u8, vec![1, 1, 1, 0]),
            (0, vec![0x94, 4, 0, 0]),
            (0, vec![0x44, 8, 5, 0, 0, 0, 0, 0]),
            (0, vec![0x94, 0, 0, 0]),
            (0, vec![1; 40]),
        ])
    }
}

/// Who sends to whom, by which port, in a tunnel or not.
fn ends(kernel: bool, v6: bool) -> BoxedStrategy<(&'static str, IpAddr, IpAddr, Option<Tunnel>)> {
    let any_dst = || pools::destination(v6);
    let pick = |four: &[&[&'static str]], six: &[&[&'static str]]| pools::of(if v6 { six } else { four });
    let pod = |port: &'static str, index: usize| {
        let own = if v6 { PODS6[index] } else { PODS4[index] };
        let src = prop_oneof![
            20 => pools::of(&[&[own]]),
            1 => pick(&[&PODS4, &FAR4, &WORLD4, &ODD4], &[&PODS6, &FAR6, &WORLD6, &ODD6]),
        ];
        (src, any_dst())
            .prop_map(move |(src, dst)| (port, src, dst, None))
            .boxed()
    };
    let third = if v6 { 1 } else { 2 };
    let outside = (
        select(vec!["up0", "up0", "up0", "up1"]),
        pick(
            &[&WORLD4, &WORLD4, &FAR4, &NODES4, &ODD4, &OWN4],
            &[&WORLD6, &WORLD6, &FAR6, &NODES6, &ODD6, &OWN6],
        ),
        any_dst(),
    )
        .prop_map(|(port, src, dst)| (port, src, dst, None));
    let tunnel = (
        select(vec![false, false, false, true]),
        select(vec![
            2001u32,
            2001,
            2002,
            6,
            2,
            1,
            0,
            1001,
            0x0100_0001 & 0xff_ffff,
        ]),
        select(vec![0u8, 0, 1, 2, 3]),
        (proptest::bool::weighted(0.4), weighted(0.08, any::<u8>())),
        (
            any::<bool>(),
            select(vec![8472u16, 8472, 8472, 6081, 6081, 4789]),
            weighted(0.3, proptest::bool::weighted(0.9)),
        ),
        pools::of(&[&NODES4]),
        pools::of(&[&NODES6]),
    )
        .prop_map(
            |(over6, vni, class, (geneve, odd), (with_sum, port, told), four, six)| Tunnel {
                src: if over6 { six } else { four },
                dst: if over6 {
                    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])
                } else {
                    IpAddr::from([192, 0, 2, 1])
                },
                vni,
                class,
                geneve,
                odd,
                with_sum,
                port,
                told,
            },
        );
    let tunnelled = (
        pick(
            &[&FAR4, &FAR4, &NODES4, &WORLD4, &PODS4],
            &[&FAR6, &FAR6, &NODES6, &WORLD6, &PODS6],
        ),
        any_dst(),
        tunnel,
    )
        .prop_map(|(src, dst, tunnel)| ("up0", src, dst, Some(tunnel)));
    let host =
        (pick(&[&OWN4, &ODD4], &[&OWN6, &ODD6]), any_dst()).prop_map(|(src, dst)| ("host", src, dst, None));
    prop_oneof![
        4 => pod("pod1", 0),
        3 => pod("pod2", 1),
        1 => pod("pod2", third.min(if v6 { 1 } else { 2 })),
        4 => outside,
        3 => tunnelled,
        (if kernel { 2 } else { 0 }) => host,
    ]
    .boxed()
}

/// A packet of either family.
pub(super) fn packet_plan(kernel: bool) -> BoxedStrategy<PacketPlan> {
    proptest::bool::weighted(0.35)
        .prop_flat_map(move |v6| {
            let numbers = (
                prop_oneof![12 => 0u16..40, 2 => 1380u16..1480, 1 => 1300u16..1400],
                select(vec![64u8, 64, 64, 64, 64, 64, 2, 1, 0, 255]),
                select(vec![0u8, 0, 0, 1, 2, 3, 0xb8]),
                select(vec![7u16, 0, 0xffff]),
                any::<bool>(),
            );
            let oddities = (
                weighted(0.06, options(v6)),
                weighted(0.1, 1u8..20),
                select(vec![Station::Ours; 40])
                    .prop_union(select(vec![Station::Other, Station::Everybody]))
                    .boxed(),
                weighted(0.02, select(vec![0u16, 0, 7])),
                weighted(0.08, mutation()),
            );
            let direct = (weighted(0.35, told(v6)), proptest::bool::weighted(0.12));
            (ends(kernel, v6), upper(v6), numbers, oddities, direct)
        })
        .prop_map(|((port, src, dst, tunnel), upper, numbers, oddities, direct)| {
            let (len, ttl, class, id, df) = numbers;
            let (options, trailer, station, vlan, mutation) = oddities;
            let (told, around) = direct;
            let outside = port.starts_with("up");
            let is_pod = PODS4.iter().chain(&PODS6).any(|pod| dst.to_string() == *pod);
            let options = options.or_else(|| told.filter(|_| outside && is_pod));
            PacketPlan {
                port,
                src,
                dst,
                upper,
                len,
                ttl,
                class,
                id,
                df,
                options,
                trailer: trailer.unwrap_or(0),
                station,
                vlan,
                tunnel,
                around: around && outside,
                mutation,
            }
        })
        .boxed()
}

/// What answers a frame.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A packet the other way; TCP with these flags.
    Reply { flags: u8 },
    /// An ICMP error about it: type and code, from a router on the way or from who was addressed; how many bytes are quoted.
    Error {
        kind: u8,
        code: u8,
        router: bool,
        quoted: u8,
    },
}

pub(super) fn answer() -> impl Strategy<Value = Answer> {
    let errors = select(vec![(3u8, 3u8), (3, 4), (3, 1), (11, 0), (12, 0)]);
    prop_oneof![
        4 => select(vec![18u8, 18, 16, 17, 4, 20]).prop_map(|flags| Answer::Reply { flags }),
        1 => (errors, any::<bool>(), select(vec![28u8, 40, 60, 80, 20]))
            .prop_map(|((kind, code), router, quoted)| Answer::Error { kind, code, router, quoted }),
    ]
}

impl Answer {
    /// A frame that answers one that left; `None` if there is nothing to answer.
    pub(crate) fn to(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let it = dissect(frame)?;
        if it.later_fragment {
            return None;
        }
        let (to, from): (Mac, Mac) = (
            frame.get(6..12)?.try_into().ok()?,
            frame.get(..6)?.try_into().ok()?,
        );
        let mut upper = frame.get(it.upper.clone())?.to_vec();
        let mut ip = Ip {
            src: it.dst,
            dst: it.src,
            ttl: 64,
            class: 0,
            id: 3,
            df: true,
        };
        let v6 = it.src.is_ipv6();
        let mut protocol = it.protocol;
        match *self {
            Self::Reply { flags } => match protocol {
                TCP | UDP | SCTP => {
                    let (sport, dport) = (be16(&upper, 0), be16(&upper, 2));
                    put(&mut upper, 0, &dport.to_be_bytes());
                    put(&mut upper, 2, &sport.to_be_bytes());
                    if protocol == TCP {
                        put(&mut upper, 13, &[flags]);
                    }
                }
                ICMP | ICMP6 => {
                    let kind = match (v6, upper.first()?) {
                        (false, 8) => 0,
                        (true, 128) => 129,
                        _ => return None,
                    };
                    put(&mut upper, 0, &[kind]);
                }
                _ => {}
            },
            Self::Error {
                kind,
                code,
                router,
                quoted,
            } => {
                let packet = frame.get(14..it.upper.end)?;
                // Of IPv6 the whole header is quoted and some of what follows.
                let quoted = usize::from(quoted) + if v6 { 20 } else { 0 };
                let (kind, code) = match (v6, kind, code) {
                    (false, ..) => (kind, code),
                    (true, 3, 4) => (2, 0),
                    (true, 3, _) => (1, 4),
                    (true, 11, _) => (3, 0),
                    (true, ..) => (4, 0),
                };
                upper = vec![kind, code, 0, 0, 0, 0, 5, 0];
                upper.extend(packet.get(..quoted).unwrap_or(packet));
                protocol = if v6 { ICMP6 } else { ICMP };
                if router {
                    ip.src = match v6 {
                        true => IpAddr::from([0x2001, 0xdb8, 0x9, 0, 0, 0, 0, 9]),
                        false => IpAddr::from([9, 9, 9, 9]),
                    };
                }
            }
        }
        fix_upper(ip.src, ip.dst, protocol, &mut upper);
        Some(ethernet(to, from, &packet(&ip, protocol, &upper, None, None)))
    }
}
