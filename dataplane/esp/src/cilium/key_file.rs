//! The file of secret `cilium-ipsec-keys`: one key a line.

use std::fmt;

use zeroize::Zeroizing;

use super::key_index::{KeyIndex, KeyIndexError};
use crate::algorithm::{Aead, AesKey, Algorithm, Hmac, IcvLen};
use crate::key::Secret;

/// A key of the cluster.
#[derive(Debug, Clone)]
pub struct CiliumKey {
    /// Its number, and SPI.
    pub index: KeyIndex,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// What the keys of pairs of nodes are derived from.
    pub secrets: KeySecrets,
}

/// The secrets of a line.
#[derive(Debug, Clone)]
pub enum KeySecrets {
    /// Key and salt of a combined algorithm, in one.
    Aead(Secret),
    /// Integrity key and cipher key, which are derived separately.
    CbcHmac {
        /// Integrity key.
        auth: Secret,
        /// Cipher key.
        cipher: Secret,
    },
}

/// Why a file was refused. Never holds the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {mistake}")]
pub struct KeyFileError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub mistake: Mistake,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum Mistake {
    #[error(
        "{0} fields, expected 4: \"SPI ALGORITHM KEY ICV-BITS\" or \"SPI AUTH-ALGORITHM KEY CIPHER KEY\""
    )]
    Fields(usize),
    #[error("spi: expected a number from 1 to 15, with or without \"+\" behind it")]
    Spi,
    #[error("spi: {0}")]
    Index(#[from] KeyIndexError),
    #[error(
        "algorithm: \"{0}\" is not supported, expected rfc4106(gcm(aes)) or rfc7539esp(chacha20,poly1305)"
    )]
    Aead(String),
    #[error("algorithm: \"{0}\" is not supported, expected hmac(sha256), hmac(sha384) or hmac(sha512)")]
    Auth(String),
    #[error("cipher: \"{0}\" is not supported, expected cbc(aes)")]
    Cipher(String),
    #[error("key: expected an even number of hexadecimal digits, with or without 0x in front")]
    Hex,
    #[error("key: {got} bytes, expected {expected}")]
    KeyLen { got: usize, expected: &'static str },
    #[error("icv: expected 96, 128 or 256 bits")]
    IcvBits,
    #[error("icv: {0} bits are not possible with this algorithm, expected {1}")]
    IcvForAlgorithm(usize, &'static str),
    #[error("spi {0} is there twice")]
    Twice(KeyIndex),
    #[error("no key is in the file")]
    Empty,
}

/// Parses a file. Empty lines are skipped.
pub fn parse_key_file(text: &str) -> Result<Vec<CiliumKey>, KeyFileError> {
    let mut keys: Vec<CiliumKey> = Vec::new();
    for (line, text) in text
        .lines()
        .enumerate()
        .map(|(line, text)| (line + 1, text.trim()))
    {
        if text.is_empty() {
            continue;
        }
        let key = parse_line(text).map_err(|mistake| KeyFileError { line, mistake })?;
        if keys.iter().any(|other| other.index == key.index) {
            let mistake = Mistake::Twice(key.index);
            return Err(KeyFileError { line, mistake });
        }
        keys.push(key);
    }
    if keys.is_empty() {
        let mistake = Mistake::Empty;
        return Err(KeyFileError { line: 1, mistake });
    }
    Ok(keys)
}

fn parse_line(line: &str) -> Result<CiliumKey, Mistake> {
    let fields: Vec<&str> = line.split(' ').collect();
    // A combined algorithm has four fields, the last of them a number; two algorithms make five.
    match fields[..] {
        [spi, algorithm, key, icv] if algorithm.starts_with("rfc") => {
            let key = hex(key)?;
            Ok(CiliumKey {
                index: index(spi)?,
                algorithm: aead(algorithm, key.len(), icv_bits(icv)?)?,
                secrets: KeySecrets::Aead(Secret::new(&key)),
            })
        }
        [_, algorithm, _, _] => Err(Mistake::Aead(short(algorithm))),
        [spi, auth_algorithm, auth, cipher, key] => {
            let (auth, key) = (hex(auth)?, hex(key)?);
            Ok(CiliumKey {
                index: index(spi)?,
                algorithm: cbc_hmac(auth_algorithm, auth.len(), cipher, key.len())?,
                secrets: KeySecrets::CbcHmac {
                    auth: Secret::new(&auth),
                    cipher: Secret::new(&key),
                },
            })
        }
        _ => Err(Mistake::Fields(fields.len())),
    }
}

/// A trailing "+" asked for keys per pair of nodes once; now they always are.
fn index(field: &str) -> Result<KeyIndex, Mistake> {
    let digits = field.strip_suffix('+').unwrap_or(field);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Mistake::Spi);
    }
    let number = digits.parse::<u32>().map_err(|_| Mistake::Spi)?;
    Ok(KeyIndex::new(number)?)
}

