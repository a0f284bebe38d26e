//! Combined algorithms by `ring`, with keys that are erased.

use std::hint::black_box;

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};

use super::Failed;
use crate::algorithm::{Aead, AesKey};

/// A key. `ring` leaves expanded keys in memory when they are dropped: here they are overwritten with those of the key of
/// zeros, in place.
pub(super) struct RingKey {
    algorithm: &'static Algorithm,
    // Boxed: moving it about would leave copies behind.
    key: Box<LessSafeKey>,
}

impl RingKey {
    /// Whether `ring` has the algorithm: AES-192 it has not.
    pub(super) fn supports(aead: Aead) -> bool {
        algorithm(aead).is_some()
    }

    pub(super) fn new(aead: Aead, key: &[u8]) -> Result<Self, Failed> {
        let algorithm = algorithm(aead).ok_or(Failed)?;
        let mut boxed = Box::new(blank(algorithm)?);
        *boxed = LessSafeKey::new(UnboundKey::new(algorithm, key).map_err(|_| Failed)?);
        Ok(Self {
            algorithm,
            key: boxed,
        })
    }

    /// Reads some of the key, for its being read.
    #[inline]
    pub(super) fn read(&self) -> u8 {
        std::ptr::from_ref(self.key.algorithm()).addr() as u8
    }

    /// Writes the first `icv.len()` bytes of the tag.
    #[inline]
    pub(super) fn seal(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        icv: &mut [u8],
    ) -> Result<(), Failed> {
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), text)
            .map_err(|_| Failed)?;
        icv.copy_from_slice(tag.as_ref().get(..icv.len()).ok_or(Failed)?);
        Ok(())
    }

    /// `text_and_icv` ends with the whole tag of 16 bytes.
    #[inline]
    pub(super) fn open(&self, nonce: &[u8; 12], aad: &[u8], text_and_icv: &mut [u8]) -> Result<(), Failed> {
        self.key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), text_and_icv)
            .map(|_| ())
            .map_err(|_| Failed)
    }
}

impl Drop for RingKey {
    fn drop(&mut self) {
        if let Ok(blank) = blank(self.algorithm) {
            *self.key = blank;
            // The write must not be found useless.
            black_box(&mut *self.key);
        }
    }
}

fn algorithm(aead: Aead) -> Option<&'static Algorithm> {
    match aead {
        Aead::AesGcm(AesKey::Aes128, _) => Some(&AES_128_GCM),
        Aead::AesGcm(AesKey::Aes192, _) => None,
        Aead::AesGcm(AesKey::Aes256, _) => Some(&AES_256_GCM),
        Aead::ChaCha20Poly1305 => Some(&CHACHA20_POLY1305),
    }
}

fn blank(algorithm: &'static Algorithm) -> Result<LessSafeKey, Failed> {
    let zeros = [0; 32];
    let zeros = zeros.get(..algorithm.key_len()).ok_or(Failed)?;
    Ok(LessSafeKey::new(
        UnboundKey::new(algorithm, zeros).map_err(|_| Failed)?,
    ))
}
