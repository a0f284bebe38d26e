//! `[crypto]`.

use std::time::Duration;

use super::DeviceSpec;

/// Who encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CryptoProvider {
    /// The devices that are listed, as far as they can be used; software for everything else. The default.
    #[default]
    Auto,
    /// Libraries in the daemon only.
    Software,
    /// The devices that are listed; one that cannot be used is an error. Software does what they cannot.
    Cryptodev,
}

impl CryptoProvider {
    /// The word for it in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Software => "software",
            Self::Cryptodev => "cryptodev",
        }
    }
}

/// A library that encrypts in software.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CryptoLibrary {
    /// `aes-gcm` of RustCrypto.
    AesGcm,
    /// `ring`.
    Ring,
    /// `aws-lc-rs`.
    AwsLcRs,
}

impl CryptoLibrary {
    /// The word for it in the file: its crate's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AesGcm => "aes-gcm",
            Self::Ring => "ring",
            Self::AwsLcRs => "aws-lc-rs",
        }
    }
}

/// Encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crypto {
    /// Who encrypts.
    pub provider: CryptoProvider,
    /// Devices, at most [`Crypto::MAX_DEVICES`], none of them twice or a port's. Default: none.
    pub devices: Vec<DeviceSpec>,
    /// Size of each worker's queue of a device: a power of two, 64 to 32768. Default 1024.
    pub queue_depth: u32,
    /// The library that software uses. Default: for each size whichever a measurement at the start finds fastest.
    pub library: Option<CryptoLibrary>,
    /// How long a device that has work may be silent before it is given up, 1 ms to 10 s. Default 10 ms.
    pub timeout: Duration,
    /// How long a device that was given up is left alone at first, 1 ms to 60 s. Default 100 ms.
    pub retry: Duration,
}

impl Crypto {
    /// Most devices: DPDK has no more.
    pub const MAX_DEVICES: usize = 64;
    /// MiB for operations and sessions of each device when the size of memory is chosen by default.
    pub const DEVICE_MB: u32 = 32;
}

impl Default for Crypto {
    fn default() -> Self {
        Self {
            provider: CryptoProvider::Auto,
            devices: Vec::new(),
            queue_depth: 1024,
            library: None,
            timeout: Duration::from_millis(10),
            retry: Duration::from_millis(100),
        }
    }
}
