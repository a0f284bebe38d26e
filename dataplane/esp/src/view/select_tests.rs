use super::*;
use crate::db::{Change, Database, Options, PolicyConfig, PortRange};
use crate::sa::Mark;
use crate::store::MemoryStore;
use crate::view::Action;
use crate::{Aead, AesKey, Algorithm, Direction, IcvLen, KeyMaterial, Mode, SaConfig};

/// RFC 791 and RFC 768: 10.0.0.1 to 10.0.0.2, UDP from port 9 to 53, `fragment` being the word of flags and offset.
fn udp4(fragment: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 36, 0, 7, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet.extend([0, 9, 0, 53, 0, 16, 0, 0]);
    packet.extend([7; 8]);
    packet
}

/// RFC 8200: the headers, one behind the other, `next` being the first one's number.
fn ip6(next: u8, behind: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, behind.len() as u8, next, 255];
    packet.extend([0xfd; 16]);
    packet.extend([0xfe; 16]);
    packet.extend(behind);
    packet
}

#[test]
fn ports_are_those_of_whole_packets_and_first_fragments() {
    const DF: u16 = 0x4000;
    const MF: u16 = 0x2000;
    for (fragment, ports, may_cut) in [
        (0, Some((9, 53)), true),
        (DF, Some((9, 53)), false),
        (MF, Some((9, 53)), true),
        (MF | 1, None, true),
        (1, None, true),
    ] {
        let selected = Selected::of(&udp4(fragment)).unwrap();
        assert_eq!(
            (selected.query.ports, selected.may_cut),
            (ports, may_cut),
            "{fragment:#x}"
        );
        assert_eq!((selected.query.protocol, selected.len), (17, 36));
        assert_eq!(selected.query.source.to_string(), "10.0.0.1");
    }
    let udp = [0, 9, 0, 53, 0, 8, 0, 0];
    // Destination options, fragment header, UDP.
    for (offset, ports) in [(1, Some((9, 53))), (8, None)] {
        let mut behind = vec![44, 0, 1, 4, 0, 0, 0, 0];
        behind.extend([17, 0, 0, offset, 0, 0, 0, 7]);
        behind.extend(udp);
        let selected = Selected::of(&ip6(60, &behind)).unwrap();
        assert_eq!(
            (selected.query.protocol, selected.query.ports, selected.may_cut),
            (17, ports, false)
        );
    }
    // Headers that go on beyond the packet.
    for behind in [
        &[44, 9, 0, 0, 0, 0, 0, 0][..],
        &[44, 0, 0, 0, 0, 0, 0, 0],
        &[1, 2],
    ] {
        assert_eq!(Selected::of(&ip6(60, behind)), None);
    }
    assert_eq!(Selected::of(&[]), None);
    assert_eq!(Selected::of(&udp4(0)[..35]), None);
}

#[test]
fn neighbours_find_each_other() {
    for (kind, expected) in [(132, false), (133, true), (135, true), (137, true), (138, false)] {
        let selected = Selected::of(&ip6(58, &[kind, 0, 0, 0, 0, 0, 0, 0])).unwrap();
        assert_eq!(selected.is_neighbour_discovery, expected, "{kind}");
    }
}

