//! A node with its database and one worker.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "helpers of tests")]

use std::sync::Arc;

use octoplane_esp::db::{Change, Database, Options};
use octoplane_esp::sa::{Direction, Lifetime, Mark, Mode, OuterHeader, SaConfig, SaId};
use octoplane_esp::software::{Library, Plan, Software};
use octoplane_esp::store::MemoryStore;
use octoplane_esp::{
    Aead, AesKey, Algorithm, Cause, Hmac, IcvLen, Inbound, Job, JobStatus, KeyMaterial, Outbound, Processed,
    Provider, Reader, ToDecrypt, ToEncrypt,
};
use octoplane_packet::{HeapBuf, PacketBuf};

pub const COOKIE: [u64; 3] = [11, 22, 33];

pub struct Node {
    pub db: Database,
    pub reader: Reader,
    pub outbound: Outbound,
    pub inbound: Inbound,
    pub provider: Software<HeapBuf>,
    pub now: u64,
}

impl Node {
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        let db = Database::new(Box::new(MemoryStore::default()), options);
        Self {
            reader: db.reader(),
            db,
            outbound: Outbound::new(),
            inbound: Inbound::new(),
            provider: Software::new(Arc::new(Plan::only(Library::AwsLc)), 256),
            now: 1_000,
        }
    }

    pub fn add(&mut self, config: SaConfig) -> SaId {
        self.db
            .apply(self.now, vec![Change::PutSa(Box::new(config))])
            .unwrap()
            .sas[0]
    }

    pub fn prepare(&mut self, packets: Vec<(Vec<u8>, SaId)>) -> (Vec<Job<HeapBuf>>, Vec<Processed<HeapBuf>>) {
        let mut packets = packets
            .into_iter()
            .map(|(bytes, sa)| ToEncrypt {
                buf: HeapBuf::new(&bytes),
                sa,
                cookie: COOKIE,
            })
            .collect();
        let (mut jobs, mut out) = (Vec::new(), Vec::new());
        let snapshot = self.reader.load();
        self.outbound
            .prepare(&snapshot.sad, self.now, &mut packets, &mut jobs, &mut out);
        assert!(packets.is_empty());
        (jobs, out)
    }

    pub fn run(&mut self, mut jobs: Vec<Job<HeapBuf>>) -> Vec<Job<HeapBuf>> {
        let snapshot = self.reader.load();
        let mut done = Vec::new();
        while !jobs.is_empty() {
            self.provider.submit(&snapshot.sad, &mut jobs);
            let mut some = Vec::with_capacity(256);
            self.provider.poll(&mut some, usize::MAX);
            done.append(&mut some);
        }
        done
    }

    /// Encrypts a burst; results in the order of the jobs, what was refused at the end.
    pub fn encrypt_all(&mut self, packets: Vec<(Vec<u8>, SaId)>) -> Vec<Result<Vec<u8>, Cause>> {
        let (jobs, refused) = self.prepare(packets);
        let mut jobs = self.run(jobs);
        let mut out = Vec::new();
        let snapshot = self.reader.load();
        self.outbound.finish(&snapshot.sad, &mut jobs, &mut out);
        out.extend(refused);
        out.into_iter().map(result).collect()
    }

    pub fn encrypt(&mut self, packet: &[u8], sa: SaId) -> Result<Vec<u8>, Cause> {
        self.encrypt_all(vec![(packet.to_vec(), sa)]).remove(0)
    }

    pub fn decrypt_all(&mut self, packets: Vec<Vec<u8>>) -> Vec<Result<Vec<u8>, Cause>> {
        self.decrypt_marked(packets, 0)
    }

    pub fn decrypt_marked(&mut self, packets: Vec<Vec<u8>>, mark: u32) -> Vec<Result<Vec<u8>, Cause>> {
        let mut packets = packets
            .into_iter()
            .map(|bytes| ToDecrypt {
                buf: HeapBuf::new(&bytes),
                mark,
                cookie: COOKIE,
            })
            .collect();
        let (mut jobs, mut refused) = (Vec::new(), Vec::new());
        let snapshot = Arc::clone(self.reader.load());
        self.inbound
            .prepare(&snapshot.sad, self.now, &mut packets, &mut jobs, &mut refused);
        let mut jobs = self.run(jobs);
        let mut out = Vec::new();
        self.inbound.finish(&snapshot.sad, &mut jobs, &mut out);
        out.extend(refused);
        out.into_iter().map(result).collect()
    }

    pub fn decrypt(&mut self, packet: &[u8]) -> Result<Vec<u8>, Cause> {
        self.decrypt_all(vec![packet.to_vec()]).remove(0)
    }

    /// Has a packet encrypted that is no packet: any bytes as ESP's payload, trailer included, as SPI `spi` would send it.
    pub fn seal_raw(&mut self, sa: SaId, text: &[u8]) -> Vec<u8> {
        let snapshot = Arc::clone(self.reader.load());
        let sa = snapshot.sa(sa).unwrap();
        // A packet of the right length through the front door; then other bytes in the place of the payload.
        let len = text.len() - 2;
        assert!(len >= 20 && text.len().is_multiple_of(4));
        let (mut jobs, _) = self.prepare(vec![(ipv4(17, &vec![0; len - 20]), sa.id())]);
        let job = &mut jobs[0];
        let (from, to) = (usize::from(job.cipher.offset), job.cipher.end());
        job.buf.data_mut()[from..to].copy_from_slice(text);
        let mut jobs = self.run(jobs);
        assert_eq!(jobs[0].status, JobStatus::Ok);
        jobs.remove(0).buf.data().to_vec()
    }
}