fn icv_bits(field: &str) -> Result<usize, Mistake> {
    match field {
        "96" => Ok(96),
        "128" => Ok(128),
        "256" => Ok(256),
        _ => Err(Mistake::IcvBits),
    }
}

/// Decodes; an empty key is written as two quotation marks.
fn hex(field: &str) -> Result<Zeroizing<Vec<u8>>, Mistake> {
    if field == "\"\"" {
        return Ok(Zeroizing::new(Vec::new()));
    }
    let digits = field.strip_prefix("0x").unwrap_or(field).as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() || digits.is_empty() {
        return Err(Mistake::Hex);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(Mistake::Hex);
    let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for [high, low] in pairs {
        bytes.push((digit(*high)? << 4 | digit(*low)?) as u8);
    }
    Ok(bytes)
}

fn aead(name: &str, key_len: usize, icv_bits: usize) -> Result<Algorithm, Mistake> {
    match name {
        "rfc4106(gcm(aes))" => {
            let key = key_len
                .checked_sub(4)
                .and_then(AesKey::from_len)
                .ok_or(Mistake::KeyLen {
                    got: key_len,
                    expected: "20, 28 or 36 with salt",
                })?;
            let icv =
                IcvLen::from_len(icv_bits / 8).ok_or(Mistake::IcvForAlgorithm(icv_bits, "96 or 128"))?;
            Ok(Algorithm::Aead(Aead::AesGcm(key, icv)))
        }
        "rfc7539esp(chacha20,poly1305)" => match (key_len, icv_bits) {
            (36, 128) => Ok(Algorithm::Aead(Aead::ChaCha20Poly1305)),
            (36, _) => Err(Mistake::IcvForAlgorithm(icv_bits, "128")),
            (got, _) => Err(Mistake::KeyLen {
                got,
                expected: "36 with salt",
            }),
        },
        _ => Err(Mistake::Aead(short(name))),
    }
}

fn cbc_hmac(auth: &str, auth_len: usize, cipher: &str, key_len: usize) -> Result<Algorithm, Mistake> {
    if cipher != "cbc(aes)" {
        return Err(Mistake::Cipher(short(cipher)));
    }
    // Linux cuts SHA-256 to 96 bits where no length is given, and Cilium gives none.
    let (hmac, expected) = match auth {
        "hmac(sha256)" => (Hmac::Sha256Icv12, "32 for hmac(sha256)"),
        "hmac(sha384)" => (Hmac::Sha384, "48 for hmac(sha384)"),
        "hmac(sha512)" => (Hmac::Sha512, "64 for hmac(sha512)"),
        _ => return Err(Mistake::Auth(short(auth))),
    };
    if auth_len != hmac.key_len() {
        let got = auth_len;
        return Err(Mistake::KeyLen { got, expected });
    }
    let key = AesKey::from_len(key_len).ok_or(Mistake::KeyLen {
        got: key_len,
        expected: "16, 24 or 32 for cbc(aes)",
    })?;
    Ok(Algorithm::CbcHmac(key, hmac))
}

/// A name for a message: not all of it, in case that somebody put the key in the wrong place.
fn short(name: &str) -> String {
    match name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => "(hexadecimal digits)".to_owned(),
        false => name.chars().take(32).collect(),
    }
}

impl fmt::Display for CiliumKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {} ({})", self.index, self.algorithm)
    }
}

#[cfg(test)]
#[path = "key_file_tests.rs"]
mod tests;
