//! Where attachments are kept: small values by name, each of which is replaced whole or not at all.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Mode of the directory: who has which address is nobody else's business.
const MODE: u32 = 0o700;
/// What a value's file is called until it is whole.
const UNFINISHED: &str = ".new";
/// Held by the process that uses the directory.
const LOCK: &str = ".lock";

/// Why a value could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// What could not be read or written.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another process uses the directory.
    #[error("{0}: another daemon keeps its attachments there")]
    InUse(PathBuf),
    /// A value is not what was written.
    #[error("{name}: cannot be read, move it out of the way if its addresses are not in use: {why}")]
    Damaged {
        /// Name of the value.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Keeps values by name across restarts. Names are file names without leading dot. May be called by many threads at once, but
/// for one name by one at a time.
pub trait AllocationStore: Send + Sync + 'static {
    /// All values.
    ///
    /// # Errors
    /// [`StorageError`]
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, StorageError>;

    /// Keeps a value in place of what was kept under this name. When this returns, it is there after a crash; when it fails or
    /// there is a crash before, the old or the new one is there, whole.
    ///
    /// # Errors
    /// [`StorageError`]
    fn put(&self, name: &str, value: &[u8]) -> Result<(), StorageError>;

    /// Forgets a value; one that is not there is fine.
    ///
    /// # Errors
    /// [`StorageError`]
    fn remove(&self, name: &str) -> Result<(), StorageError>;
}

/// A file for each value in one directory, which is made when it is needed.
pub struct Directory {
    path: PathBuf,
    /// Present once the directory is ours.
    lock: Mutex<Option<File>>,
}

impl Directory {
    /// Nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            lock: Mutex::default(),
        }
    }

    /// Makes sure that nobody else uses the directory, which is there.
    fn claim(&self) -> Result<(), StorageError> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_some() {
            return Ok(());
        }
        let path = self.path.join(LOCK);
        let file = File::create(&path).map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StorageError::InUse(self.path.clone())),
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
        *lock = Some(file);
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(at(&self.path))
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> StorageError {
    move |error| StorageError::Io {
        path: path.into(),
        error,
    }
}

impl AllocationStore for Directory {
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&self.path)(error)),
        };
        self.claim()?;
        let mut values = Vec::new();
        for entry in entries {
            let path = entry.map_err(at(&self.path))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if name.ends_with(UNFINISHED) {
                // Somebody was killed while writing it: it says nothing.
                fs::remove_file(&path).map_err(at(&path))?;
            } else if !name.starts_with('.') {
                values.push((name.to_owned(), fs::read(&path).map_err(at(&path))?));
            }
        }
        Ok(values)
    }

    fn put(&self, name: &str, value: &[u8]) -> Result<(), StorageError> {
        if !self.path.is_dir() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(MODE)
                .create(&self.path)
                .map_err(at(&self.path))?;
            if let Some(parent) = self.path.parent() {
                // Or else the directory itself may be gone after a crash.
                let synced = File::open(parent).and_then(|directory| directory.sync_all());
                synced.map_err(at(parent))?;
            }
        }
        self.claim()?;
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        let path = self.path.join(name);
        let written = File::create(&unfinished)
            .and_then(|mut file| {
                file.write_all(value)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&unfinished, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&unfinished);
            return Err(at(&path)(error));
        }
        self.sync()
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at(&path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_halves_do_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b");
        let store = Directory::new(&path);
        assert!(store.load().unwrap().is_empty());
        assert!(!path.exists(), "made before it is needed");
        store.put("one@eth0", b"1").unwrap();
        store.put("one@eth0", b"2").unwrap();
        store.put("two@eth0", b"3").unwrap();
        store.remove("two@eth0").unwrap();
        store.remove("two@eth0").unwrap();
        // Killed between writing and renaming.
        fs::write(path.join("three@eth0.new"), b"ha").unwrap();
        drop(store);
        let store = Directory::new(&path);
        assert_eq!(store.load().unwrap(), [("one@eth0".to_owned(), b"2".to_vec())]);
        assert!(!path.join("three@eth0.new").exists());
        let second = Directory::new(&path).load();
        assert!(matches!(second, Err(StorageError::InUse(_))), "{second:?}");
    }

    #[test]
    fn what_cannot_be_written_is_named_and_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let store = Directory::new(place.path());
        // A directory cannot be replaced by a file.
        fs::create_dir(place.path().join("one")).unwrap();
        let error = store.put("one", b"1").unwrap_err().to_string();
        assert!(error.contains("/one: "), "{error}");
        assert!(!place.path().join("one.new").exists());
        let blocked = Directory::new("/proc/nosuch/attachments");
        assert!(blocked.put("one", b"1").is_err());
    }
}
