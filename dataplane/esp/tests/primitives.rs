//! The cryptography as the software provider uses it, against published vectors and against each other: every library,
//! every algorithm, every ICV length.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use common::{hex, job, pair, run};
use octoplane_esp::software::{Library, Plan, Software};
use octoplane_esp::{Aead, AesKey, Algorithm, Hmac, IcvLen, JobStatus, KeyMaterial};
use octoplane_packet::HeapBuf;
use proptest::prelude::*;

fn provider(library: Library) -> Software<HeapBuf> {
    Software::new(Arc::new(Plan::only(library)), 4)
}

/// A combined algorithm with one key, through one library.
struct Case<'a> {
    library: Library,
    aead: Aead,
    key: &'a [u8],
    nonce: &'a [u8],
    aad: &'a [u8],
}

impl Case<'_> {
    fn keys(&self) -> KeyMaterial {
        KeyMaterial::aead(&[self.key, &self.nonce[..4]].concat())
    }

    fn algorithm(&self) -> Algorithm {
        Algorithm::Aead(self.aead)
    }

    /// What comes after the ESP header and IV: ciphertext and ICV.
    fn seal(&self, text: &[u8]) -> Vec<u8> {
        let (sender, _) = pair(self.algorithm(), self.aad.len() == 12, &self.keys());
        let packet = [&[0xee; 16][..], text, &[0; 16][..self.algorithm().icv_len()]].concat();
        let job = job(&sender.0, &packet, 16, text.len(), self.nonce, self.aad);
        let (status, out) = run(&mut provider(self.library), &sender, job);
        assert_eq!(status, JobStatus::Ok);
        assert_eq!(
            out[..16],
            [0xee; 16],
            "what is before the ciphertext is left alone"
        );
        out[16..].to_vec()
    }

    fn open(&self, text_and_icv: &[u8]) -> (JobStatus, Vec<u8>) {
        let (_, receiver) = pair(self.algorithm(), self.aad.len() == 12, &self.keys());
        let packet = [&[0xee; 16][..], text_and_icv].concat();
        let len = text_and_icv.len() - self.algorithm().icv_len();
        let job = job(&receiver.0, &packet, 16, len, self.nonce, self.aad);
        let (status, out) = run(&mut provider(self.library), &receiver, job);
        (status, out[16..16 + len].to_vec())
    }
}

#[test]
fn gcm_vectors_with_every_library_and_icv_length() {
    let mut lines = 0;
    let vectors = include_str!("vectors/gcm_esp.txt");
    for line in vectors.lines().filter(|line| !line.starts_with('#')) {
        lines += 1;
        let fields: Vec<Vec<u8>> = line.split(' ').map(hex).collect();
        let [key, nonce, aad, plain, cipher, tag] = &fields[..] else {
            panic!("{line}")
        };
        for (library, icv) in Library::ALL
            .into_iter()
            .flat_map(|library| [IcvLen::Icv8, IcvLen::Icv12, IcvLen::Icv16].map(|icv| (library, icv)))
        {
            let case = Case {
                library,
                aead: Aead::AesGcm(AesKey::from_len(key.len()).unwrap(), icv),
                key,
                nonce,
                aad,
            };
            // NIST SP 800-38D: a shorter tag is the start of the whole one.
            let sent = [&cipher[..], &tag[..icv.len()]].concat();
            assert_eq!(case.seal(plain), sent, "{library} {icv:?} {line}");
            assert_eq!(
                case.open(&sent),
                (JobStatus::Ok, plain.clone()),
                "{library} {icv:?} {line}"
            );
        }
    }
    assert_eq!(lines, 14);
}