fn result(processed: Processed<HeapBuf>) -> Result<Vec<u8>, Cause> {
    assert_eq!(processed.cookie, COOKIE);
    processed.outcome.map(|()| processed.buf.data().to_vec())
}

pub const GCM128: Algorithm = Algorithm::Aead(Aead::AesGcm(AesKey::Aes128, IcvLen::Icv16));

/// Every algorithm, key length and ICV length.
pub fn algorithms() -> Vec<Algorithm> {
    let keys = [AesKey::Aes128, AesKey::Aes192, AesKey::Aes256];
    let icvs = [IcvLen::Icv8, IcvLen::Icv12, IcvLen::Icv16];
    let hmacs = [Hmac::Sha256Icv12, Hmac::Sha256, Hmac::Sha384, Hmac::Sha512];
    let gcm = keys
        .into_iter()
        .flat_map(|key| icvs.map(|icv| Algorithm::Aead(Aead::AesGcm(key, icv))));
    let cbc = keys
        .into_iter()
        .flat_map(|key| hmacs.map(|hmac| Algorithm::CbcHmac(key, hmac)));
    gcm.chain(cbc)
        .chain([Algorithm::Aead(Aead::ChaCha20Poly1305)])
        .collect()
}

pub fn keys(algorithm: Algorithm, seed: u8) -> KeyMaterial {
    let bytes = |len: usize, salt: u8| -> Vec<u8> {
        (0..len)
            .map(|i| (i as u8).wrapping_mul(7) ^ seed.wrapping_add(salt))
            .collect()
    };
    match algorithm {
        Algorithm::Aead(_) => KeyMaterial::aead(&bytes(algorithm.cipher_key_len() + 4, 0)),
        Algorithm::CbcHmac(..) => KeyMaterial::cbc_hmac(
            &bytes(algorithm.cipher_key_len(), 1),
            &bytes(algorithm.auth_key_len(), 2),
        ),
    }
}

/// Tunnel mode from 192.0.2.1 to 192.0.2.2, ESN, window 64.
pub fn config(direction: Direction, algorithm: Algorithm) -> SaConfig {
    SaConfig {
        direction,
        spi: 0x1234_5678,
        source: Some("192.0.2.1".parse().unwrap()),
        destination: "192.0.2.2".parse().unwrap(),
        mark: Mark::default(),
        mode: Mode::Tunnel,
        algorithm,
        keys: keys(algorithm, 1),
        esn: true,
        replay_window: 64,
        nat_traversal: None,
        outer: OuterHeader::default(),
        lifetime: Lifetime::default(),
        inner: Vec::new(),
        reqid: 0,
    }
}

/// A sender and a receiver with one security association.
pub fn pair(change: impl Fn(&mut SaConfig)) -> (Node, SaId, Node, SaId) {
    let (mut sender, mut receiver) = (Node::new(), Node::new());
    let with = |direction| {
        let mut config = config(direction, GCM128);
        change(&mut config);
        config
    };
    let out = sender.add(with(Direction::Outbound));
    let inbound = receiver.add(with(Direction::Inbound));
    (sender, out, receiver, inbound)
}

pub fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(protocol, payload, 0, 0)
}

/// From 10.0.0.1 to 10.0.0.2.
pub fn ipv4_with(protocol: u8, payload: &[u8], tos: u8, flags: u16) -> Vec<u8> {
    let total = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, tos];
    packet.extend(total.to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(flags.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = octoplane_packet::checksum::checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// From fd00::1 to fd00::2.
pub fn ipv6(next_header: u8, payload: &[u8], class: u8) -> Vec<u8> {
    let mut packet = vec![0x60 | class >> 4, class << 4, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, 64]);
    for end in [1, 2] {
        packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]);
    }
    packet.extend(payload);
    packet
}

/// Whether an IPv4 header sums up (RFC 1071).
pub fn header_ok(packet: &[u8]) -> bool {
    octoplane_packet::checksum::checksum(&packet[..usize::from(packet[0] & 15) * 4]) == 0
}
