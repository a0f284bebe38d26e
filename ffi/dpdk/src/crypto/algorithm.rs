//! What a session does, and what a device says it can do.

use std::fmt;

use crate::crypto::{CryptoError, CryptoId};
use crate::eal::Eal;
use crate::errno::Errno;

/// Most bytes of a nonce or initialisation vector.
pub const IV_MAX: usize = dpdk_sys::OCT_CRYPTO_IV_MAX as usize;
/// Most bytes of additional authenticated data.
pub const AAD_MAX: usize = dpdk_sys::OCT_CRYPTO_AAD_MAX as usize;

/// An algorithm, or the two that are chained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CryptoAlgorithm {
    /// AES in Galois/counter mode.
    AesGcm,
    /// ChaCha20 with Poly1305 (RFC 8439).
    ChaCha20Poly1305,
    /// AES-CBC, then HMAC-SHA-256 over what was encrypted.
    AesCbcHmacSha256,
    /// AES-CBC, then HMAC-SHA-384.
    AesCbcHmacSha384,
    /// AES-CBC, then HMAC-SHA-512.
    AesCbcHmacSha512,
    /// Nothing at all, with no key: for testing the way to a device and back.
    Null,
}

impl CryptoAlgorithm {
    /// Every one there is.
    pub const ALL: [Self; 6] = [
        Self::AesGcm,
        Self::ChaCha20Poly1305,
        Self::AesCbcHmacSha256,
        Self::AesCbcHmacSha384,
        Self::AesCbcHmacSha512,
        Self::Null,
    ];

    pub(crate) fn raw(self) -> u8 {
        let raw = match self {
            Self::AesGcm => dpdk_sys::OCT_CRYPTO_AES_GCM,
            Self::ChaCha20Poly1305 => dpdk_sys::OCT_CRYPTO_CHACHA20_POLY1305,
            Self::AesCbcHmacSha256 => dpdk_sys::OCT_CRYPTO_AES_CBC_HMAC_SHA256,
            Self::AesCbcHmacSha384 => dpdk_sys::OCT_CRYPTO_AES_CBC_HMAC_SHA384,
            Self::AesCbcHmacSha512 => dpdk_sys::OCT_CRYPTO_AES_CBC_HMAC_SHA512,
            Self::Null => dpdk_sys::OCT_CRYPTO_NULL,
        };
        raw as u8
    }

    /// Whether encryption and authentication are one, with additional authenticated data.
    #[must_use]
    pub fn is_combined(self) -> bool {
        matches!(self, Self::AesGcm | Self::ChaCha20Poly1305)
    }
}

impl fmt::Display for CryptoAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AesGcm => "AES-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            Self::AesCbcHmacSha256 => "AES-CBC with HMAC-SHA-256",
            Self::AesCbcHmacSha384 => "AES-CBC with HMAC-SHA-384",
            Self::AesCbcHmacSha512 => "AES-CBC with HMAC-SHA-512",
            Self::Null => "no encryption",
        })
    }
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Encrypt and write the tag.
    Encrypt,
    /// Verify the tag and decrypt.
    Decrypt,
}

/// Algorithm and sizes of a session, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Transform {
    /// The algorithm.
    pub algorithm: CryptoAlgorithm,
    /// The direction.
    pub direction: Direction,
    /// Of the cipher's key.
    pub key_len: u16,
    /// Of the key of the HMAC; 0 for a combined algorithm.
    pub auth_key_len: u16,
    /// Of the nonce or initialisation vector.
    pub iv_len: u16,
    /// Of the tag.
    pub digest_len: u16,
    /// Of the additional authenticated data; 0 but for a combined algorithm.
    pub aad_len: u16,
}

impl Transform {
    pub(crate) fn raw(&self, key: *const u8, auth_key: *const u8) -> dpdk_sys::oct_crypto_transform {
        dpdk_sys::oct_crypto_transform {
            key,
            auth_key,
            key_len: self.key_len,
            auth_key_len: self.auth_key_len,
            iv_len: self.iv_len,
            digest_len: self.digest_len,
            aad_len: self.aad_len,
            algorithm: self.algorithm.raw(),
            decrypt: u8::from(self.direction == Direction::Decrypt),
        }
    }
}

/// Sizes a device takes: from `min` to `max` bytes in steps of `step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SizeRange {
    /// Least.
    pub min: u16,
    /// Most.
    pub max: u16,
    /// Step; 0 if there is one size only.
    pub step: u16,
}

impl SizeRange {
    fn from_raw(raw: dpdk_sys::oct_crypto_range) -> Self {
        Self {
            min: raw.min,
            max: raw.max,
            step: raw.step,
        }
    }

    /// Whether `size` is one of them.
    #[must_use]
    pub fn contains(self, size: u16) -> bool {
        if size < self.min || size > self.max {
            return false;
        }
        match self.step {
            0 => size == self.min,
            step => (size - self.min).is_multiple_of(step),
        }
    }
}

/// What a device says it can do of an algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Keys of the cipher.
    pub key: SizeRange,
    /// Nonces or initialisation vectors.
    pub iv: SizeRange,
    /// Additional authenticated data; of combined algorithms only.
    pub aad: SizeRange,
    /// Tags.
    pub digest: SizeRange,
    /// Keys of the HMAC; not of combined algorithms.
    pub auth_key: SizeRange,
}

/// What device `id` says about `algorithm`; `None` if it does not have it.
///
/// # Errors
/// [`CryptoError::Missing`]
pub fn capability(
    _eal: &Eal,
    id: CryptoId,
    algorithm: CryptoAlgorithm,
) -> Result<Option<Capability>, CryptoError> {
    // SAFETY: all fields are numbers, for which zero is a value.
    let mut raw: dpdk_sys::oct_crypto_capability = unsafe { std::mem::zeroed() };
    // SAFETY: the EAL runs and `raw` is a place for the result.
    let ret = unsafe { dpdk_sys::oct_crypto_capability(id.0, algorithm.raw(), &raw mut raw) };
    match Errno::check(ret) {
        Err(Errno(libc::ENODEV)) => Err(CryptoError::Missing(id)),
        Err(_) => Ok(None),
        Ok(()) => Ok(Some(Capability {
            key: SizeRange::from_raw(raw.key),
            iv: SizeRange::from_raw(raw.iv),
            aad: SizeRange::from_raw(raw.aad),
            digest: SizeRange::from_raw(raw.digest),
            auth_key: SizeRange::from_raw(raw.auth_key),
        })),
    }
}

/// Whether device `id` says that it can do `transform`, sizes included.
#[must_use]
pub fn supports(_eal: &Eal, id: CryptoId, transform: &Transform) -> bool {
    let raw = transform.raw(std::ptr::null(), std::ptr::null());
    // SAFETY: the EAL runs; keys are not looked at.
    unsafe { dpdk_sys::oct_crypto_capable(id.0, &raw const raw) }
}
