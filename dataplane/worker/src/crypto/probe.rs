//! The packet that shows whether a device works: a known answer.

use std::sync::Arc;

use octoplane_esp::{
    Algorithm, Job, JobStatus, KeyMaterial, Operation, Session, SessionError, SessionId, Span,
};
use octoplane_packet::PacketBuf;

use crate::crypto::device::SessionKey;

/// Bytes that are encrypted.
const TEXT: usize = 64;
/// Bytes of the ESP header.
const HEADER: usize = 8;
/// SPI and sequence number of the packet.
const ESP: [u8; HEADER] = [0, 0, 1, 0, 0, 0, 0, 1];

/// A packet, how to encrypt it, and what must come out.
#[derive(Debug)]
pub struct Vector {
    /// Keys and algorithm, for making the device session.
    pub session: Session,
    job: Job<()>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl Vector {
    /// ESP header, IV, 64 bytes (0, 1, 2, …), ICV; `sealed` is what becomes of the last two. `nonce` is as in
    /// [`Job::nonce`].
    ///
    /// # Errors
    /// [`SessionError`]: keys of the wrong length.
    pub fn new(
        algorithm: Algorithm,
        keys: KeyMaterial,
        nonce: [u8; 16],
        sealed: &[u8],
    ) -> Result<Self, SessionError> {
        let id = SessionId {
            index: u32::MAX,
            generation: 0,
        };
        let session = Session::new(id, Operation::Encrypt, algorithm, false, keys)?;
        let iv = nonce
            .get(algorithm.salt_len()..algorithm.nonce_len())
            .unwrap_or_default();
        let head = [&ESP[..], iv].concat();
        let mut aad = [0; 12];
        aad[..HEADER].copy_from_slice(&ESP);
        let job = Job {
            buf: (),
            session: id,
            operation: Operation::Encrypt,
            status: JobStatus::Pending,
            esp: 0,
            cipher: Span {
                offset: head.len() as u16,
                len: TEXT as u16,
            },
            nonce,
            aad,
            esn_high: None,
            sequence: 1,
            esp_state: 0,
            cookie: [0; 3],
        };
        let text: Vec<u8> = (0..TEXT as u8).collect();
        Ok(Self {
            session,
            job,
            plain: [&head[..], &text, &vec![0; algorithm.icv_len()]].concat(),
            sealed: [&head, sealed].concat(),
        })
    }

    /// Those for the device to choose from. Results by OpenSSL.
    ///
    /// # Errors
    /// None: the keys have the right lengths.
    pub fn known() -> Result<Vec<Self>, SessionError> {
        use octoplane_esp::{Aead, AesKey, Hmac, IcvLen};
        let count = |from: u8, n: u8| (from..from + n).collect::<Vec<u8>>();
        let salted = |key: &[u8]| KeyMaterial::aead(&[key, &count(0xa0, 4)].concat());
        let mut nonce = [0; 16];
        nonce[..4].copy_from_slice(&count(0xa0, 4));
        nonce[4..12].copy_from_slice(&count(0xb0, 8));
        let mut iv = [0; 16];
        iv.copy_from_slice(&count(0xb0, 16));
        Ok(vec![
            Self::new(
                Algorithm::Aead(Aead::AesGcm(AesKey::Aes128, IcvLen::Icv16)),
                salted(&count(0, 16)),
                nonce,
                &GCM,
            )?,
            Self::new(
                Algorithm::Aead(Aead::ChaCha20Poly1305),
                salted(&count(0, 32)),
                nonce,
                &CHACHA,
            )?,
            Self::new(
                Algorithm::CbcHmac(AesKey::Aes128, Hmac::Sha256),
                KeyMaterial::cbc_hmac(&count(0, 16), &count(0, 32)),
                iv,
                &CBC,
            )?,
        ])
    }
}

/// A vector, and the device session for it.
#[derive(Debug)]
pub struct Probe<T> {
    pub(crate) vector: Vector,
    pub(crate) session: Arc<T>,
    pub(crate) key: Option<SessionKey>,
}

impl<T> Probe<T> {
    /// `session` was made from [`Vector::session`].
    pub fn new(vector: Vector, session: Arc<T>) -> Self {
        Self {
            vector,
            session,
            key: None,
        }
    }

    pub(crate) fn job(&self) -> &Job<()> {
        &self.vector.job
    }

