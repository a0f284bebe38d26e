//! Published vectors through every crypto driver there is, on ordinary memory.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod common;

use std::sync::Arc;

use common::{HEADER, drivers, gcm, hex, job, packet, run};
use dpdk::crypto::{
    CryptoAlgorithm, CryptoConfig, CryptoDevice, CryptoQueue, CryptoSession, Direction, SessionMaker, Status,
    Transform, attach, capability, info_of,
};
use dpdk::{Eal, EalOptions, Mempool, PacketBuf};

struct Vector {
    what: &'static str,
    algorithm: CryptoAlgorithm,
    key: &'static str,
    auth_key: Vec<u8>,
    iv: &'static str,
    aad: &'static str,
    text: String,
    cipher: String,
    tag: &'static str,
}

impl Vector {
    fn gcm(
        what: &'static str,
        key: &'static str,
        iv: &'static str,
        aad: &'static str,
        text: &str,
        cipher: &str,
        tag: &'static str,
    ) -> Self {
        Self {
            what,
            algorithm: CryptoAlgorithm::AesGcm,
            key,
            auth_key: Vec::new(),
            iv,
            aad,
            text: text.to_owned(),
            cipher: cipher.to_owned(),
            tag,
        }
    }

    fn transform(&self, direction: Direction, digest_len: u16) -> Transform {
        Transform {
            algorithm: self.algorithm,
            direction,
            key_len: (self.key.len() / 2) as u16,
            auth_key_len: self.auth_key.len() as u16,
            iv_len: (self.iv.len() / 2) as u16,
            digest_len,
            aad_len: (self.aad.len() / 2) as u16,
        }
    }
}

const GCM_TEXT: &str = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
                        b16aedf5aa0de657ba637b391aafd255";
const GCM_IV: &str = "cafebabefacedbaddecaf888";

/// McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 3, 9 and 15; NIST CAVP, gcmEncryptExtIV128.rsp;
/// RFC 8439, section 2.8.2.
fn combined() -> Vec<Vector> {
    let mut vectors = vec![
        Vector::gcm(
            "case 3",
            "feffe9928665731c6d6a8f9467308308",
            GCM_IV,
            "",
            GCM_TEXT,
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa05\
             1ba30b396a0aac973d58e091473f5985",
            "4d5c2af327cd64a62cf35abd2ba6fab4",
        ),
        Vector::gcm(
            "case 9",
            "feffe9928665731c6d6a8f9467308308feffe9928665731c",
            GCM_IV,
            "",
            GCM_TEXT,
            "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c7d773d00c144c525ac619d18c84a3f47\
             18e2448b2fe324d9ccda2710acade256",
            "9924a7c8587336bfb118024db8674a14",
        ),
        Vector::gcm(
            "case 15",
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            GCM_IV,
            "",
            GCM_TEXT,
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838\
             c5f61e6393ba7a0abcc9f662898015ad",
            "b094dac5d93471bdec1a502270e3cc6c",
        ),
        Vector::gcm(
            "128 bits of everything",
            "c939cc13397c1d37de6ae0e1cb7c423c",
            "b3d8cc017cbb89b39e0f67e2",
            "24825602bd12a984e0092d3e448eda5f",
            "c3b3c41f113a31b73d9a5cd432103069",
            "93fe7d9e9bfd10348a5606e5cafa7354",
            "0032a1dc85f1c9786925a2e71d8272dd",
        ),
    ];
    let sunscreen = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen \
                     would be it.";
    vectors.push(Vector {
        what: "RFC 8439",
        algorithm: CryptoAlgorithm::ChaCha20Poly1305,
        key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        auth_key: Vec::new(),
        iv: "070000004041424344454647",
        aad: "50515253c0c1c2c3c4c5c6c7",
        text: sunscreen.bytes().map(|byte| format!("{byte:02x}")).collect(),
        cipher: "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71\
                 de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def0\
                 8e4b7a9de576d26586cec64b6116"
            .to_owned(),
        tag: "1ae10b594f09e26a7e902ecbd0600691",
    });
    vectors
}

