//! The security associations of both ends.

use std::net::{IpAddr, Ipv4Addr};

use octoplane_esp::db::{Change, Database, Options};
use octoplane_esp::sa::{Lifetime, Mark, OuterHeader, SaKey};
use octoplane_esp::store::MemoryStore;
use octoplane_esp::{Aead, AesKey, Algorithm, Direction, IcvLen, KeyMaterial, Mode, SaConfig, SaId};

use super::setup::WINDOW;

/// The algorithm.
pub(super) const ALGORITHM: Algorithm = Algorithm::Aead(Aead::AesGcm(AesKey::Aes128, IcvLen::Icv16));
/// The sending end, a neighbour of the receiving one: addresses 1 and 0 on the link of an uplink.
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 130));
const RECEIVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 129));
/// The first SPI.
const FIRST: u32 = 0x1000;
/// Sequence numbers of each: more than any run takes.
const NUMBERS: u64 = 1 << 40;

/// One end's database.
pub(super) struct End {
    pub(super) db: Database,
    pub(super) ids: Vec<SaId>,
}

/// An end with `n` security associations; those of the other direction have the same keys.
pub(super) fn end(direction: Direction, n: u32) -> anyhow::Result<End> {
    let options = Options {
        max_sas: n as usize,
        block_esn: NUMBERS,
        ..Options::default()
    };
    let mut db = Database::new(Box::new(MemoryStore::default()), options);
    let changes = (0..n)
        .map(|index| Change::PutSa(Box::new(config(direction, index))))
        .collect();
    let ids = db.apply(0, changes)?.sas;
    Ok(End { db, ids })
}

/// What names the outbound security association of this number.
pub(super) fn outbound_key(index: u32) -> SaKey {
    config(Direction::Outbound, index).key()
}

fn config(direction: Direction, index: u32) -> SaConfig {
    let mut key = [0x5a; 20];
    key[..4].copy_from_slice(&index.to_be_bytes());
    SaConfig {
        direction,
        spi: FIRST + index,
        source: Some(PEER),
        destination: RECEIVER,
        mark: Mark::default(),
        mode: Mode::Tunnel,
        algorithm: ALGORITHM,
        keys: KeyMaterial::aead(&key),
        esn: true,
        replay_window: WINDOW,
        nat_traversal: None,
        outer: OuterHeader::default(),
        lifetime: Lifetime::default(),
        inner: Vec::new(),
        reqid: 0,
    }
}
