//! Which packets leave to be encrypted, and what may come in without (specification, 1.9). Somebody else encrypts: what the
//! engine leaves for that is looked at here as it is.

use std::net::IpAddr;

use octoplane_engine::{Framing, IpsecConfig, refit};
use octoplane_esp::cilium::{End, KeyIndex, pair_sas, parse_key_file};
use octoplane_esp::db::{Change as EspChange, Database, NodeConfig, Options};
use octoplane_esp::store::MemoryStore;
use octoplane_packet::{HeapBuf, HeapPool, PacketBuf};
use octoplane_tables::model::{Change, IpcacheEntry, TunnelProtocol};

use crate::common::bytes::{be16, icmp4, internet_checksum, ip, ip4};
use crate::common::flows::packet;
use crate::common::*;
use crate::overlay::{PEER, PEER4, PEER6, tunnelled, wrapped};

const UDP: u8 = 17;

/// An engine that encrypts, and the database it looks into.
struct Encrypting {
    lab: Lab<HeapPool>,
    database: Database,
    /// Bytes in front of what is encrypted.
    front: u16,
}

/// What there is of the peer.
#[derive(Clone, Copy, PartialEq)]
enum Peer {
    Unknown,
    WithoutKey,
    /// It announces key 3, and there are security associations.
    Ready,
    /// It announces key 4, for which there are none.
    OtherKey,
}

fn encrypting(mut lab: Lab<HeapPool>, strict: bool) -> Encrypting {
    let database = Database::new(Box::new(MemoryStore::default()), Options::default());
    lab.engine.set_ipsec(IpsecConfig {
        reader: database.reader(),
        strict,
        framing: Framing::TunnelInEsp,
        cut: false,
    });
    Encrypting {
        lab,
        database,
        front: 14,
    }
}

/// The same with what endpoints send in ESP, and that in the tunnel.
fn esp_in_tunnel(lab: Lab<HeapPool>, strict: bool, front: u16) -> Encrypting {
    let mut it = encrypting(lab, strict);
    it.lab.engine.set_ipsec(IpsecConfig {
        reader: it.database.reader(),
        strict,
        framing: Framing::EspInTunnel,
        cut: false,
    });
    it.front = front;
    it.peer(Peer::Ready);
    it
}

impl Encrypting {
    fn peer(&mut self, peer: Peer) {
        let keys =
            parse_key_file("3 rfc4106(gcm(aes)) 000102030405060708090a0b0c0d0e0f10111213 128").unwrap();
        let boot_id = "11111111-1111-1111-1111-111111111111";
        let (here, there) = (
            End {
                addr: ip(OWN4),
                boot_id,
            },
            End {
                addr: ip(PEER4),
                boot_id,
            },
        );
        let pair = pair_sas(&keys[0], here, there, None).unwrap();
        let outbound = pair.outbound.key();
        let key = |key| KeyIndex::new(key).unwrap();
        let (local, announced) = match peer {
            Peer::OtherKey => (key(4), Some(key(4))),
            Peer::WithoutKey => (key(3), None),
            _ => (key(3), Some(key(3))),
        };
        let mut changes = vec![
            EspChange::PutSa(Box::new(pair.inbound)),
            EspChange::PutSa(Box::new(pair.outbound)),
            EspChange::SetLocalKey(Some(local)),
        ];
        if peer != Peer::Unknown {
            changes.push(EspChange::PutNode(NodeConfig {
                addr: ip(PEER4),
                id: 7,
                announced,
                outbound: vec![(key(3), outbound)],
            }));
        }
        self.database.apply(0, changes).unwrap();
    }

    /// What was left to be encrypted: the frames.
    fn sealed(&mut self) -> Vec<Vec<u8>> {
        let expected = self.database.snapshot().sad.iter().find(|sa| {
            sa.config().direction == octoplane_esp::Direction::Outbound
                && sa.config().destination == ip(PEER4)
        });
        let (expected, front) = (expected.map(|sa| sa.id()), self.front);
        let frame = |it: octoplane_engine::ToSeal<HeapBuf>| {
            assert_eq!((Some(it.sa), it.port, it.front), (expected, UPLINK, front));
            it.buf.data().to_vec()
        };
        self.lab.out.seal.drain(..).map(frame).collect()
    }

