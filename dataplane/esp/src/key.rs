//! Keys in memory: zeroised when dropped, shown by nothing.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use zeroize::{Zeroize, ZeroizeOnDrop, zeroize_stack};

use crate::sa::SaKey;

/// Secret bytes. Their memory is overwritten when they are dropped; `Debug` shows the length only.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes over a copy of `bytes`; the caller's own copy is the caller's to erase.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the cipher and for nothing else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// The keys of one security association.
#[derive(Debug, Clone)]
pub struct KeyMaterial {
    /// Encryption key, without the salt.
    pub cipher: Secret,
    /// Integrity key; empty for a combined algorithm.
    pub auth: Secret,
    /// Salt, the first four bytes of the nonce; all zeros for AES-CBC, which has none.
    salt: Zeroizing4,
}

/// Four secret bytes.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
struct Zeroizing4([u8; 4]);

impl fmt::Debug for Zeroizing4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(4 bytes)")
    }
}

impl KeyMaterial {
    /// Keys of a combined algorithm as they are exchanged: the key, then four bytes of salt (RFC 4106, section 8.1; RFC
    /// 7634, section 2). Shorter blobs give a key that [`crate::Session::new`] refuses.
    pub fn aead(key_and_salt: &[u8]) -> Self {
        match key_and_salt.split_last_chunk::<4>() {
            Some((key, salt)) => Self {
                cipher: Secret::new(key),
                auth: Secret::new(&[]),
                salt: Zeroizing4(*salt),
            },
            None => Self {
                cipher: Secret::new(&[]),
                auth: Secret::new(&[]),
                salt: Zeroizing4::default(),
            },
        }
    }

    /// Keys of AES-CBC with HMAC.
    pub fn cbc_hmac(cipher: &[u8], auth: &[u8]) -> Self {
        Self {
            cipher: Secret::new(cipher),
            auth: Secret::new(auth),
            salt: Zeroizing4::default(),
        }
    }

    /// The salt.
    pub fn salt(&self) -> [u8; 4] {
        self.salt.0
    }
}

/// What keys are known by where they must not be shown: the start of a hash of cipher key, salt and integrity key. Keys
/// that would share nonces have the same, whatever the algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The whole of it.
    pub fn bytes(&self) -> [u8; 16] {
        self.0
    }

    /// What [`Fingerprint::bytes`] gave.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// One of these keys and the name of a security association together.
    pub(crate) fn of(&self, sa: &SaKey) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"octoplane esp sa 1");
        hash.update(&self.0);
        hash.update(&sa.spi.to_be_bytes());
        for end in [sa.source, Some(sa.destination)] {
            // Each takes the same number of bytes, so that no two names are alike.
            let (family, addr) = match end {
                None => (0, 0),
                Some(IpAddr::V4(addr)) => (4, addr.to_bits().into()),
                Some(IpAddr::V6(addr)) => (6, addr.to_bits()),
            };
            hash.update(&[family]);
            hash.update(&u128::to_be_bytes(addr));
        }
        hash.update(&sa.mark.value.to_be_bytes());
        hash.update(&sa.mark.mask.to_be_bytes());
        Self(start(&hash.finish()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl KeyMaterial {
    /// No keys: what stands where keys were taken away.
    pub(crate) fn none() -> Self {
        Self::cbc_hmac(&[], &[])
    }

    /// What these keys are known by.
    pub fn fingerprint(&self) -> Fingerprint {
        let fingerprint = self.hash();
        // What was on the stack meanwhile.
        zeroize_stack::<4096>();
        fingerprint
    }

    #[inline(never)]
    fn hash(&self) -> Fingerprint {
        let mut hash = Context::new(&SHA256);
        hash.update(b"octoplane esp key 1");
        for part in [self.cipher.expose(), &self.salt.0, self.auth.expose()] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Fingerprint(start(&hash.finish()))
    }
}

/// As much of a hash as a fingerprint has.
fn start(digest: &Digest) -> [u8; 16] {
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}