    /// Writes the packet. `false`: `buf` is too small.
    pub(crate) fn fill<B: PacketBuf>(&self, buf: &mut B) -> bool {
        match buf.append(self.vector.plain.len()) {
            Ok(data) if data.len() == self.vector.plain.len() => {
                data.copy_from_slice(&self.vector.plain);
                true
            }
            _ => false,
        }
    }

    /// Whether this is what should have come out.
    pub(crate) fn is_right<B: PacketBuf>(&self, buf: &B) -> bool {
        buf.data() == self.vector.sealed
    }
}

/// AES-128-GCM.
#[rustfmt::skip]
const GCM: [u8; 80] = [
    0x70, 0xee, 0x20, 0x77, 0x86, 0xda, 0x31, 0x7b, 0x3a, 0xed, 0xfd, 0x84, 0x99, 0xa5, 0xe9, 0xb8,
    0xdb, 0x75, 0x96, 0x86, 0xfa, 0xc2, 0x37, 0x63, 0xdc, 0x5e, 0x6c, 0xbd, 0x31, 0xf5, 0x0f, 0x92,
    0x37, 0x6e, 0x75, 0x01, 0x54, 0x89, 0x19, 0x7e, 0xac, 0x1e, 0x9d, 0xeb, 0xb1, 0x8d, 0xa8, 0xc7,
    0x38, 0x62, 0xea, 0xc5, 0x14, 0xd5, 0xa2, 0x19, 0x97, 0x0b, 0x2f, 0xf8, 0x08, 0xef, 0x0b, 0x26,
    0x87, 0xcf, 0x56, 0x4e, 0x94, 0x76, 0x04, 0xc1, 0xe3, 0x48, 0x00, 0x46, 0x18, 0x67, 0x03, 0x1e,
];

/// ChaCha20-Poly1305.
#[rustfmt::skip]
const CHACHA: [u8; 80] = [
    0x29, 0x9e, 0xa8, 0xc6, 0xdf, 0x79, 0x59, 0x0b, 0x0b, 0x7f, 0xd9, 0x01, 0x74, 0x1a, 0x19, 0xc9,
    0x32, 0xdd, 0x3d, 0xc0, 0x4f, 0x90, 0x75, 0x66, 0x96, 0xe2, 0x2f, 0xfb, 0xe3, 0x41, 0xa0, 0xaf,
    0xe9, 0x70, 0xe6, 0xaa, 0x9b, 0x84, 0x4e, 0x20, 0x2f, 0xa1, 0xbc, 0xe5, 0x8c, 0xda, 0xf3, 0x02,
    0x92, 0x1c, 0xc1, 0xfa, 0x09, 0x39, 0xef, 0x03, 0x2c, 0x02, 0xc8, 0x28, 0xdf, 0xf7, 0x4d, 0xa2,
    0xfb, 0xcb, 0x1e, 0xbf, 0x75, 0xbe, 0x94, 0x84, 0xce, 0x6e, 0x39, 0xf7, 0x60, 0x6b, 0xb9, 0xcd,
];

/// AES-128-CBC with HMAC-SHA-256.
#[rustfmt::skip]
const CBC: [u8; 80] = [
    0x67, 0x89, 0x6c, 0x75, 0xba, 0x00, 0x59, 0x7b, 0xae, 0x47, 0x79, 0x27, 0x0e, 0xf2, 0xb1, 0x08,
    0x11, 0x72, 0x72, 0xd1, 0x7c, 0x78, 0xf4, 0xf7, 0x62, 0x5b, 0x21, 0x05, 0x13, 0xce, 0x89, 0xd9,
    0x5d, 0x01, 0xd0, 0xb2, 0x06, 0x3f, 0xfc, 0xc0, 0x9c, 0xf5, 0xa5, 0xec, 0x93, 0xb3, 0x27, 0x06,
    0x3c, 0x53, 0x09, 0xab, 0x3b, 0xaf, 0x83, 0xcb, 0xa1, 0x38, 0x6e, 0xd2, 0x8a, 0x7b, 0xb8, 0x8f,
    0x55, 0x35, 0x85, 0x63, 0x85, 0xde, 0xca, 0x4d, 0xe0, 0x14, 0x46, 0xf7, 0x36, 0x62, 0x5b, 0xbd,
];