    fn opened(&mut self) -> Vec<Vec<u8>> {
        let open = self.lab.out.open.drain(..);
        open.map(|(port, buf)| {
            assert_eq!(port, UPLINK);
            buf.data().to_vec()
        })
        .collect()
    }

    /// Gives a frame back as if it had been decrypted.
    fn decrypted(&mut self, frame: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut burst = [HeapBuf::new(frame)].into_iter().collect();
        let now = self.lab.now;
        self.lab
            .engine
            .decrypted(now, UPLINK, &mut burst, &mut self.lab.out);
        let mut sent = Vec::new();
        for port in self.lab.out.take_touched() {
            let queue = self.lab.out.queue(port).unwrap();
            sent.extend(queue.drain(..).map(|buf| (port, buf.data().to_vec())));
        }
        self.lab.out.free.clear();
        sent
    }
}

fn to_peer(payload: usize) -> Vec<u8> {
    ip4("10.0.0.1", "10.1.0.7")
        .payload(UDP, udp(4000, 80, payload))
        .frame(OURS[0], EP1)
}

fn udp(sport: u16, dport: u16, payload: usize) -> Vec<u8> {
    let mut udp = vec![0; 8 + payload];
    udp[..2].copy_from_slice(&sport.to_be_bytes());
    udp[2..4].copy_from_slice(&dport.to_be_bytes());
    udp[4..6].copy_from_slice(&((8 + payload) as u16).to_be_bytes());
    udp
}

/// Ethernet, outer IPv4 and UDP, VXLAN.
const TUNNEL: usize = 14 + 20 + 16;

#[test]
fn tunnel_packets_are_encrypted_as_a_whole() {
    let mut it = encrypting(tunnelled(TunnelProtocol::Vxlan, PEER4), false);
    it.peer(Peer::Ready);
    // The first packet, which begins the connection, and later ones.
    for round in 0..3 {
        let frame = to_peer(10);
        let outcome = it.lab.one(POD0, &frame);
        assert!(outcome.sent.is_empty() && outcome.drops.is_empty(), "{outcome:?}");
        assert_eq!(outcome.fast, u64::from(round > 0));
        let sealed = it.sealed();
        assert_eq!(sealed.len(), 1);
        // The addresses of the next hop, then the tunnel packet between the nodes.
        assert_eq!((&sealed[0][..6], &sealed[0][6..12]), (&PEER[..], &OURS[2][..]));
        assert_eq!(
            (&sealed[0][26..30], &sealed[0][30..34]),
            (&[192, 0, 2, 1][..], &[192, 0, 2, 9][..])
        );
        assert_eq!(be16(&sealed[0], 36), 8472);
        assert_eq!(&sealed[0][TUNNEL + 12..], &frame[12..]);
    }
    // A burst keeps its order, whatever takes the slow path.
    let frames: Vec<_> = (0..8)
        .map(|n| {
            packet(
                17,
                ("10.0.0.1", 4000 + n / 2),
                ("10.1.0.7", 80),
                0,
                (OURS[0], EP1),
            )
        })
        .collect();
    it.lab.burst(POD0, &frames);
    let ports: Vec<_> = it.sealed().iter().map(|frame| be16(frame, TUNNEL + 34)).collect();
    assert_eq!(ports, [4000, 4000, 4001, 4001, 4002, 4002, 4003, 4003]);
}

#[test]
fn what_cannot_be_encrypted_does_not_leave() {
    for (peer, code) in [(Peer::Unknown, 197), (Peer::OtherKey, 1007)] {
        let mut it = encrypting(tunnelled(TunnelProtocol::Vxlan, PEER4), false);
        // Also on a connection that was fine before.
        it.peer(Peer::Ready);
        it.lab.one(POD0, &to_peer(10));
        assert_eq!(it.sealed().len(), 1);
        if peer == Peer::Unknown {
            it.database
                .apply(0, vec![EspChange::DeleteNode(ip(PEER4))])
                .unwrap();
        } else {
            it.peer(peer);
        }
        assert_eq!(it.lab.one(POD0, &to_peer(10)).dropped(), code);
        assert!(it.sealed().is_empty());
    }
    // No key on one side means no encryption.
    let mut it = encrypting(tunnelled(TunnelProtocol::Vxlan, PEER4), false);
    it.peer(Peer::WithoutKey);
    assert_eq!(it.lab.one(POD0, &to_peer(10)).only().0, UPLINK);
}

