//! The keys of the cluster: read from the file, and kept for a while after others took their place.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use octoplane_esp::cilium::{CiliumKey, KeyIndex, KeySecrets, parse_key_file};
use octoplane_esp::view::MAX_KEYS;
use zeroize::Zeroizing;

/// How long until a file is read again that could not be taken over as things were, in nanoseconds.
const AGAIN: u64 = 1_000_000_000;

/// A key, and since when another one has been in its place, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) key: CiliumKey,
    pub(crate) replaced: Option<u64>,
}

/// Why the file was not taken over.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub(crate) enum KeysError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{path}: {error}")]
    File {
        path: PathBuf,
        error: octoplane_esp::cilium::KeyFileError,
    },
    #[error("key {0} is another one than before: a new key needs a new number")]
    SameNumber(KeyIndex),
    #[error("key {0} is of another length than the one before")]
    Length(KeyIndex),
    #[error(
        "{0} keys would be in use at a time, at most {MAX_KEYS} can be: wait until older ones are removed"
    )]
    TooMany(usize),
}

/// What tells one version of the file from another.
type Version = (u64, u64, i64, i64, u64);

fn version(meta: &Metadata) -> Version {
    (
        meta.dev(),
        meta.ino(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.len(),
    )
}

/// The keys.
#[derive(Debug)]
pub(crate) struct Keys {
    path: PathBuf,
    keep: Duration,
    /// By age, the one that is announced last.
    held: Vec<Held>,
    seen: Option<Version>,
    /// When the file that was seen is read.
    due: Option<u64>,
    pub(crate) error: Option<String>,
}

fn read(path: &Path) -> Result<Vec<CiliumKey>, KeysError> {
    let text = fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| KeysError::Io {
            path: path.into(),
            error,
        })?;
    parse_key_file(&text).map_err(|error| KeysError::File {
        path: path.into(),
        error,
    })
}

fn lens(key: &CiliumKey) -> (usize, usize) {
    match &key.secrets {
        KeySecrets::Aead(secret) => (secret.len(), 0),
        KeySecrets::CbcHmac { auth, cipher } => (cipher.len(), auth.len()),
    }
}

fn same(one: &CiliumKey, other: &CiliumKey) -> bool {
    one.algorithm == other.algorithm
        && match (&one.secrets, &other.secrets) {
            (KeySecrets::Aead(one), KeySecrets::Aead(other)) => one.expose() == other.expose(),
            (
                KeySecrets::CbcHmac { auth, cipher },
                KeySecrets::CbcHmac {
                    auth: auth2,
                    cipher: cipher2,
                },
            ) => auth.expose() == auth2.expose() && cipher.expose() == cipher2.expose(),
            _ => false,
        }
}

impl Keys {
    /// Reads the file for the first time.
    pub(crate) fn open(path: &Path, keep: Duration) -> Result<Self, KeysError> {
        let seen = fs::metadata(path).ok().map(|meta| version(&meta));
        let keys = read(path)?;
        if keys.len() > MAX_KEYS {
            return Err(KeysError::TooMany(keys.len()));
        }
        Ok(Self {
            path: path.into(),
            keep,
            held: keys.into_iter().map(|key| Held { key, replaced: None }).collect(),
            seen,
            due: None,
            error: None,
        })
    }

    /// None, for good.
    pub(crate) fn none() -> Self {
        Self {
            path: PathBuf::new(),
            keep: Duration::ZERO,
            held: Vec::new(),
            seen: None,
            due: None,
            error: None,
        }
    }

    /// The keys that are in use, the one that is announced last.
    pub(crate) fn held(&self) -> &[Held] {
        &self.held
    }

    /// The one that is announced.
    pub(crate) fn announced(&self) -> Option<KeyIndex> {
        self.held.last().map(|held| held.key.index)
    }

    /// When a key goes, in nanoseconds.
    pub(crate) fn ends(&self, held: &Held) -> Option<u64> {
        let keep = u64::try_from(self.keep.as_nanos()).unwrap_or(u64::MAX);
        held.replaced.map(|since| since.saturating_add(keep))
    }

