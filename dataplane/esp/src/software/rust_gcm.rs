//! AES-GCM by RustCrypto, with every ICV length that RFC 4106 has.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::{U8, U12, U16};
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AesGcm, KeyInit, Nonce, TagSize};

use super::Failed;
use crate::algorithm::{AesKey, IcvLen};

/// A key, for one length of the ICV. Each in a box of its own size: what a larger one leaves unused would keep whatever was
/// on the stack.
pub(super) enum RustGcm {
    Aes128(Box<Tags<Aes128>>),
    Aes192(Box<Tags<Aes192>>),
    Aes256(Box<Tags<Aes256>>),
}

/// The same cipher, seen as three types.
pub(super) enum Tags<Aes> {
    Icv8(AesGcm<Aes, U12, U8>),
    Icv12(AesGcm<Aes, U12, U12>),
    Icv16(AesGcm<Aes, U12, U16>),
}

impl<Aes> Tags<Aes>
where
    Aes: aes::cipher::BlockCipherEncrypt + aes::cipher::BlockSizeUser<BlockSize = U16> + KeyInit,
{
    fn new(icv: IcvLen, key: &[u8]) -> Result<Self, Failed> {
        Ok(match icv {
            IcvLen::Icv8 => Self::Icv8(AesGcm::new_from_slice(key).map_err(|_| Failed)?),
            IcvLen::Icv12 => Self::Icv12(AesGcm::new_from_slice(key).map_err(|_| Failed)?),
            IcvLen::Icv16 => Self::Icv16(AesGcm::new_from_slice(key).map_err(|_| Failed)?),
        })
    }

    #[inline]
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> Result<(), Failed> {
        match self {
            Self::Icv8(cipher) => seal(cipher, nonce, aad, text, icv),
            Self::Icv12(cipher) => seal(cipher, nonce, aad, text, icv),
            Self::Icv16(cipher) => seal(cipher, nonce, aad, text, icv),
        }
    }

    #[inline]
    fn open(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], icv: &[u8]) -> Result<(), Failed> {
        match self {
            Self::Icv8(cipher) => open(cipher, nonce, aad, text, icv),
            Self::Icv12(cipher) => open(cipher, nonce, aad, text, icv),
            Self::Icv16(cipher) => open(cipher, nonce, aad, text, icv),
        }
    }
}

#[inline]
fn seal<Aes, Tag: TagSize>(
    cipher: &AesGcm<Aes, U12, Tag>,
    nonce: &[u8; 12],
    aad: &[u8],
    text: &mut [u8],
    icv: &mut [u8],
) -> Result<(), Failed>
where
    Aes: aes::cipher::BlockCipherEncrypt + aes::cipher::BlockSizeUser<BlockSize = U16>,
{
    let tag = cipher
        .encrypt_inout_detached(&Nonce::from(*nonce), aad, InOutBuf::from(text))
        .map_err(|_| Failed)?;
    icv.copy_from_slice(tag.get(..icv.len()).ok_or(Failed)?);
    Ok(())
}

#[inline]
fn open<Aes, Tag: TagSize>(
    cipher: &AesGcm<Aes, U12, Tag>,
    nonce: &[u8; 12],
    aad: &[u8],
    text: &mut [u8],
    icv: &[u8],
) -> Result<(), Failed>
where
    Aes: aes::cipher::BlockCipherEncrypt + aes::cipher::BlockSizeUser<BlockSize = U16>,
{
    let tag = icv.try_into().map_err(|_| Failed)?;
    cipher
        .decrypt_inout_detached(&Nonce::from(*nonce), aad, InOutBuf::from(text), tag)
        .map_err(|_| Failed)
}

impl RustGcm {
    pub(super) fn new(key_len: AesKey, icv: IcvLen, key: &[u8]) -> Result<Self, Failed> {
        Ok(match key_len {
            AesKey::Aes128 => Self::Aes128(Box::new(Tags::new(icv, key)?)),
            AesKey::Aes192 => Self::Aes192(Box::new(Tags::new(icv, key)?)),
            AesKey::Aes256 => Self::Aes256(Box::new(Tags::new(icv, key)?)),
        })
    }

    #[inline]
    pub(super) fn seal(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        icv: &mut [u8],
    ) -> Result<(), Failed> {
        match self {
            Self::Aes128(tags) => tags.seal(nonce, aad, text, icv),
            Self::Aes192(tags) => tags.seal(nonce, aad, text, icv),
            Self::Aes256(tags) => tags.seal(nonce, aad, text, icv),
        }
    }

    #[inline]
    pub(super) fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        icv: &[u8],
    ) -> Result<(), Failed> {
        match self {
            Self::Aes128(tags) => tags.open(nonce, aad, text, icv),
            Self::Aes192(tags) => tags.open(nonce, aad, text, icv),
            Self::Aes256(tags) => tags.open(nonce, aad, text, icv),
        }
    }
}