/// RFC 4301, section 7.1: what might be protected does not go in the clear.
#[test]
fn fragments_without_ports_are_not_taken_for_others() {
    let mut database = Database::new(Box::new(MemoryStore::default()), Options::default());
    let policy = |id, action, port: Option<u16>| {
        Change::PutPolicy(PolicyConfig {
            id,
            direction: Direction::Inbound,
            priority: id,
            source: "0.0.0.0/0".parse().unwrap(),
            destination: "10.0.0.0/24".parse().unwrap(),
            protocol: Some(17),
            source_ports: PortRange::ANY,
            destination_ports: port.map_or(PortRange::ANY, |port| PortRange {
                first: port,
                last: port,
            }),
            mark: Mark::default(),
            action,
        })
    };
    let found = |database: &Database, fragment| {
        let query = Selected::of(&udp4(fragment)).unwrap().query;
        let inbound = &database.snapshot().spd_inbound;
        inbound.lookup(&query).map(|it| (it.policy, it.action))
    };
    database
        .apply(0, vec![policy(5, Action::Protect(1), Some(53))])
        .unwrap();
    assert_eq!(found(&database, 0), Some((5, Action::Protect(1))));
    assert_eq!(found(&database, 1), Some((5, Action::Discard)));
    // One that lets all of them go comes before it, or behind.
    database.apply(0, vec![policy(9, Action::Bypass, None)]).unwrap();
    assert_eq!(found(&database, 1), Some((5, Action::Discard)));
    database.apply(0, vec![policy(2, Action::Bypass, None)]).unwrap();
    assert_eq!(found(&database, 1), Some((2, Action::Bypass)));
    // What lets some go says nothing of the others.
    let changes = vec![
        Change::DeletePolicy(2),
        Change::DeletePolicy(9),
        policy(1, Action::Bypass, Some(500)),
    ];
    database.apply(0, changes).unwrap();
    assert_eq!(found(&database, 1), Some((5, Action::Discard)));
    database.apply(0, vec![Change::DeletePolicy(5)]).unwrap();
    assert_eq!(found(&database, 1), None);
    // The other direction's are not asked, and the number is one for both.
    assert!(database.snapshot().spd.is_empty());
    database.apply(0, vec![Change::DeletePolicy(1)]).unwrap();
    assert!(database.snapshot().spd_inbound.is_empty());
}

fn config(direction: Direction, spi: u32, reqid: u32) -> SaConfig {
    SaConfig {
        direction,
        spi,
        source: Some("10.0.0.1".parse().unwrap()),
        destination: "10.0.0.2".parse().unwrap(),
        mark: Mark::default(),
        mode: Mode::Tunnel,
        algorithm: Algorithm::Aead(Aead::AesGcm(AesKey::Aes128, IcvLen::Icv16)),
        keys: KeyMaterial::aead(&[spi as u8; 20]),
        esn: false,
        replay_window: 64,
        nat_traversal: None,
        outer: Default::default(),
        lifetime: Default::default(),
        inner: Vec::new(),
        reqid,
    }
}

#[test]
fn esp_is_told_from_esp() {
    let mut database = Database::new(Box::new(MemoryStore::default()), Options::default());
    let put = |config| Change::PutSa(Box::new(config));
    let changes = vec![
        put(config(Direction::Inbound, 300, 1)),
        put(config(Direction::Inbound, 3, 0)),
        put(config(Direction::Outbound, 301, 1)),
    ];
    database.apply(0, changes).unwrap();
    let esp = |spi: u8| {
        let mut packet = vec![0x45, 0, 0, 36, 0, 7, 0, 0, 64, 50, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend([0, 0, u8::from(spi >= 44), spi, 0, 0, 0, 1]);
        packet.extend([7; 8]);
        packet
    };
    // 300 and 301 are 256 and 44 or 45. What no policy can name is another's.
    let snapshot = database.snapshot();
    assert_eq!(snapshot.arrives_by(&esp(44)).map(|sa| sa.config().spi), Some(300));
    assert!(snapshot.arrives_by(&esp(3)).is_none() && snapshot.arrives_by(&esp(45)).is_none());
    assert!(snapshot.is_own_esp(&esp(45)) && !snapshot.is_own_esp(&esp(44)));
    assert!(!snapshot.is_own_esp(&udp4(0)) && snapshot.arrives_by(&udp4(0)).is_none());
    assert!(snapshot.sad.has_named_inbound());
    let gone = config(Direction::Inbound, 300, 1).key();
    database.apply(0, vec![Change::DeleteSa(gone)]).unwrap();
    assert!(!database.snapshot().sad.has_named_inbound());
}
