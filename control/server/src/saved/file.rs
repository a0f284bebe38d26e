//! The database file: opened and checked as a whole, written one transaction at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use octoplane_tables::State;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, StorageError,
    TableDefinition,
};

use super::journal::StateJournal;
use super::record::Writes;
use super::restore::Saved;
use super::rows::Objects;
use super::{SCHEMA, StateError};

/// Name of the file in the state directory.
pub const FILE: &str = "state.redb";
/// A file that is being made. Only once it is whole it gets its name.
const NEW: &str = "state.redb.new";
/// Held by the daemon whose directory it is.
const LOCK: &str = "lock";

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
const SCHEMA_KEY: &str = "schema";
const REVISION_KEY: &str = "revision";

/// Memory for pages that were read or written. The file is read once.
const CACHE: usize = 16 << 20;

/// The file of this daemon; nobody else can open it.
pub struct StateFile {
    path: PathBuf,
    /// `None` after an error: it has to be opened again.
    database: Option<Database>,
    _lock: File,
}

impl StateFile {
    /// Opens the file in a directory, or makes both, and reads all of it.
    ///
    /// # Errors
    /// [`StateError`] if it is not readable as a whole.
    pub fn open(directory: &Path) -> Result<(Self, Saved), StateError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| StateError::Io { path, error }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed(directory))?;
        let lock = lock(directory)?;
        let path = directory.join(FILE);
        let is_there = fs::exists(&path).map_err(failed(&path))?;
        if !is_there {
            make(directory, &path)?;
        }
        let mut file = Self {
            path: path.clone(),
            database: None,
            _lock: lock,
        };
        let saved = file.read()?;
        Ok((file, saved))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps what is programmed from now on. `state` is what [`Saved::restore`] made of the file, and `restored` what it said.
    ///
    /// # Errors
    /// [`io::Error`] if there cannot be a thread for it.
    pub fn journal(self, state: &State, restored: super::Restored) -> io::Result<Arc<StateJournal>> {
        StateJournal::start(self, state, restored)
    }

    /// Writes rows and the revision that they make, all or none, and returns once they are there to stay.
    ///
    /// # Errors
    /// What the database says. The next call tries to open it again.
    pub(super) fn write(&mut self, revision: u64, writes: &Writes) -> Result<(), String> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path).map_err(|error| error.to_string())?,
        };
        write(&database, revision, writes).map_err(|error| error.to_string())?;
        self.database = Some(database);
        Ok(())
    }

    fn read(&mut self) -> Result<Saved, StateError> {
        let corrupt = |why: String| StateError::Corrupt {
            path: self.path.clone(),
            why,
        };
        let database = open(&self.path)?;
        let (schema, revision) = meta(&database).map_err(|error| corrupt(error.to_string()))?;
        match schema {
            Some(SCHEMA) => {}
            Some(found) => {
                return Err(StateError::Version {
                    path: self.path.clone(),
                    found,
                });
            }
            None => return Err(corrupt("it has no schema version".into())),
        }
        let revision = revision.ok_or_else(|| corrupt("it has no revision".into()))?;
        let objects = objects(&database).map_err(corrupt)?;
        self.database = Some(database);
        Ok(Saved::new(self.path.clone(), revision, objects))
    }
}

fn lock(directory: &Path) -> Result<File, StateError> {
    let path = directory.join(LOCK);
    let failed = |error| StateError::Io {
        path: path.clone(),
        error,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Makes an empty file. Whoever dies meanwhile leaves none of this name.
fn make(directory: &Path, path: &Path) -> Result<(), StateError> {
    let new = directory.join(NEW);
    let failed = |error| StateError::Io {
        path: new.clone(),
        error,
    };
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed)?;
    let database = open(&new)?;
    write(&database, 0, &Writes::new()).map_err(|error| failed(io::Error::other(error)))?;
    drop(database);
    fs::rename(&new, path).map_err(failed)?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed)
}

fn open(path: &Path) -> Result<Database, StateError> {
    let opened = Builder::new()
        .set_cache_size(CACHE)
        // Reads all of it, which the daemon does anyway, and finds every byte that is not as it was written.
        .set_check_integrity_on_open(true)
        .create(path);
    opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StateError::InUse(path.to_owned()),
        // What is too short, or no database at all, is told so.
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            StateError::Io {
                path: path.to_owned(),
                error,
            }
        }
        error => StateError::Corrupt {
            path: path.to_owned(),
            why: error.to_string(),
        },
    })
}

fn meta(database: &Database) -> Result<(Option<u64>, Option<u64>), redb::Error> {
    let read = database.begin_read()?;
    let table = match read.open_table(META) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok((None, None)),
        table => table?,
    };
    let value = |key| -> Result<_, StorageError> { Ok(table.get(key)?.map(|value| value.value())) };
    Ok((value(SCHEMA_KEY)?, value(REVISION_KEY)?))
}

fn objects(database: &Database) -> Result<Objects, String> {
    let rows = || -> Result<_, redb::Error> { Ok(database.begin_read()?.open_table(OBJECTS)?) };
    let table = rows().map_err(|error| error.to_string())?;
    let mut objects = Objects::default();
    for row in table.iter().map_err(|error| error.to_string())? {
        let (key, value) = row.map_err(|error| error.to_string())?;
        objects.take(key.value(), value.value())?;
    }
    Ok(objects)
}

fn write(database: &Database, revision: u64, writes: &Writes) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut table = transaction.open_table(OBJECTS)?;
        for (key, value) in writes {
            match value {
                Some(value) => drop(table.insert(key.as_slice(), value.as_slice())?),
                None => drop(table.remove(key.as_slice())?),
            }
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(SCHEMA_KEY, SCHEMA)?;
        meta.insert(REVISION_KEY, revision)?;
    }
    transaction.commit()?;
    Ok(())
}