#[test]
fn chacha_vector_of_rfc_7634_appendix_a() {
    let key: Vec<u8> = (0x80..0xa0).collect();
    let nonce = hex("a0a1a2a3 1011121314151617");
    let plain = hex(
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec1000073627
        08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637
        01020204",
    );
    let sent = hex(
        "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f7
        2aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0
        76aaa8266b7fb0f7b11b369907e1ad43",
    );
    for library in Library::ALL {
        let case = Case {
            library,
            aead: Aead::ChaCha20Poly1305,
            key: &key,
            nonce: &nonce,
            aad: &hex("01020304 00000005"),
        };
        assert_eq!(case.seal(&plain), sent, "{library}");
        assert_eq!(case.open(&sent), (JobStatus::Ok, plain.clone()), "{library}");
    }
}

/// Encrypts with AES-CBC and HMAC; returns IV, ciphertext and ICV.
fn cbc(key: &[u8], iv: &[u8], text: &[u8], hmac: Hmac, auth: &[u8], esn_high: Option<u32>) -> Vec<u8> {
    let algorithm = Algorithm::CbcHmac(AesKey::from_len(key.len()).unwrap(), hmac);
    let keys = KeyMaterial::cbc_hmac(key, auth);
    let (sender, receiver) = pair(algorithm, esn_high.is_some(), &keys);
    let packet = [&hex("0000432100000001"), iv, text, &vec![0; algorithm.icv_len()]].concat();
    let mut encrypt = job(&sender.0, &packet, 24, text.len(), iv, &[]);
    encrypt.esn_high = esn_high;
    let (status, sent) = run(&mut provider(Library::AwsLc), &sender, encrypt);
    assert_eq!(status, JobStatus::Ok);
    // And back, also with one bit wrong in header, IV, ciphertext, ICV, and in what is not sent.
    let decrypt = |packet: &[u8], esn_high| {
        let mut job = job(&receiver.0, packet, 24, text.len(), iv, &[]);
        job.esn_high = esn_high;
        run(&mut provider(Library::AwsLc), &receiver, job)
    };
    let (status, plain) = decrypt(&sent, esn_high);
    assert_eq!(status, JobStatus::Ok);
    assert_eq!(&plain[24..24 + text.len()], text);
    for byte in [0, 7, 10, 24, sent.len() - algorithm.icv_len(), sent.len() - 1] {
        let mut wrong = sent.clone();
        wrong[byte] ^= 0x10;
        assert_eq!(decrypt(&wrong, esn_high).0, JobStatus::AuthFailed, "byte {byte}");
    }
    if let Some(high) = esn_high {
        assert_eq!(decrypt(&sent, Some(high + 1)).0, JobStatus::AuthFailed);
        assert_eq!(decrypt(&sent, None).0, JobStatus::AuthFailed);
    }
    sent[8..].to_vec()
}