fn with_df(payload: usize) -> Vec<u8> {
    with_flags(0x40, payload)
}

fn with_flags(flags: u8, payload: usize) -> Vec<u8> {
    let mut frame = to_peer(payload);
    frame[20] = flags;
    frame[24..26].fill(0);
    let sum = internet_checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// MTU 1500. ESP over IPv4 with AES-GCM takes 20 + 8 + 8 + 16, and what is encrypted ends with two bytes and is a multiple of
/// four (RFC 4303): 1446 remain for the tunnel packet, 1396 for the packet in it.
#[test]
fn the_mtu_inside_is_what_esp_leaves() {
    let mut it = encrypting(tunnelled(TunnelProtocol::Vxlan, PEER4), false);
    it.peer(Peer::Ready);
    for round in 0..2 {
        it.lab.one(POD0, &with_df(1396 - 28));
        let sealed = it.sealed();
        assert_eq!(sealed[0].len() - 14, 1446, "round {round}");
        let outcome = it.lab.one(POD0, &with_df(1397 - 28));
        let (code, sent) = outcome.dropped_and_sent();
        assert_eq!(code, 136);
        // "Fragmentation needed" with the next hop's MTU (RFC 1191).
        let error = &sent[0].1;
        assert_eq!(
            (error[23], error[34], error[35], be16(error, 40)),
            (1, 3, 4, 1396)
        );
        assert!(it.sealed().is_empty());
    }
}

#[test]
fn esp_from_a_node_is_left_to_be_decrypted() {
    let mut it = encrypting(tunnelled(TunnelProtocol::Vxlan, PEER4), false);
    it.peer(Peer::Ready);
    let esp = ip4(PEER4, OWN4).payload(50, vec![0; 40]).frame(OURS[2], PEER);
    for options in [0, 4] {
        let esp = ip4(PEER4, OWN4)
            .options(&vec![1; options])
            .payload(50, vec![0; 40])
            .frame(OURS[2], PEER);
        let outcome = it.lab.one(UPLINK, &esp);
        assert!(outcome.sent.is_empty() && outcome.drops.is_empty(), "{outcome:?}");
        assert_eq!(it.opened(), [esp]);
    }
    // ESP in UDP, but not IKE: that is somebody else's.
    let mut payload = udp(4500, 4500, 40);
    payload[8..12].copy_from_slice(&[0, 0, 0, 3]);
    let in_udp = ip4(PEER4, OWN4).payload(UDP, payload).frame(OURS[2], PEER);
    it.lab.one(UPLINK, &in_udp);
    assert_eq!(it.opened(), [in_udp]);
    let ike = ip4(PEER4, OWN4)
        .payload(UDP, udp(4500, 4500, 40))
        .frame(OURS[2], PEER);
    it.lab.one(UPLINK, &ike);
    assert!(it.opened().is_empty());
    // From somebody who is no node.
    let stranger = ip4("192.0.2.77", OWN4)
        .payload(50, vec![0; 40])
        .frame(OURS[2], PEER);
    assert_eq!(it.lab.one(UPLINK, &stranger).dropped(), 197);
    // Forwarded ESP is none of ours.
    let elsewhere = ip4(PEER4, "203.0.113.1")
        .payload(50, vec![0; 40])
        .frame(OURS[2], PEER);
    assert_eq!(it.lab.one(UPLINK, &elsewhere).only().0, UPLINK);
    // Nor is it without encryption.
    let mut plain = tunnelled(TunnelProtocol::Vxlan, PEER4);
    plain.one(UPLINK, &esp);
    assert!(plain.out.open.is_empty());
}

#[test]
fn decrypted_tunnel_packets_reach_their_pod() {
    for strict in [false, true] {
        let mut it = encrypting(tunnelled(TunnelProtocol::Vxlan, PEER4), strict);
        it.peer(Peer::Ready);
        let inner = packet(17, ("10.1.0.7", 4000), ("10.0.0.1", 80), 0, ([2; 6], [4; 6]));
        let frame = wrapped(5000, TunnelProtocol::Vxlan, &inner, 0);
        for _ in 0..2 {
            let sent = it.decrypted(&frame);
            assert_eq!(sent.len(), 1);
            assert_eq!((sent[0].0, &sent[0].1[..6]), (POD0, &EP1[..]));
        }
        // The same in the clear.
        let outcome = it.lab.one(UPLINK, &frame);
        match strict {
            false => assert_eq!(outcome.only().0, POD0),
            true => assert_eq!(outcome.dropped(), 195),
        }
        // A node that has no key cannot encrypt.
        it.peer(Peer::WithoutKey);
        assert_eq!(it.lab.one(UPLINK, &frame).only().0, POD0);
    }
}

/// Without a tunnel: the ipcache says which node an address is at, and that it has a key.
fn native(key: u8, strict: bool) -> Encrypting {
    let mut lab = lab();
    let entry = |prefix: &str, identity, tunnel: Option<IpAddr>, key| {
        Change::PutIpcache(IpcacheEntry {
            prefix: prefix.parse().unwrap(),
            identity,
            tunnel,
            key,
            skip_tunnel: false,
        })
    };
    lab.apply(vec![
        neighbour(PEER4, Some(PEER)),
        entry("10.1.0.0/16", 5000, Some(ip(PEER4)), key),
        entry("10.2.0.0/16", 5000, None, key),
        entry("203.0.113.0/24", 2, Some(ip(PEER4)), key),
    ]);
    encrypting(lab, strict)
}

/// RFC 4301, section 8.2.1: what may be cut is cut before it is encrypted, if one wants that. 1446 bytes fit (see above), of which
/// the second fragment has the rest.
#[test]
fn large_packets_are_cut_before_they_are_encrypted() {
    let mut it = native(3, false);
    it.peer(Peer::Ready);
    let large = with_flags(0, 1472);
    // Known to the tables from the first packet on.
    let outcome = it.lab.one(POD0, &large);
    assert_eq!(outcome.dropped_and_sent().0, 136);
    it.lab.engine.set_ipsec(IpsecConfig {
        reader: it.database.reader(),
        strict: false,
        framing: Framing::TunnelInEsp,
        cut: true,
    });
    for _ in 0..2 {
        let outcome = it.lab.one(POD0, &large);
        assert!(outcome.sent.is_empty() && outcome.drops.is_empty(), "{outcome:?}");
        let pieces = it.sealed();
        let lens: Vec<_> = pieces.iter().map(|piece| piece.len() - 14).collect();
        // Fragments but the last hold a multiple of eight bytes.
        assert_eq!(lens, [20 + 1424, 20 + 56]);
        assert_eq!((be16(&pieces[0], 20), be16(&pieces[1], 20)), (0x2000, 1424 / 8));
        let payload: Vec<u8> = pieces.iter().flat_map(|piece| piece[34..].to_vec()).collect();
        assert_eq!(payload, large[34..]);
    }
    // Those that must not be cut are refused as before.
    assert_eq!(it.lab.one(POD0, &with_df(1472)).dropped_and_sent().0, 136);
}

#[test]
fn pods_packets_are_encrypted_without_a_tunnel() {
    let mut it = native(3, false);
    it.peer(Peer::Ready);
    for _ in 0..3 {
        let frame = to_peer(10);
        let outcome = it.lab.one(POD0, &frame);
        assert!(outcome.sent.is_empty() && outcome.drops.is_empty(), "{outcome:?}");
        // Forwarded to the node: one hop further, to its Ethernet address.
        assert_eq!(it.sealed(), [forwarded(&frame, PEER, OURS[2])]);
    }
    // No key, or no node: as it is.
    let elsewhere = ip4("10.0.0.1", "10.2.0.7")
        .payload(UDP, udp(1, 2, 10))
        .frame(OURS[0], EP1);
    assert_eq!(it.lab.one(POD0, &elsewhere).only().0, UPLINK);
    let mut plain = native(0, false);
    plain.peer(Peer::Ready);
    assert_eq!(plain.lab.one(POD0, &to_peer(10)).only().0, UPLINK);
    // Fail closed.
    let mut closed = native(3, false);
    assert_eq!(closed.lab.one(POD0, &to_peer(10)).dropped(), 197);
}

/// What was in ESP without a tunnel has no Ethernet source: what its sender is told finds the way by itself, and nobody reads on it
/// what was encrypted before (RFC 4301, section 6).
#[test]
fn senders_of_what_was_encrypted_are_told_in_esp() {
    let ping = |to: &str| {
        ip4("10.1.0.7", to)
            .payload(1, icmp4(8, 0, [0, 1, 0, 1], b"secret"))
            .frame(OURS[2], [0; 6])
    };
    let late = ip4("10.1.0.7", "10.0.0.1").ttl(1).frame(OURS[2], [0; 6]);
    let through = ip4("10.1.0.7", "203.0.113.1").ttl(1).frame(OURS[2], [0; 6]);
    // Time exceeded, for an endpoint and for somebody elsewhere, and an echo reply.
    for (frame, kind) in [(&late, 11), (&through, 11), (&ping(OWN4), 0)] {
        for strict in [false, true] {
            let mut it = native(3, strict);
            it.peer(Peer::Ready);
            assert_eq!(it.decrypted(frame), []);
            let sealed = it.sealed();
            assert_eq!(sealed.len(), 1);
            let told = &sealed[0];
            assert_eq!((&told[..6], &told[6..12]), (&PEER[..], &OURS[2][..]));
            assert_eq!(
                (&told[26..30], &told[30..34], told[23], told[34]),
                (&[192, 0, 2, 1][..], &[10, 1, 0, 7][..], 1, kind)
            );
            assert_eq!(internet_checksum(&told[14..34]), 0);
            assert_eq!(internet_checksum(&told[34..]), 0);
            if kind == 11 {
                assert_eq!(told[42..], frame[14..]);
            }
            // Not at all if not so.
            it.database
                .apply(0, vec![EspChange::DeleteNode(ip(PEER4))])
                .unwrap();
            assert_eq!(it.decrypted(frame), []);
            assert!(it.sealed().is_empty());
        }
    }
    // Where nothing is encrypted it is routed, to the next hop: as what came by a policy, which decides about this, too.
    let mut it = native(3, false);
    it.peer(Peer::Ready);
    let frame = ip4("198.51.100.7", "203.0.113.1").ttl(1).frame(OURS[2], [0; 6]);
    let mut burst = [HeapBuf::new(&frame)].into_iter().collect();
    it.lab.engine.forward(SECOND, UPLINK, &mut burst, &mut it.lab.out);
    let queue = it.lab.out.queue(UPLINK).unwrap();
    assert_eq!(queue.len(), 1);
    let told = queue[0].data();
    assert_eq!((&told[..6], &told[6..12]), (&ROUTER[..], &OURS[2][..]));
    assert_eq!((&told[30..34], told[34]), (&[198, 51, 100, 7][..], 11));
    assert!(it.sealed().is_empty());
}

/// The same for IPv6.
#[test]
fn senders_of_what_was_encrypted_are_told_in_esp_over_ipv6() {
    let mut it = native(3, true);
    it.peer(Peer::Ready);
    it.lab.apply(vec![Change::PutIpcache(IpcacheEntry {
        prefix: "fd01::/64".parse().unwrap(),
        identity: 5000,
        tunnel: Some(ip(PEER4)),
        key: 3,
        skip_tunnel: false,
    })]);
    let mut frame = packet(17, ("fd01::7", 4000), ("fd00::1", 80), 0, (OURS[2], [0; 6]));
    frame[21] = 1;
    assert_eq!(it.decrypted(&frame), []);
    let sealed = it.sealed();
    assert_eq!(sealed.len(), 1);
    let told = &sealed[0];
    assert_eq!((&told[..6], &told[6..12]), (&PEER[..], &OURS[2][..]));
    // Time exceeded (RFC 4443, section 3.3), to its sender, with all of it.
    assert_eq!((&told[38..54], told[20], told[54]), (&frame[22..38], 58, 3));
    assert_eq!(told[62..], frame[14..]);
}

#[test]
fn strict_refuses_pods_packets_in_the_clear() {
    let mut it = native(3, true);
    it.peer(Peer::Ready);
    let frame = packet(17, ("10.1.0.7", 4000), ("10.0.0.1", 80), 0, (OURS[2], PEER));
    assert_eq!(it.lab.one(UPLINK, &frame).dropped(), 195);
    // Encrypted it is welcome, and does not open the door for others.
    assert_eq!(it.decrypted(&frame)[0].0, POD0);
    assert_eq!(it.lab.one(UPLINK, &frame).dropped(), 195);
    // The world does not encrypt.
    let world = packet(17, ("203.0.113.5", 4000), ("10.0.0.1", 80), 0, (OURS[2], PEER));
    assert_eq!(it.lab.one(UPLINK, &world).only().0, POD0);
}

/// With both families underneath: headers up to the packet inside.
const FRONT4: u16 = 14 + 20 + 16 + 14;

#[test]
fn what_endpoints_send_is_encrypted_inside_the_tunnel() {
    let mut it = esp_in_tunnel(tunnelled(TunnelProtocol::Vxlan, PEER4), false, FRONT4);
    for round in 0..3 {
        let frame = to_peer(10);
        let outcome = it.lab.one(POD0, &frame);
        assert!(outcome.sent.is_empty() && outcome.drops.is_empty(), "{outcome:?}");
        assert_eq!(outcome.fast, u64::from(round > 0));
        let sealed = it.sealed();
        assert_eq!(be16(&sealed[0], 36), 8472);
        // The packet as it was is what is encrypted.
        assert_eq!(&sealed[0][usize::from(FRONT4)..], &frame[14..]);
    }
    // Fails closed all the same.
    it.database
        .apply(0, vec![EspChange::DeleteNode(ip(PEER4))])
        .unwrap();
    assert_eq!(it.lab.one(POD0, &to_peer(10)).dropped(), 197);
}

/// MTU 1500: 1450 remain in the tunnel, of which ESP over IPv4 with AES-GCM takes 20 + 8 + 8 + 16 and two bytes of trailer, what is
/// encrypted being a multiple of four (RFC 4303): 1394.
#[test]
fn the_mtu_with_esp_inside_the_tunnel() {
    let mut it = esp_in_tunnel(tunnelled(TunnelProtocol::Vxlan, PEER4), false, FRONT4);
    for round in 0..2 {
        it.lab.one(POD0, &with_df(1394 - 28));
        assert_eq!(it.sealed().len(), 1, "round {round}");
        let outcome = it.lab.one(POD0, &with_df(1395 - 28));
        let (code, sent) = outcome.dropped_and_sent();
        assert_eq!(code, 136);
        let error = &sent[0].1;
        assert_eq!(
            (error[23], error[34], error[35], be16(error, 40)),
            (1, 3, 4, 1394)
        );
        assert!(it.sealed().is_empty());
    }
}

/// ESP between the ends, in a tunnel packet from the peer.
fn wrapped_esp(src: &str, dst: &str) -> (Vec<u8>, Vec<u8>) {
    let inner = ip4(src, dst).payload(50, vec![7; 40]).frame([2; 6], [4; 6]);
    (wrapped(5000, TunnelProtocol::Vxlan, &inner, 0), inner)
}

#[test]
fn esp_in_a_tunnel_packet_is_left_to_be_decrypted() {
    // Whatever is sent: nodes go over from one form to the other one by one.
    for framing in [Framing::TunnelInEsp, Framing::EspInTunnel] {
        for strict in [false, true] {
            let mut it = esp_in_tunnel(tunnelled(TunnelProtocol::Vxlan, PEER4), strict, FRONT4);
            it.lab.engine.set_ipsec(IpsecConfig {
                reader: it.database.reader(),
                strict,
                framing,
                cut: false,
            });
            // Between the nodes, or between addresses of their own as Cilium has them.
            for (src, dst) in [(PEER4, OWN4), ("10.1.0.254", "10.0.0.254")] {
                let (frame, inner) = wrapped_esp(src, dst);
                let outcome = it.lab.one(UPLINK, &frame);
                assert!(outcome.sent.is_empty() && outcome.drops.is_empty(), "{outcome:?}");
                assert_eq!(it.opened(), [inner]);
            }
            // ESP of an endpoint's own is none of ours, and comes in the clear.
            let (frame, _) = wrapped_esp("10.1.0.7", "10.0.0.1");
            let outcome = it.lab.one(UPLINK, &frame);
            assert!(it.opened().is_empty());
            match strict {
                false => assert_eq!(outcome.only().0, POD0),
                true => assert_eq!(outcome.dropped(), 195),
            }
            it.database
                .apply(0, vec![EspChange::DeleteNode(ip(PEER4))])
                .unwrap();
            assert_eq!(it.lab.one(UPLINK, &wrapped_esp(PEER4, OWN4).0).dropped(), 197);
        }
    }
}

#[test]
fn what_came_in_esp_in_a_tunnel_goes_where_tunnels_lead() {
    let mut it = esp_in_tunnel(tunnelled(TunnelProtocol::Vxlan, PEER4), true, FRONT4);
    let frame = packet(17, ("10.1.0.7", 4000), ("10.0.0.1", 80), 0, (OURS[2], PEER));
    for _ in 0..3 {
        let sent = it.decrypted(&frame);
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].0, &sent[0].1[..6]), (POD0, &EP1[..]));
    }
    // The answer goes the same way back.
    let answer = packet(17, ("10.0.0.1", 80), ("10.1.0.7", 4000), 0, (OURS[0], EP1));
    it.lab.one(POD0, &answer);
    assert_eq!(it.sealed().len(), 1);
    // Not through this node: the same packet from the link would be forwarded.
    let through = packet(17, ("10.1.0.7", 4000), ("203.0.113.1", 80), 0, (OURS[2], PEER));
    assert!(it.decrypted(&through).is_empty());
    // In the clear: an endpoint's packet is refused, a node's is not, which nobody encrypts in this form.
    let inner = packet(17, ("10.1.0.7", 4000), ("10.0.0.1", 80), 0, ([2; 6], [4; 6]));
    let clear = |identity| wrapped(identity, TunnelProtocol::Vxlan, &inner, 0);
    assert_eq!(it.lab.one(UPLINK, &clear(5000)).dropped(), 195);
    assert_eq!(it.lab.one(UPLINK, &clear(6)).only().0, POD0);
}

