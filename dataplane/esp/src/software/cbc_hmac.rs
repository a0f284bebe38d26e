//! AES-CBC with HMAC-SHA2 by `aws-lc-rs`, which erases its keys itself.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
    UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::Failed;
use crate::algorithm::{AesKey, Hmac};
use crate::key::KeyMaterial;
use crate::provider::Operation;

/// The two keys of one direction.
pub(super) struct CbcHmacKey {
    cipher: Cipher,
    auth: hmac::Key,
}

enum Cipher {
    Encrypt(EncryptingKey),
    Decrypt(DecryptingKey),
}

impl CbcHmacKey {
    pub(super) fn new(
        operation: Operation,
        key_len: AesKey,
        auth: Hmac,
        keys: &KeyMaterial,
    ) -> Result<Self, Failed> {
        let algorithm: &'static Algorithm = match key_len {
            AesKey::Aes128 => &AES_128,
            AesKey::Aes192 => &AES_192,
            AesKey::Aes256 => &AES_256,
        };
        let key = UnboundCipherKey::new(algorithm, keys.cipher.expose()).map_err(|_| Failed)?;
        let cipher = match operation {
            Operation::Encrypt => Cipher::Encrypt(EncryptingKey::cbc(key).map_err(|_| Failed)?),
            Operation::Decrypt => Cipher::Decrypt(DecryptingKey::cbc(key).map_err(|_| Failed)?),
        };
        let hash = match auth {
            Hmac::Sha256 | Hmac::Sha256Icv12 => hmac::HMAC_SHA256,
            Hmac::Sha384 => hmac::HMAC_SHA384,
            Hmac::Sha512 => hmac::HMAC_SHA512,
        };
        Ok(Self {
            cipher,
            auth: hmac::Key::new(hash, keys.auth.expose()),
        })
    }

    fn icv(&self, authenticated: &[u8], esn_high: Option<u32>) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.auth);
        context.update(authenticated);
        if let Some(high) = esn_high {
            context.update(&high.to_be_bytes());
        }
        context.sign()
    }

    /// `packet` is ESP header, IV and plaintext, of which the latter starts at `text`.
    pub(super) fn seal(
        &self,
        iv: &[u8; 16],
        packet: &mut [u8],
        text: usize,
        esn_high: Option<u32>,
        icv: &mut [u8],
    ) -> Result<(), Failed> {
        let Cipher::Encrypt(key) = &self.cipher else {
            return Err(Failed);
        };
        let iv = EncryptionContext::Iv128(FixedLength::from(*iv));
        let plaintext = packet.get_mut(text..).ok_or(Failed)?;
        key.less_safe_encrypt(plaintext, iv).map_err(|_| Failed)?;
        let tag = self.icv(packet, esn_high);
        icv.copy_from_slice(tag.as_ref().get(..icv.len()).ok_or(Failed)?);
        Ok(())
    }

    /// `packet` is ESP header, IV and ciphertext, of which the latter starts at `text`.
    pub(super) fn open(
        &self,
        iv: &[u8; 16],
        packet: &mut [u8],
        text: usize,
        esn_high: Option<u32>,
        icv: &[u8],
    ) -> Result<(), Failed> {
        let Cipher::Decrypt(key) = &self.cipher else {
            return Err(Failed);
        };
        let tag = self.icv(packet, esn_high);
        let expected = tag.as_ref().get(..icv.len()).ok_or(Failed)?;
        verify_slices_are_equal(expected, icv).map_err(|_| Failed)?;
        let iv = DecryptionContext::Iv128(FixedLength::from(*iv));
        let ciphertext = packet.get_mut(text..).ok_or(Failed)?;
        key.decrypt(ciphertext, iv).map_err(|_| Failed)?;
        Ok(())
    }
}
