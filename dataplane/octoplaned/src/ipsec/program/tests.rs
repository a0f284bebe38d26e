use octoplane_esp::db::Options;
use octoplane_esp::store::MemoryStore;

use super::*;

fn key(spi: u32) -> SaKey {
    SaKey {
        direction: Direction::Outbound,
        spi,
        destination: "192.0.2.2".parse().unwrap(),
        source: Some("192.0.2.1".parse().unwrap()),
        mark: Default::default(),
    }
}

fn known(reqid: u32, order: u64) -> Known {
    Known {
        config: v1::IpsecSaConfig {
            reqid,
            ..Default::default()
        },
        added: 0,
        before: Used::default(),
        aged: Duration::ZERO,
        order,
    }
}

#[test]
fn the_last_one_added_encrypts() {
    let sas = [(300, 1, 5), (301, 1, 7), (302, 1, 6), (303, 2, 1)];
    let mut sas: BTreeMap<_, _> = sas
        .map(|(spi, reqid, order)| (key(spi), known(reqid, order)))
        .into();
    assert_eq!(newest(&sas), BTreeMap::from([(1, key(301)), (2, key(303))]));
    sas.remove(&key(301));
    assert_eq!(newest(&sas)[&1], key(302));
}

#[test]
fn what_is_used_of_a_lifetime_is_used_after_a_restart() {
    let message = v1::IpsecSaConfig {
        direction: "outbound".into(),
        spi: 256,
        source: "192.0.2.1".into(),
        destination: "192.0.2.2".into(),
        algorithm: "aes-128-gcm-16".into(),
        key: vec![1; 20],
        reqid: 1,
        lifetime: Some(v1::IpsecLifetime {
            soft_packets: 5,
            hard_packets: 10,
            soft_seconds: 100,
            hard_seconds: 200,
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut config = read::sa(&message, "sas[0]").unwrap();
    let used = Used {
        packets: 7,
        bytes: 1000,
    };
    rest(&mut config, Duration::from_secs(150), used);
    let lifetime = config.lifetime;
    assert_eq!((lifetime.soft_packets, lifetime.hard_packets), (Some(1), Some(3)));
    assert_eq!(lifetime.soft_time, Some(Duration::from_nanos(1)));
    assert_eq!(lifetime.hard_time, Some(Duration::from_secs(50)));
    assert_eq!(lifetime.hard_bytes, None);
    // The database takes it, and it is what it says.
    let mut database = Database::new(Box::new(MemoryStore::default()), Options::default());
    database.apply(10, vec![Change::PutSa(Box::new(config))]).unwrap();
    let sa = database.snapshot().sad.find(&key(256)).unwrap();
    assert_eq!(state(sa, 10), "live");
    assert_eq!(state(sa, 1_000), "rekey");
    assert_eq!(state(sa, 60_000_000_000), "expired");
}
