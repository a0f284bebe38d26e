//! Numbers in a file that is replaced as a whole.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{RecordKey, RecordKind, SequenceStore, StoreError, raise};
use crate::key::Fingerprint;

/// Most records. The file then has about 60 MB.
const MAX_RECORDS: usize = 1_048_576;

const HEADER: &str = "octoplane sequence numbers 1";

/// Keeps numbers in a text file: a header, a line for each record (fingerprint, `out` or `in`, number), and a last line with
/// the number of records, which tells whether all of it is there. A change writes a new file, has it on disk, and puts it in
/// the place of the old one.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    records: HashMap<RecordKey, u64>,
    /// Held as long as the store lives.
    _lock: File,
}

impl FileStore {
    /// Opens the file, or makes a new one. The folder has to be there. A file that makes no sense is an error, not a new
    /// start: nonces would be used again.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let lock_path = path.with_extension("lock");
        let lock = create(&lock_path).map_err(|error| failed(&lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(StoreError::Locked {
                    path: path.to_owned(),
                });
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(&lock_path, error)),
        }
        let records = match fs::read_to_string(path) {
            Ok(text) => parse(path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashMap::new(),
            Err(error) => return Err(failed(path, error)),
        };
        Ok(Self {
            path: path.to_owned(),
            records,
            _lock: lock,
        })
    }

    /// Records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn failed(path: &Path, error: io::Error) -> StoreError {
    StoreError::Io {
        path: path.to_owned(),
        error,
    }
}

fn parse(path: &Path, text: &str) -> Result<HashMap<RecordKey, u64>, StoreError> {
    let corrupt = |line, what| StoreError::Corrupt {
        path: path.to_owned(),
        line,
        what,
    };
    let lines: Vec<&str> = text.lines().collect();
    let [first, records @ .., last] = &lines[..] else {
        return Err(corrupt(1, "it is cut off"));
    };
    if *first != HEADER {
        return Err(corrupt(1, "it is not a file of sequence numbers"));
    }
    if *last != format!("end {}", records.len()) || !text.ends_with('\n') {
        return Err(corrupt(lines.len(), "it is cut off"));
    }
    let mut map = HashMap::with_capacity(records.len());
    for (index, record) in records.iter().enumerate() {
        let (key, number) = parse_record(record).ok_or_else(|| corrupt(index + 2, "it is not a record"))?;
        map.insert(key, number);
    }
    Ok(map)
}

fn parse_record(line: &str) -> Option<(RecordKey, u64)> {
    let mut fields = line.split(' ');
    let (fingerprint, kind, number) = (fields.next()?, fields.next()?, fields.next()?);
    let mut bytes = [0; 16];
    let (pairs, rest) = fingerprint.as_bytes().as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() || fields.next().is_some() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    let kind = match kind {
        "out" => RecordKind::Outbound,
        "in" => RecordKind::Inbound,
        _ => return None,
    };
    let key = RecordKey {
        fingerprint: Fingerprint::from_bytes(bytes),
        kind,
    };
    Some((key, number.parse().ok()?))
}

/// Writes a file that is on disk when this returns.
fn write(path: &Path, records: &HashMap<RecordKey, u64>) -> io::Result<()> {
    let mut out = BufWriter::new(create(path)?);
    writeln!(out, "{HEADER}")?;
    for (key, number) in records {
        let kind = match key.kind {
            RecordKind::Outbound => "out",
            RecordKind::Inbound => "in",
        };
        writeln!(out, "{} {kind} {number}", key.fingerprint)?;
    }
    writeln!(out, "end {}", records.len())?;
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()
}

impl SequenceStore for FileStore {
    fn get(&self, key: RecordKey) -> Option<u64> {
        self.records.get(&key).copied()
    }

    fn put(&mut self, records: &[(RecordKey, u64)]) -> Result<(), StoreError> {
        let mut all = self.records.clone();
        raise(&mut all, records);
        if all.len() > MAX_RECORDS {
            return Err(StoreError::Full(MAX_RECORDS));
        }
        let new = self.path.with_extension("new");
        write(&new, &all).map_err(|error| failed(&new, error))?;
        fs::rename(&new, &self.path).map_err(|error| failed(&self.path, error))?;
        // The new name has to be on disk, too.
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| failed(folder, error))?;
        self.records = all;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8, kind: RecordKind) -> RecordKey {
        RecordKey {
            fingerprint: Fingerprint::from_bytes([byte; 16]),
            kind,
        }
    }

    #[test]
    fn numbers_survive_and_only_grow() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sequence");
        let (out, inbound) = (key(0xa1, RecordKind::Outbound), key(0xa1, RecordKind::Inbound));
        let mut store = FileStore::open(&path).unwrap();
        assert_eq!(store.get(out), None);
        store.put(&[(out, 100), (inbound, u64::MAX)]).unwrap();
        store.put(&[(out, 50)]).unwrap();
        assert_eq!(store.get(out), Some(100));
        drop(store);
        let store = FileStore::open(&path).unwrap();
        assert_eq!((store.get(out), store.get(inbound)), (Some(100), Some(u64::MAX)));
        assert_eq!(store.len(), 2);
        let error = FileStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    }

    #[test]
    fn a_file_that_is_cut_off_or_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sequence");
        let mut store = FileStore::open(&path).unwrap();
        store
            .put(&[
                (key(1, RecordKind::Outbound), 7),
                (key(2, RecordKind::Outbound), 8),
            ])
            .unwrap();
        drop(store);
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let error = FileStore::open(&path).unwrap_err();
            assert!(
                matches!(error, StoreError::Corrupt { .. }),
                "{len} bytes: {error}"
            );
        }
        let text = String::from_utf8(whole).unwrap().replace(" out ", " off ");
        fs::write(&path, text).unwrap();
        let error = FileStore::open(&path).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn what_cannot_be_written_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sequence");
        let out = key(1, RecordKind::Outbound);
        let mut store = FileStore::open(&path).unwrap();
        store.put(&[(out, 7)]).unwrap();
        // A folder stands where the new file is to be written.
        fs::create_dir(path.with_extension("new")).unwrap();
        assert!(matches!(store.put(&[(out, 9)]), Err(StoreError::Io { .. })));
        assert_eq!(store.get(out), Some(7));
    }
}
