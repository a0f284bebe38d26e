//! Memory that outlives its process: words in a file on tmpfs or hugetlbfs.

#![allow(unsafe_code, reason = "the mapping; nobody else has to")]

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::fcntl::{OFlag, posix_fallocate};
use nix::sys::statfs::fstatfs;
use nix::unistd::geteuid;

/// Held by the process whose segments these are.
const LOCK: &str = "lock";

/// Why there is no segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another process has it.
    #[error("{0}: another process has its memory there")]
    InUse(PathBuf),
    /// Somebody else could write it or shorten it.
    #[error("{path}: {why}")]
    Foreign {
        /// File or directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> SegmentError {
    move |error| SegmentError::Io {
        path: path.to_owned(),
        error,
    }
}

/// A directory of segments that belongs to this process as long as this lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory if it is missing, and takes it.
    ///
    /// # Errors
    /// [`SegmentError`]
    pub fn take(path: &Path) -> Result<Self, SegmentError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(at(path))?;
        let meta = fs::symlink_metadata(path).map_err(at(path))?;
        let foreign = |why| SegmentError::Foreign {
            path: path.to_owned(),
            why,
        };
        if !meta.is_dir() || meta.uid() != geteuid().as_raw() {
            return Err(foreign("it is not a directory of this user"));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(foreign("others may write to it"));
        }
        let lock = path.join(LOCK);
        let file = options(true).open(&lock).map_err(at(&lock))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SegmentError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(at(&lock)(error)),
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: file,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first words of a segment, without having it; fewer if it is shorter, and none if there is none. What is not to be
    /// used should not be opened: its memory would be held as long as this process lives.
    ///
    /// # Errors
    /// [`SegmentError`]
    pub fn peek(&self, name: &str, words: usize) -> Result<Vec<u64>, SegmentError> {
        let path = self.path.join(name);
        let file = match self.file(name) {
            Err(SegmentError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(words as u64 * 8)
            .read_to_end(&mut bytes)
            .map_err(at(&path))?;
        let (words, _) = bytes.as_chunks();
        Ok(words.iter().map(|word| u64::from_ne_bytes(*word)).collect())
    }

    /// A segment that is there.
    ///
    /// # Errors
    /// [`SegmentError`]; [`io::ErrorKind::NotFound`] within it if there is none.
    pub fn open(&self, name: &str) -> Result<Segment, SegmentError> {
        let path = self.path.join(name);
        let file = self.file(name)?;
        let length = file.metadata().map_err(at(&path))?.len();
        map(&path, &file, length)
    }

    fn file(&self, name: &str) -> Result<File, SegmentError> {
        let path = self.path.join(name);
        let file = options(false).open(&path).map_err(at(&path))?;
        let meta = file.metadata().map_err(at(&path))?;
        if !meta.is_file() || meta.uid() != geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return Err(SegmentError::Foreign {
                path,
                why: "it is not a file that only this user may write",
            });
        }
        Ok(file)
    }

    /// A segment of so many words, all 0, in place of one that may be there.
    ///
    /// # Errors
    /// [`SegmentError`], if there is not enough memory, too.
    pub fn make(&self, name: &str, words: usize) -> Result<Segment, SegmentError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
            _ => {}
        }
        let file = options(true).create_new(true).open(&path).map_err(at(&path))?;
        let reserved = reserve(&file, words);
        let mapped = reserved
            .map_err(at(&path))
            .and_then(|bytes| map(&path, &file, bytes));
        if mapped.is_err() {
            // Or it would keep the memory that it has.
            let _ = fs::remove_file(&path);
        }
        mapped
    }
}

fn options(create: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(create)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits());
    options
}

/// Gives the file its length in whole pages of its file system, and the memory for it.
fn reserve(file: &File, words: usize) -> io::Result<u64> {
    let page = fstatfs(file)?.block_size();
    let page = u64::try_from(page).unwrap_or(4096).max(4096);
    let bytes = (words as u64 * 8).max(1).next_multiple_of(page);
    let length = i64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    posix_fallocate(file, 0, length)?;
    Ok(bytes)
}

fn map(path: &Path, file: &File, bytes: u64) -> Result<Segment, SegmentError> {
    let length = usize::try_from(bytes).unwrap_or(usize::MAX) / 8 * 8;
    if length == 0 {
        return Ok(Segment { words: &[] });
    }
    // The page tables are filled at once: the first packets of each connection would wait for them otherwise.
    let memory: MmapRaw = MmapOptions::new()
        .len(length)
        .populate()
        .map_raw(file)
        .map_err(at(path))?;
    // Connections are all over their table: with small pages each lookup would miss the TLB. Files have large ones where the
    // system is told so (/sys/kernel/mm/transparent_hugepage/shmem_enabled), or on hugetlbfs.
    let _ = memory.advise(Advice::HugePage);
    let start = memory.as_mut_ptr().cast::<AtomicU64>();
    // Mapped until the process ends: threads that nobody waits for may look at it.
    std::mem::forget(memory);
    // SAFETY: the mapping begins at a page boundary, has this many bytes, and is never undone. Any bits are a valid AtomicU64.
    // Nothing else refers to it in this process but as atomics; another process that maps it has been ended, or may write what
    // it likes. The file is not shortened: it belongs to this user, and whoever takes the directory holds its lock.
    let words = unsafe { std::slice::from_raw_parts(start.cast_const(), length / 8) };
    Ok(Segment { words })
}

/// Words that are there after the process, too, until the machine is started again.
#[derive(Clone, Copy)]
pub struct Segment {
    words: &'static [AtomicU64],
}

impl Segment {
    /// All of them; at least as many as were asked for, and beginning where a cache line does.
    #[must_use]
    pub fn words(&self) -> &'static [AtomicU64] {
        self.words
    }
}