#[test]
fn cbc_vectors_of_rfc_3602_section_4() {
    for (key, iv, plain, cipher) in [
        (
            "06a9214036b8a15b512e03d534120006",
            "3dafba429d9eb430b422da802c9fac41",
            hex(&"Single block msg"
                .bytes()
                .map(|b| format!("{b:02x}"))
                .collect::<String>()),
            "e353779c1079aeb82708942dbe77181a",
        ),
        (
            "c286696d887c9aa0611bbb3e2025a45a",
            "562e17996d093d28ddb3ba695a2e6f58",
            (0..32).collect(),
            "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        ),
    ] {
        let out = cbc(&hex(key), &hex(iv), &plain, Hmac::Sha256, &[1; 32], None);
        assert_eq!(out[16..16 + plain.len()], hex(cipher));
    }
}

#[test]
fn cbc_has_every_length_of_key_and_icv() {
    for key_len in [16, 24, 32] {
        for (hmac, icv_len) in [
            (Hmac::Sha256Icv12, 12),
            (Hmac::Sha256, 16),
            (Hmac::Sha384, 24),
            (Hmac::Sha512, 32),
        ] {
            let auth = vec![3; hmac.key_len()];
            let key = vec![9; key_len];
            for esn_high in [None, Some(5)] {
                let out = cbc(&key, &[4; 16], &[7; 48], hmac, &auth, esn_high);
                assert_eq!(out.len(), 16 + 48 + icv_len);
            }
        }
    }
}

#[test]
fn keys_of_the_wrong_length_are_refused() {
    let id = octoplane_esp::SessionId {
        index: 0,
        generation: 0,
    };
    let gcm = Algorithm::Aead(Aead::AesGcm(AesKey::Aes128, IcvLen::Icv16));
    let new = |algorithm, keys| {
        octoplane_esp::Session::new(id, octoplane_esp::Operation::Encrypt, algorithm, true, keys)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        new(gcm, KeyMaterial::aead(&[0; 19])),
        Err("key: 15 bytes (without salt), expected 16 for aes-128-gcm-16".to_owned())
    );
    assert!(new(gcm, KeyMaterial::aead(&[0; 3])).is_err());
    assert_eq!(
        new(
            Algorithm::CbcHmac(AesKey::Aes256, Hmac::Sha384),
            KeyMaterial::cbc_hmac(&[0; 32], &[0; 32])
        ),
        Err("integrity key: 32 bytes, expected 48 for aes-256-cbc-hmac-sha384-192".to_owned())
    );
}

#[test]
fn keys_are_not_shown() {
    let keys = KeyMaterial::aead(&[0xab; 20]);
    let (sender, _) = pair(
        Algorithm::Aead(Aead::AesGcm(AesKey::Aes128, IcvLen::Icv16)),
        true,
        &keys,
    );
    for text in [format!("{keys:?}"), format!("{:?}", sender.0)] {
        assert!(
            !text.contains("171") && !text.to_lowercase().contains("ab, ") && !text.contains("abab"),
            "{text}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The libraries agree with each other on any packet, and a flipped bit anywhere is found out.
    #[test]
    fn libraries_agree(
        key in any::<[u8; 32]>(), nonce in any::<[u8; 12]>(), aad in any::<[u8; 12]>(), esn: bool,
        text in proptest::collection::vec(any::<u8>(), 4..2100), kind in 0..4usize, icv in 0..3usize, flip: usize,
    ) {
        let icv = [IcvLen::Icv8, IcvLen::Icv12, IcvLen::Icv16][icv];
        let aead = match kind {
            0 => Aead::AesGcm(AesKey::Aes128, icv),
            1 => Aead::AesGcm(AesKey::Aes192, icv),
            2 => Aead::AesGcm(AesKey::Aes256, icv),
            _ => Aead::ChaCha20Poly1305,
        };
        let key = &key[..Algorithm::Aead(aead).cipher_key_len()];
        let aad = &aad[..if esn { 12 } else { 8 }];
        let case = |library| Case { library, aead, key, nonce: &nonce, aad };
        let sealed = Library::ALL.map(|library| case(library).seal(&text));
        prop_assert_eq!(&sealed[0], &sealed[1]);
        prop_assert_eq!(&sealed[0], &sealed[2]);
        if aead == Aead::ChaCha20Poly1305 {
            let mut oracle = text.clone();
            let tag = ChaCha20Poly1305::new_from_slice(key).unwrap()
                .encrypt_inout_detached(&nonce.into(), aad, InOutBuf::from(&mut oracle[..])).unwrap();
            oracle.extend_from_slice(&tag);
            prop_assert_eq!(&sealed[0], &oracle);
        }
        let mut wrong = sealed[0].clone();
        let bit = flip % (wrong.len() * 8);
        wrong[bit / 8] ^= 1 << (bit % 8);
        for library in Library::ALL {
            let (status, plain) = case(library).open(&sealed[0]);
            prop_assert_eq!(status, JobStatus::Ok);
            prop_assert_eq!(&plain, &text);
            prop_assert_eq!(case(library).open(&wrong).0, JobStatus::AuthFailed);
        }
    }
}
