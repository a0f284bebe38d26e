//! Which security associations a device can take, asked for once at the start.

use std::collections::HashSet;

use dpdk::crypto::{CryptoAlgorithm, Direction, SessionMaker, Transform};
use octoplane_esp::{Aead, AesKey, Algorithm, Hmac, IcvLen, Operation, Session};

/// Algorithms with and without extended sequence numbers that a device can both encrypt and decrypt.
#[derive(Debug, Clone, Default)]
pub struct Capabilities {
    known: HashSet<(Algorithm, bool)>,
}

impl Capabilities {
    /// Asks the device.
    pub fn of(device: &SessionMaker) -> Self {
        let both = |&(algorithm, esn): &(Algorithm, bool)| {
            [Operation::Encrypt, Operation::Decrypt]
                .into_iter()
                .all(|operation| device.supports(&transform(algorithm, operation, esn)))
        };
        let known = every_algorithm().flat_map(|algorithm| [(algorithm, false), (algorithm, true)]);
        Self {
            known: known.filter(both).collect(),
        }
    }

    /// Whether the device can do this.
    pub fn contains(&self, algorithm: Algorithm, esn: bool) -> bool {
        self.known.contains(&(algorithm, esn))
    }

    /// Whether it can do nothing.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What it can do, by name, without those that it can do without extended sequence numbers only.
    pub fn names(&self) -> Vec<String> {
        let with_esn = self.known.iter().filter(|(_, esn)| *esn);
        let mut names: Vec<String> = with_esn.map(|(algorithm, _)| algorithm.to_string()).collect();
        names.sort_unstable();
        names
    }
}

fn every_algorithm() -> impl Iterator<Item = Algorithm> {
    let keys = [AesKey::Aes128, AesKey::Aes192, AesKey::Aes256];
    let icvs = [IcvLen::Icv8, IcvLen::Icv12, IcvLen::Icv16];
    let hmacs = [Hmac::Sha256, Hmac::Sha256Icv12, Hmac::Sha384, Hmac::Sha512];
    let gcm = keys
        .into_iter()
        .flat_map(move |key| icvs.map(|icv| Algorithm::Aead(Aead::AesGcm(key, icv))));
    let cbc = keys
        .into_iter()
        .flat_map(move |key| hmacs.map(|hmac| Algorithm::CbcHmac(key, hmac)));
    gcm.chain([Algorithm::Aead(Aead::ChaCha20Poly1305)]).chain(cbc)
}

/// What a session is to the device.
pub fn transform_of(session: &Session) -> Transform {
    transform(session.algorithm(), session.operation(), session.esn())
}

fn transform(algorithm: Algorithm, operation: Operation, esn: bool) -> Transform {
    Transform {
        algorithm: match algorithm {
            Algorithm::Aead(Aead::AesGcm(..)) => CryptoAlgorithm::AesGcm,
            Algorithm::Aead(Aead::ChaCha20Poly1305) => CryptoAlgorithm::ChaCha20Poly1305,
            Algorithm::CbcHmac(_, Hmac::Sha256 | Hmac::Sha256Icv12) => CryptoAlgorithm::AesCbcHmacSha256,
            Algorithm::CbcHmac(_, Hmac::Sha384) => CryptoAlgorithm::AesCbcHmacSha384,
            Algorithm::CbcHmac(_, Hmac::Sha512) => CryptoAlgorithm::AesCbcHmacSha512,
        },
        direction: match operation {
            Operation::Encrypt => Direction::Encrypt,
            Operation::Decrypt => Direction::Decrypt,
        },
        key_len: algorithm.cipher_key_len() as u16,
        auth_key_len: algorithm.auth_key_len() as u16,
        iv_len: algorithm.nonce_len() as u16,
        digest_len: algorithm.icv_len() as u16,
        // SPI and sequence number (RFC 4106, section 5).
        aad_len: match (algorithm.is_aead(), esn) {
            (false, _) => 0,
            (true, false) => 8,
            (true, true) => 12,
        },
    }
}
