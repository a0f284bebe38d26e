//! Combined algorithms by `aws-lc-rs`, which erases its keys itself.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};

use super::Failed;
use crate::algorithm::{Aead, AesKey};

/// A key.
pub(super) struct AwsKey(LessSafeKey);

impl AwsKey {
    pub(super) fn new(aead: Aead, key: &[u8]) -> Result<Self, Failed> {
        let algorithm: &'static Algorithm = match aead {
            Aead::AesGcm(AesKey::Aes128, _) => &AES_128_GCM,
            Aead::AesGcm(AesKey::Aes192, _) => &AES_192_GCM,
            Aead::AesGcm(AesKey::Aes256, _) => &AES_256_GCM,
            Aead::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| Failed)?;
        Ok(Self(LessSafeKey::new(key)))
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
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), text)
            .map_err(|_| Failed)?;
        icv.copy_from_slice(tag.as_ref().get(..icv.len()).ok_or(Failed)?);
        Ok(())
    }

    /// `icv` is the whole tag of 16 bytes.
    #[inline]
    pub(super) fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        icv: &[u8],
    ) -> Result<(), Failed> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0
            .open_in_place_separate_tag(nonce, Aad::from(aad), icv, text)
            .map(|_| ())
            .map_err(|_| Failed)
    }
}
