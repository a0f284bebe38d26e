//! A session's keys as the libraries want them.

use std::fmt;

use zeroize::zeroize_stack;

use super::Failed;
use super::aws_aead::AwsKey;
use super::cbc_hmac::CbcHmacKey;
use super::library::Library;
use super::plan::{Choice, Plan, class};
use super::ring_aead::RingKey;
use super::rust_gcm::RustGcm;
use crate::algorithm::{Aead, Algorithm};
use crate::key::KeyMaterial;
use crate::provider::Operation;

/// Bytes of stack that expanding keys takes at most, by a wide margin.
const STACK: usize = 16_384;

/// Expanded keys of one session: of the libraries that the plan has in mind for it.
pub struct SoftwareKeys {
    icv_len: usize,
    kind: Kind,
}

enum Kind {
    Aead {
        choice: Choice,
        rust: Option<RustGcm>,
        ring: Option<RingKey>,
        aws: Option<AwsKey>,
    },
    CbcHmac(Box<CbcHmacKey>),
}

impl fmt::Debug for SoftwareKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SoftwareKeys")
    }
}

/// A packet in three pieces: from the ESP header up to the ICV, that is, and the ICV.
fn split(
    packet: &mut [u8],
    esp: usize,
    end: usize,
    icv_len: usize,
) -> Result<(&mut [u8], &mut [u8]), Failed> {
    let packet = packet.get_mut(esp..end + icv_len).ok_or(Failed)?;
    packet
        .split_at_mut_checked(end.checked_sub(esp).ok_or(Failed)?)
        .ok_or(Failed)
}

impl SoftwareKeys {
    /// Expands the keys.
    pub(crate) fn new(
        algorithm: Algorithm,
        operation: Operation,
        keys: &KeyMaterial,
        plan: &Plan,
    ) -> Result<Self, Failed> {
        // What is on the stack is copied into the gaps of what is made there, and nobody erases gaps.
        zeroize_stack::<STACK>();
        let expanded = Self::expand(algorithm, operation, keys, plan);
        zeroize_stack::<STACK>();
        expanded
    }

    #[inline(never)]
    fn expand(
        algorithm: Algorithm,
        operation: Operation,
        keys: &KeyMaterial,
        plan: &Plan,
    ) -> Result<Self, Failed> {
        let icv_len = algorithm.icv_len();
        let kind = match algorithm {
            Algorithm::CbcHmac(key_len, hmac) => {
                Kind::CbcHmac(Box::new(CbcHmacKey::new(operation, key_len, hmac, keys)?))
            }
            Algorithm::Aead(aead) => {
                let choice = plan.choice(aead, operation);
                let key = keys.cipher.expose();
                let rust = match aead {
                    Aead::AesGcm(key_len, icv) if choice.contains(&Library::RustCrypto) => {
                        Some(RustGcm::new(key_len, icv, key)?)
                    }
                    _ => None,
                };
                let ring = match choice.contains(&Library::Ring) && RingKey::supports(aead) {
                    true => Some(RingKey::new(aead, key)?),
                    false => None,
                };
                let aws = match choice.contains(&Library::AwsLc) {
                    true => Some(AwsKey::new(aead, key)?),
                    false => None,
                };
                Kind::Aead {
                    choice,
                    rust,
                    ring,
                    aws,
                }
            }
        };
        Ok(Self { icv_len, kind })
    }

    /// Reads the start of the keys, for their being read.
    #[inline]
    pub(crate) fn read(&self) -> u8 {
        match &self.kind {
            Kind::Aead { choice, ring, .. } => choice[0] as u8 ^ ring.as_ref().map_or(0, RingKey::read),
            Kind::CbcHmac(_) => 0,
        }
    }

    /// Encrypts `packet[text..end]` and writes the ICV behind it. `esp` is where the ESP header starts.
    #[inline]
    #[allow(clippy::too_many_arguments, reason = "what a job consists of")]
    pub(super) fn seal(
        &self,
        nonce: &[u8; 16],
        aad: &[u8],
        esn_high: Option<u32>,
        packet: &mut [u8],
        esp: usize,
        text: usize,
        end: usize,
    ) -> Result<(), Failed> {
        let (head, icv) = split(packet, esp, end, self.icv_len)?;
        let text = text.checked_sub(esp).ok_or(Failed)?;
        match &self.kind {
            Kind::CbcHmac(key) => key.seal(nonce, head, text, esn_high, icv),
            Kind::Aead {
                choice,
                rust,
                ring,
                aws,
            } => {
                let text = head.get_mut(text..).ok_or(Failed)?;
                let nonce = nonce.first_chunk().ok_or(Failed)?;
                match (choice[class(text.len())], rust, ring, aws) {
                    (Library::RustCrypto, Some(key), _, _) => key.seal(nonce, aad, text, icv),
                    (Library::Ring, _, Some(key), _) => key.seal(nonce, aad, text, icv),
                    (Library::AwsLc, _, _, Some(key)) => key.seal(nonce, aad, text, icv),
                    _ => Err(Failed),
                }
            }
        }
    }

    /// Verifies the ICV behind `packet[text..end]` and decrypts. `esp` is where the ESP header starts.
    #[inline]
    #[allow(clippy::too_many_arguments, reason = "what a job consists of")]
    pub(super) fn open(
        &self,
        nonce: &[u8; 16],
        aad: &[u8],
        esn_high: Option<u32>,
        packet: &mut [u8],
        esp: usize,
        text: usize,
        end: usize,
    ) -> Result<(), Failed> {
        match &self.kind {
            Kind::CbcHmac(key) => {
                let (head, icv) = split(packet, esp, end, self.icv_len)?;
                key.open(nonce, head, text.checked_sub(esp).ok_or(Failed)?, esn_high, icv)
            }
            Kind::Aead {
                choice,
                rust,
                ring,
                aws,
            } => {
                let nonce = nonce.first_chunk().ok_or(Failed)?;
                let (text, icv) = split(packet, text, end, self.icv_len)?;
                match (choice[class(text.len())], rust, ring, aws) {
                    (Library::RustCrypto, Some(key), _, _) => key.open(nonce, aad, text, icv),
                    (Library::AwsLc, _, _, Some(key)) => key.open(nonce, aad, text, icv),
                    (Library::Ring, _, Some(key), _) => {
                        let from = end - text.len();
                        let both = packet.get_mut(from..end + self.icv_len).ok_or(Failed)?;
                        key.open(nonce, aad, both)
                    }
                    _ => Err(Failed),
                }
            }
        }
    }
}
