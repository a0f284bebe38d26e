//! Security associations and policies on disk, keys included: for nobody but the daemon's user to read.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use octoplane_api::v1;
use prost::Message as _;
use zeroize::{Zeroize as _, Zeroizing};

const HEADER: &[u8] = b"octoplane security associations 1\n";

/// A security association as it is kept.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct SavedSa {
    /// As it was programmed, keys included.
    #[prost(message, optional, tag = "1")]
    pub(crate) config: Option<v1::IpsecSaConfig>,
    /// When it was added, in milliseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub(crate) added: u64,
    /// Packets of its lifetime that are used.
    #[prost(uint64, tag = "3")]
    pub(crate) packets: u64,
    /// Bytes of its lifetime that are used.
    #[prost(uint64, tag = "4")]
    pub(crate) bytes: u64,
}

impl std::fmt::Debug for SavedSa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedSa").finish_non_exhaustive()
    }
}

/// Everything.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Saved {
    /// In the order in which they were added.
    #[prost(message, repeated, tag = "1")]
    pub(crate) sas: Vec<SavedSa>,
    /// In no order.
    #[prost(message, repeated, tag = "2")]
    pub(crate) policies: Vec<v1::IpsecSelectorPolicy>,
}

/// Overwrites keys.
pub(crate) fn erase(config: &mut v1::IpsecSaConfig) {
    config.key.zeroize();
    config.auth_key.zeroize();
}

impl Drop for Saved {
    fn drop(&mut self) {
        let configs = self.sas.iter_mut().filter_map(|sa| sa.config.as_mut());
        configs.for_each(erase);
    }
}

fn new_name(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Writes everything to the disk, but not yet in place of what is there.
pub(crate) fn prepare(path: &Path, saved: &Saved) -> io::Result<()> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        HEADER.len() + saved.encoded_len() + 2 * size_of::<u64>(),
    ));
    bytes.extend_from_slice(HEADER);
    bytes.extend_from_slice(&(saved.encoded_len() as u64).to_be_bytes());
    // There is room for it: nothing is moved, and no copy stays behind.
    saved.encode(&mut *bytes).map_err(io::Error::other)?;
    let new = new_name(path);
    // Not one that somebody else has made.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()
}

/// Puts what was prepared in place.
pub(crate) fn commit(path: &Path) -> io::Result<()> {
    fs::rename(new_name(path), path)?;
    match path.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Takes back what was prepared.
pub(crate) fn discard(path: &Path) {
    // If this fails, the next one replaces it.
    let _ = fs::remove_file(new_name(path));
}

/// Reads what is there. Without a file there is nothing.
pub(crate) fn load(path: &Path) -> anyhow::Result<Saved> {
    let bytes = match fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let body = bytes
        .strip_prefix(HEADER)
        .and_then(|rest| rest.split_first_chunk::<8>())
        .filter(|(len, body)| u64::from_be_bytes(**len) == body.len() as u64);
    let Some((_, body)) = body else {
        bail!(
            "{}: it is cut off, or no file of security associations",
            path.display()
        );
    };
    Saved::decode(body).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn nobody_else_can_read_it_and_half_of_it_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sas");
        assert_eq!(load(&path).unwrap(), Saved::default());
        let config = v1::IpsecSaConfig {
            spi: 7,
            key: vec![0x42; 20],
            ..Default::default()
        };
        let saved = Saved {
            sas: vec![SavedSa {
                config: Some(config),
                added: 1,
                packets: 2,
                bytes: 3,
            }],
            policies: vec![],
        };
        assert!(!format!("{saved:?}").contains("66"), "{saved:?}");
        prepare(&path, &saved).unwrap();
        assert!(!path.exists());
        commit(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load(&path).unwrap(), saved);
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(load(&path).is_err(), "{len} bytes");
        }
    }
}
