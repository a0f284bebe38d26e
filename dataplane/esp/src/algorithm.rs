//! What a security association encrypts and authenticates with.

use std::fmt;

/// Length of an AES key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AesKey {
    /// 128 bits.
    Aes128,
    /// 192 bits.
    Aes192,
    /// 256 bits.
    Aes256,
}

impl AesKey {
    /// Bytes of the key.
    pub const fn len(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }

    /// The key length of so many bytes.
    pub const fn from_len(bytes: usize) -> Option<Self> {
        match bytes {
            16 => Some(Self::Aes128),
            24 => Some(Self::Aes192),
            32 => Some(Self::Aes256),
            _ => None,
        }
    }

    /// Never: a key has bytes.
    pub const fn is_empty(self) -> bool {
        false
    }
}

/// Length of the integrity check value of AES-GCM (RFC 4106, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IcvLen {
    /// 8 bytes.
    Icv8,
    /// 12 bytes.
    Icv12,
    /// 16 bytes.
    Icv16,
}

impl IcvLen {
    /// Bytes of the value.
    pub const fn len(self) -> usize {
        match self {
            Self::Icv8 => 8,
            Self::Icv12 => 12,
            Self::Icv16 => 16,
        }
    }

    /// The length of so many bytes.
    pub const fn from_len(bytes: usize) -> Option<Self> {
        match bytes {
            8 => Some(Self::Icv8),
            12 => Some(Self::Icv12),
            16 => Some(Self::Icv16),
            _ => None,
        }
    }

    /// Never.
    pub const fn is_empty(self) -> bool {
        false
    }
}

/// A combined algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aead {
    /// AES-GCM (RFC 4106): 4 bytes of salt, explicit IV of 8 bytes.
    AesGcm(AesKey, IcvLen),
    /// ChaCha20-Poly1305 (RFC 7634): 32 bytes of key, 4 bytes of salt, explicit IV of 8 bytes, ICV of 16.
    ChaCha20Poly1305,
}

/// An HMAC, cut to the ICV's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hmac {
    /// HMAC-SHA-256 cut to 16 bytes (RFC 4868).
    Sha256,
    /// HMAC-SHA-256 cut to 12 bytes: what Linux does with `hmac(sha256)` when it is not told a length.
    Sha256Icv12,
    /// HMAC-SHA-384 cut to 24 bytes (RFC 4868).
    Sha384,
    /// HMAC-SHA-512 cut to 32 bytes (RFC 4868).
    Sha512,
}

impl Hmac {
    /// Bytes of the key: those of the hash's output (RFC 4868, section 2.1.1).
    pub const fn key_len(self) -> usize {
        match self {
            Self::Sha256 | Self::Sha256Icv12 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Bytes of the ICV.
    pub const fn icv_len(self) -> usize {
        match self {
            Self::Sha256Icv12 => 12,
            Self::Sha256 => 16,
            Self::Sha384 => 24,
            Self::Sha512 => 32,
        }
    }
}

/// Everything cryptographic about a security association but the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Encryption and integrity in one.
    Aead(Aead),
    /// AES-CBC (RFC 3602), then HMAC over header, IV and ciphertext (RFC 4868).
    CbcHmac(AesKey, Hmac),
}

impl Algorithm {
    /// Bytes of the IV in the packet, behind the ESP header.
    pub const fn iv_len(self) -> usize {
        match self {
            Self::Aead(_) => 8,
            Self::CbcHmac(..) => 16,
        }
    }

    /// Bytes of [`crate::Job::nonce`] in use: salt and IV for a combined algorithm, the IV for AES-CBC.
    pub const fn nonce_len(self) -> usize {
        match self {
            Self::Aead(_) => 12,
            Self::CbcHmac(..) => 16,
        }
    }

    /// Bytes of the ICV at the packet's end.
    pub const fn icv_len(self) -> usize {
        match self {
            Self::Aead(Aead::AesGcm(_, icv)) => icv.len(),
            Self::Aead(Aead::ChaCha20Poly1305) => 16,
            Self::CbcHmac(_, hmac) => hmac.icv_len(),
        }
    }

    /// What the length of payload, padding and trailer is a multiple of: the block size, at least 4 (RFC 4303, 2.4).
    pub const fn alignment(self) -> usize {
        match self {
            Self::Aead(_) => 4,
            Self::CbcHmac(..) => 16,
        }
    }

    /// Bytes of the encryption key, without the salt.
    pub const fn cipher_key_len(self) -> usize {
        match self {
            Self::Aead(Aead::AesGcm(key, _)) | Self::CbcHmac(key, _) => key.len(),
            Self::Aead(Aead::ChaCha20Poly1305) => 32,
        }
    }

    /// Bytes of the integrity key; 0 for a combined algorithm.
    pub const fn auth_key_len(self) -> usize {
        match self {
            Self::Aead(_) => 0,
            Self::CbcHmac(_, hmac) => hmac.key_len(),
        }
    }

    /// Bytes of the salt; 0 for AES-CBC.
    pub const fn salt_len(self) -> usize {
        match self {
            Self::Aead(_) => 4,
            Self::CbcHmac(..) => 0,
        }
    }

    /// Whether this is a combined algorithm, which takes additional authenticated data.
    pub const fn is_aead(self) -> bool {
        matches!(self, Self::Aead(_))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aead(Aead::AesGcm(key, icv)) => {
                write!(f, "aes-{}-gcm-{}", key.len() * 8, icv.len())
            }
            Self::Aead(Aead::ChaCha20Poly1305) => f.write_str("chacha20-poly1305"),
            Self::CbcHmac(key, hmac) => {
                let hash = match hmac {
                    Hmac::Sha256 | Hmac::Sha256Icv12 => 256,
                    Hmac::Sha384 => 384,
                    Hmac::Sha512 => 512,
                };
                let (bits, icv) = (key.len() * 8, hmac.icv_len() * 8);
                write!(f, "aes-{bits}-cbc-hmac-sha{hash}-{icv}")
            }
        }
    }
}
