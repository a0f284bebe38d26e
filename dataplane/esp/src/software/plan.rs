//! Which library does packets of which size.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::keys::SoftwareKeys;
use super::library::Library;
use crate::algorithm::{Aead, AesKey, Algorithm, IcvLen};
use crate::key::KeyMaterial;
use crate::provider::Operation;

/// Upper bounds of the size classes, in bytes of ciphertext; the last has none. Each is measured at its bound.
pub const CLASSES: [usize; 6] = [80, 160, 320, 640, 1500, usize::MAX];

/// The size at which the last class is measured.
const LARGEST: usize = 4096;

/// The class of packets of so many bytes of ciphertext.
#[inline(always)]
pub(super) fn class(len: usize) -> usize {
    CLASSES[..CLASSES.len() - 1]
        .iter()
        .map(|bound| usize::from(len > *bound))
        .sum()
}

/// A library for each size class.
pub type Choice = [Library; CLASSES.len()];

/// A choice for each kind of key and each direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    aes128: [Choice; 2],
    aes192: [Choice; 2],
    aes256: [Choice; 2],
    chacha: [Choice; 2],
}

impl Plan {
    /// One library for everything it can do. What it cannot, the others do: ChaCha20-Poly1305 is not RustCrypto's here,
    /// AES-192 not ring's; ICVs of 8 and 12 bytes are verified by RustCrypto whatever the plan.
    pub fn only(library: Library) -> Self {
        let all = |library| [[library; CLASSES.len()]; 2];
        Self {
            aes128: all(library),
            aes192: all(if library == Library::Ring {
                Library::AwsLc
            } else {
                library
            }),
            aes256: all(library),
            chacha: all(if library == Library::RustCrypto {
                Library::AwsLc
            } else {
                library
            }),
        }
    }

    /// Measures what is fastest on this processor. Takes about ten milliseconds in an optimised build.
    pub fn calibrate() -> Self {
        let gcm = |key| Aead::AesGcm(key, IcvLen::Icv16);
        let measure = |aead| {
            [
                measure(aead, Operation::Encrypt),
                measure(aead, Operation::Decrypt),
            ]
        };
        Self {
            aes128: measure(gcm(AesKey::Aes128)),
            aes192: measure(gcm(AesKey::Aes192)),
            aes256: measure(gcm(AesKey::Aes256)),
            chacha: measure(Aead::ChaCha20Poly1305),
        }
    }

    /// The libraries for an algorithm, from the smallest packets to the largest.
    pub fn choice(&self, aead: Aead, operation: Operation) -> Choice {
        let choices = match aead {
            Aead::AesGcm(AesKey::Aes128, _) => &self.aes128,
            Aead::AesGcm(AesKey::Aes192, _) => &self.aes192,
            Aead::AesGcm(AesKey::Aes256, _) => &self.aes256,
            Aead::ChaCha20Poly1305 => &self.chacha,
        };
        let choice = match operation {
            Operation::Encrypt => choices[0],
            Operation::Decrypt => choices[1],
        };
        match (aead, operation) {
            (Aead::AesGcm(_, IcvLen::Icv8 | IcvLen::Icv12), Operation::Decrypt) => {
                [Library::RustCrypto; CLASSES.len()]
            }
            _ => choice,
        }
    }
}

/// Whether the library has the algorithm.
fn has(library: Library, aead: Aead) -> bool {
    !matches!(
        (library, aead),
        (Library::RustCrypto, Aead::ChaCha20Poly1305) | (Library::Ring, Aead::AesGcm(AesKey::Aes192, _))
    )
}

fn measure(aead: Aead, operation: Operation) -> Choice {
    let mut choice = [Library::AwsLc; CLASSES.len()];
    for (class, best) in choice.iter_mut().enumerate() {
        let len = CLASSES[class].min(LARGEST);
        let times = Library::ALL
            .into_iter()
            .filter(|library| has(*library, aead))
            .filter_map(|library| Some((time(library, aead, operation, len)?, library)));
        if let Some((_, library)) = times.min_by_key(|(time, _)| *time) {
            *best = library;
        }
    }
    choice
}

/// The shortest of some rounds of one library.
fn time(library: Library, aead: Aead, operation: Operation, len: usize) -> Option<Duration> {
    const ROUNDS: u32 = 8;
    const PER_ROUND: u32 = 16;
    /// So that a build without optimisation starts in bearable time.
    const BUDGET: Duration = Duration::from_micros(300);

    let algorithm = Algorithm::Aead(aead);
    let material = KeyMaterial::aead(&[0x5a; 36][..algorithm.cipher_key_len() + 4]);
    let plan = Plan::only(library);
    let (nonce, aad) = ([7; 16], [9; 12]);
    // Encrypting what was encrypted takes as long. Decrypting starts from the same packet each time: failing is shorter.
    let sealer = SoftwareKeys::new(algorithm, Operation::Encrypt, &material, &plan).ok()?;
    let mut packet = vec![0x33; len + 16];
    let keys = SoftwareKeys::new(algorithm, operation, &material, &plan).ok()?;
    if operation == Operation::Decrypt {
        sealer.seal(&nonce, &aad, None, &mut packet, 0, 0, len).ok()?;
    }
    let sealed = packet.clone();
    let started = Instant::now();
    let mut shortest = None;
    for _ in 0..ROUNDS {
        let mut spent = Duration::ZERO;
        for _ in 0..PER_ROUND {
            packet.copy_from_slice(&sealed);
            let from = Instant::now();
            match operation {
                Operation::Encrypt => keys.seal(&nonce, &aad, None, black_box(&mut packet), 0, 0, len),
                Operation::Decrypt => keys.open(&nonce, &aad, None, black_box(&mut packet), 0, 0, len),
            }
            .ok()?;
            spent += from.elapsed();
        }
        shortest = Some(shortest.map_or(spent, |best: Duration| best.min(spent)));
        if started.elapsed() > BUDGET {
            break;
        }
    }
    shortest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_end_at_their_bounds() {
        let classes: Vec<usize> = [0, 80, 81, 160, 161, 641, 1500, 1501, 9000]
            .into_iter()
            .map(class)
            .collect();
        assert_eq!(classes, [0, 0, 1, 1, 2, 4, 4, 5, 5]);
    }

    #[test]
    fn nothing_is_given_to_a_library_that_cannot() {
        let calibrated = Plan::calibrate();
        for plan in Library::ALL.map(Plan::only).into_iter().chain([calibrated]) {
            for operation in [Operation::Encrypt, Operation::Decrypt] {
                for key in [AesKey::Aes128, AesKey::Aes192, AesKey::Aes256] {
                    let gcm = Aead::AesGcm(key, IcvLen::Icv16);
                    assert!(
                        plan.choice(gcm, operation)
                            .iter()
                            .all(|library| has(*library, gcm))
                    );
                }
                let chacha = Aead::ChaCha20Poly1305;
                assert!(
                    plan.choice(chacha, operation)
                        .iter()
                        .all(|library| has(*library, chacha))
                );
            }
            for icv in [IcvLen::Icv8, IcvLen::Icv12] {
                let short = Aead::AesGcm(AesKey::Aes256, icv);
                assert_eq!(
                    plan.choice(short, Operation::Decrypt),
                    [Library::RustCrypto; CLASSES.len()]
                );
            }
        }
    }
}