/// RFC 3602, section 4, case 1; the HMAC of eight bytes of ESP header, IV and ciphertext is by Python's `hmac`.
fn chained() -> Vec<Vector> {
    let of = |algorithm, key_len: u8, tag| Vector {
        what: "RFC 3602 and HMAC",
        algorithm,
        key: "06a9214036b8a15b512e03d534120006",
        auth_key: (0..key_len).collect(),
        iv: "3dafba429d9eb430b422da802c9fac41",
        aad: "",
        text: "53696e676c6520626c6f636b206d7367".to_owned(),
        cipher: "e353779c1079aeb82708942dbe77181a".to_owned(),
        tag,
    };
    vec![
        of(
            CryptoAlgorithm::AesCbcHmacSha256,
            32,
            "bf73af0e8e7573f3d2055223192df152",
        ),
        of(
            CryptoAlgorithm::AesCbcHmacSha384,
            48,
            "f5ba5d2e7ceca99e128ac969f46ce738db582287e4ed53b3",
        ),
        of(
            CryptoAlgorithm::AesCbcHmacSha512,
            64,
            "470ab5f38b1e915426a7575fb8d63004871d6d786ddee5bac76818573899201b",
        ),
    ]
}

/// Both directions, and what has to fail. Returns how many tag lengths the device knows.
fn check(
    device: &str,
    sessions: &SessionMaker,
    queue: &mut CryptoQueue,
    pool: &Mempool,
    vector: &Vector,
) -> usize {
    let (text, cipher, full_tag) = (hex(&vector.text), hex(&vector.cipher), hex(vector.tag));
    let (iv, aad) = (hex(vector.iv), hex(vector.aad));
    // What the HMAC covers starts with the ESP header of the vectors above.
    let header = [hex("0000432100000001"), hex(vector.iv)].concat();
    let make = |len: usize, text: &[u8], tag: &[u8]| {
        let mut packet = packet(pool, text, &tag[..len]);
        if !vector.algorithm.is_combined() {
            packet.data_mut()[..HEADER].copy_from_slice(&header);
        }
        packet
    };
    let mut lengths = 0;
    for len in [8, 12, full_tag.len()] {
        let adopt = |queue: &mut CryptoQueue, direction| {
            let transform = vector.transform(direction, len as u16);
            if !sessions.supports(&transform) {
                return None;
            }
            let session: Arc<CryptoSession> = sessions
                .make(&transform, &hex(vector.key), &vector.auth_key)
                .unwrap();
            Some(queue.adopt(session).unwrap())
        };
        let Some(encrypt) = adopt(queue, Direction::Encrypt) else {
            continue;
        };
        let decrypt = adopt(queue, Direction::Decrypt).unwrap();
        lengths += 1;
        let what = format!("{device}: {} with {len} bytes of tag", vector.what);
        let zeros = vec![0; full_tag.len()];

        let plain = make(len, &text, &zeros);
        let (status, done, _) = run(queue, job(plain, encrypt, 1, text.len(), &iv, &aad));
        assert_eq!(status, Status::Success, "{what}");
        assert_eq!(done.data()[HEADER..][..text.len()], cipher, "{what}");
        assert_eq!(done.data()[HEADER + text.len()..], full_tag[..len], "{what}");

        let sealed = make(len, &cipher, &full_tag);
        let before = sealed.data()[..HEADER].to_vec();
        let (status, done, _) = run(queue, job(sealed, decrypt, 2, text.len(), &iv, &aad));
        assert_eq!(status, Status::Success, "{what}");
        assert_eq!(done.data()[HEADER..][..text.len()], text, "{what}");
        assert_eq!(done.data()[..HEADER], before, "{what}: the header was changed");

        // One bit of the tag, of the text, and of what is authenticated only.
        let mut wrong_tag = full_tag.clone();
        wrong_tag[len - 1] ^= 1;
        let mut wrong_text = cipher.clone();
        wrong_text[0] ^= 0x80;
        for packet in [make(len, &cipher, &wrong_tag), make(len, &wrong_text, &full_tag)] {
            let (status, ..) = run(queue, job(packet, decrypt, 3, text.len(), &iv, &aad));
            assert_eq!(status, Status::AuthFailed, "{what}");
        }
        if !aad.is_empty() {
            let mut wrong = aad.clone();
            wrong[0] ^= 1;
            let sealed = make(len, &cipher, &full_tag);
            let (status, ..) = run(queue, job(sealed, decrypt, 4, text.len(), &iv, &wrong));
            assert_eq!(status, Status::AuthFailed, "{what}");
        }
        for slot in [encrypt, decrypt] {
            assert!(queue.release(slot).unwrap().is_some());
        }
    }
    lengths
}