/// Nodes' own packets are in the clear in this form, but not what they repeat of one that was not.
#[test]
fn senders_of_what_was_encrypted_in_a_tunnel_are_told_in_esp() {
    let mut it = esp_in_tunnel(tunnelled(TunnelProtocol::Vxlan, PEER4), true, FRONT4);
    let late = ip4("10.1.0.7", "10.0.0.1").ttl(1).frame(OURS[2], PEER);
    assert_eq!(it.decrypted(&late), []);
    let sealed = it.sealed();
    assert_eq!(sealed.len(), 1);
    assert_eq!(be16(&sealed[0], 36), 8472);
    let told = &sealed[0][usize::from(FRONT4)..];
    assert_eq!((&told[16..20], told[9], told[20]), (&[10, 1, 0, 7][..], 1, 11));
    assert_eq!(told[28..], late[14..]);
}

#[test]
fn headers_of_a_tunnel_fit_another_packet() {
    for (front, v6_outside) in [(FRONT4, false), (FRONT4 + 20, true)] {
        let peer = if v6_outside { PEER6 } else { PEER4 };
        let mut lab = tunnelled(TunnelProtocol::Vxlan, peer);
        let frame = to_peer(10);
        let outcome = lab.one(POD0, &frame);
        let tunnel = outcome.only().1;
        for other in [
            ip4("10.0.0.254", "10.1.0.254")
                .payload(50, vec![9; 101])
                .frame([0; 6], [0; 6]),
            to_peer(10),
        ] {
            let mut buf = HeapBuf::new(&other[14..]);
            refit(&mut buf, &tunnel[..usize::from(front)]).unwrap();
            let made = buf.data();
            assert_eq!(&made[usize::from(front)..], &other[14..]);
            let len = made.len() - 14;
            if v6_outside {
                assert_eq!(usize::from(be16(made, 18)), len - 40);
                assert_eq!(usize::from(be16(made, 58)), len - 40);
                // RFC 8200, section 8.1.
                let mut pseudo = made[22..54].to_vec();
                pseudo.extend((len as u32 - 40).to_be_bytes());
                pseudo.extend([0, 0, 0, 17]);
                pseudo.extend(&made[54..]);
                assert_eq!(internet_checksum(&pseudo), 0);
            } else {
                assert_eq!(usize::from(be16(made, 16)), len);
                assert_eq!(usize::from(be16(made, 38)), len - 20);
                assert_eq!(internet_checksum(&made[14..34]), 0);
            }
            if other == frame {
                assert_eq!(made, tunnel);
            }
        }
        assert!(refit(&mut HeapBuf::new(&frame[14..]), &tunnel[..50]).is_err());
        assert!(refit(&mut HeapBuf::new(&[0; 40]), &tunnel[..usize::from(front)]).is_err());
        assert!(refit(&mut HeapBuf::new(&[]), &tunnel[..usize::from(front)]).is_err());
    }
}