    /// Looks whether the file is another one, and reads it when it is time: not all nodes at once (section 1.9). `None` if
    /// it was not read, else whether keys came or went. `random` is any number.
    pub(crate) fn look(&mut self, now: u64, random: u64) -> Result<Option<bool>, KeysError> {
        if self.path.as_os_str().is_empty() {
            return Ok(None);
        }
        let meta = fs::metadata(&self.path).map_err(|error| KeysError::Io {
            path: self.path.clone(),
            error,
        })?;
        if self.seen != Some(version(&meta)) {
            self.seen = Some(version(&meta));
            let spread = u64::try_from(self.keep.as_nanos() / 10)
                .unwrap_or(u64::MAX)
                .max(1);
            self.due = Some(now.saturating_add(random % spread));
        }
        if self.due.is_none_or(|due| now < due) {
            return Ok(None);
        }
        self.due = None;
        let taken = read(&self.path).and_then(|keys| self.take(now, keys));
        if let Err(KeysError::Io { .. } | KeysError::TooMany(_)) = taken {
            // Neither needs another file to be mended.
            self.due = Some(now.saturating_add(AGAIN));
        }
        taken.map(Some)
    }

    /// Removes keys whose time is over. Says whether there were any.
    pub(crate) fn retire(&mut self, now: u64) -> bool {
        let before = self.held.len();
        let ends: Vec<_> = self.held.iter().map(|held| self.ends(held)).collect();
        let mut ends = ends.into_iter();
        self.held
            .retain(|_| ends.next().flatten().is_none_or(|end| now < end));
        self.held.len() != before
    }

    fn take(&mut self, now: u64, keys: Vec<CiliumKey>) -> Result<bool, KeysError> {
        for key in &keys {
            if let Some(old) = self.held.iter().find(|held| held.key.index == key.index)
                && !same(&old.key, key)
            {
                return Err(KeysError::SameNumber(key.index));
            }
        }
        if let (Some(new), Some(old)) = (keys.last(), self.held.last())
            && lens(new) != lens(&old.key)
        {
            return Err(KeysError::Length(new.index));
        }
        let stays = |held: &Held| keys.iter().any(|key| key.index == held.key.index);
        let count = keys.len() + self.held.iter().filter(|held| !stays(held)).count();
        if count > MAX_KEYS {
            return Err(KeysError::TooMany(count));
        }
        let before: Vec<_> = self.held.iter().map(|held| held.key.index).collect();
        let mut next: Vec<Held> = Vec::new();
        for held in self.held.drain(..) {
            if !keys.iter().any(|key| key.index == held.key.index) {
                next.push(Held {
                    replaced: held.replaced.or(Some(now)),
                    ..held
                });
            }
        }
        next.extend(keys.into_iter().map(|key| Held { key, replaced: None }));
        self.held = next;
        Ok(before != self.held.iter().map(|held| held.key.index).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A file with keys of these numbers; of another length than others, because clocks of file systems are coarse.
    fn write(path: &Path, numbers: std::ops::RangeInclusive<u8>) {
        let line = |number| format!("{number}+ rfc4106(gcm(aes)) {} 128\n", "0a".repeat(20));
        let length = "\n".repeat((*numbers.start()).into());
        fs::write(path, numbers.map(line).collect::<String>() + &length).unwrap();
    }

    fn announced(keys: &Keys) -> u8 {
        keys.announced().unwrap().get()
    }

    #[test]
    fn a_key_that_finds_no_room_is_taken_once_there_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let most = u8::try_from(MAX_KEYS).unwrap();
        write(&path, 1..=most);
        let mut keys = Keys::open(&path, Duration::from_secs(10)).unwrap();
        write(&path, 2..=most + 1);
        let later = 5 * SECOND;
        assert!(matches!(keys.look(0, 0), Err(KeysError::TooMany(_))));
        // Removed by hand, and the older ones' time is not over.
        assert!(matches!(keys.look(later, 0), Err(KeysError::TooMany(_))));
        keys.held.retain(|held| held.key.index.get() != 1);
        assert!(keys.look(2 * later, 0).unwrap().unwrap());
        assert_eq!(announced(&keys), most + 1);
        assert!(keys.look(3 * later, 0).unwrap().is_none());
    }

    #[test]
    fn without_a_file_there_is_nothing_to_look_at() {
        assert!(Keys::none().look(1, 0).unwrap().is_none());
    }
}