/// To another buffer, and the one it was in stays as it is.
fn out_of_place(sessions: &SessionMaker, queue: &mut CryptoQueue, pool: &Mempool) {
    let [.., vector, _] = &combined()[..] else {
        panic!()
    };
    let (text, cipher, tag) = (hex(&vector.text), hex(&vector.cipher), hex(vector.tag));
    for (direction, from, to) in [
        (Direction::Encrypt, &text, &cipher),
        (Direction::Decrypt, &cipher, &text),
    ] {
        let transform = gcm(direction, 16, 16, 16);
        let session = sessions.make(&transform, &hex(vector.key), &[]).unwrap();
        let slot = queue.adopt(session).unwrap();
        let (old, new) = (packet(pool, from, &tag), packet(pool, &[0; 16], &[0; 16]));
        let mut one = job(old, slot, 7, text.len(), &hex(vector.iv), &hex(vector.aad));
        one.into_other(new);
        let (status, src, dst) = run(queue, one);
        let dst = dst.unwrap();
        assert_eq!(status, Status::Success);
        assert_eq!(src.data()[HEADER..][..16], from[..]);
        assert_eq!(dst.data()[HEADER..][..16], to[..]);
        if direction == Direction::Encrypt {
            assert_eq!(dst.data()[HEADER + 16..], tag);
        }
        queue.release(slot).unwrap();
    }
}

#[test]
fn vectors() {
    let eal = Eal::init(&EalOptions::without_hardware(256)).unwrap();
    let pool = Mempool::new(&eal, "packets", 1023, 32, 2176, None).unwrap();
    for &name in drivers() {
        let id = attach(&eal, name).unwrap();
        let mut device = CryptoDevice::open(&eal, id).unwrap();
        let info = info_of(&eal, id).unwrap();
        assert_eq!((info.name.as_str(), info.driver.as_str()), (name, name));
        assert!(info.is_symmetric() && !info.is_hardware());
        let mut queue = device.start(&CryptoConfig::default()).unwrap().remove(0);
        let sessions = device.session_maker();

        for vector in combined().iter().chain(&chained()) {
            let lengths = check(name, &sessions, &mut queue, &pool, vector);
            let known = capability(&eal, id, vector.algorithm).unwrap();
            assert_eq!(known.is_some(), lengths > 0, "{name}: {}", vector.algorithm);
            if vector.algorithm == CryptoAlgorithm::AesGcm {
                assert!(lengths > 0, "{name}: {}", vector.what);
            }
            if let Some(known) = known {
                assert!(known.key.contains((vector.key.len() / 2) as u16));
                assert!(!known.key.contains(17));
            }
        }
        if info.is_out_of_place() {
            out_of_place(&sessions, &mut queue, &pool);
        }
        assert_eq!(queue.in_flight(), 0);
        let stats = device.stats().unwrap();
        assert!(
            stats.enqueued > 0 && stats.enqueued == stats.dequeued,
            "{stats:?}"
        );
        drop((queue, sessions));
        device.close().unwrap();
        dpdk::crypto::detach(&eal, id).unwrap();
    }
    assert_eq!(pool.in_use(), 0);
    drop(pool);
    eal.cleanup().unwrap();
}
