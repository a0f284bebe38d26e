//! A file that is not what was written is refused; whatever its bytes are, nothing panics.

use std::fs;
use std::path::Path;

use octoplane_api::v1::change::Change as Step;
use octoplane_control::{STATE_FILE, StateError, StateFile};
use octoplane_tables::Capacity;
use redb::{Database, ReadableDatabase as _, TableDefinition};
use tempfile::TempDir;

use crate::common::{Lab, apply, endpoint, tables};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");

/// A directory with endpoints 1 to 400, which four transactions made.
async fn written() -> TempDir {
    let state = TempDir::new().unwrap();
    let lab = Lab::resume(state.path()).await;
    let mut config = lab.config().await;
    for part in 0..4 {
        let steps = (1..=100).map(|id| Step::PutEndpoint(endpoint(part * 100 + id)));
        config.apply(apply(steps)).await.unwrap();
    }
    lab.stop().await;
    state
}

/// The endpoints and the revision of a file.
fn read(directory: &Path) -> Result<(Vec<u32>, u64), StateError> {
    let (_file, saved) = StateFile::open(directory)?;
    let mut tables = tables(Capacity::default(), &["pod1"]);
    saved.restore(&mut tables)?;
    let state = tables.state();
    Ok((state.endpoints().map(|it| it.id).collect(), state.revision()))
}

#[tokio::test(flavor = "multi_thread")]
async fn other_versions_are_refused() {
    let state = written().await;
    let path = state.path().join(STATE_FILE);
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(META)
        .unwrap()
        .insert("schema", 99)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = read(state.path()).unwrap_err();
    assert!(matches!(error, StateError::Version { found: 99, .. }), "{error}");
    let text = error.to_string();
    for part in [path.to_str().unwrap(), "version 99", "version 1", "Move it away"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_nobody_knows_are_refused() {
    for (key, value, expected) in [
        (&[200_u8, 1][..], &[][..], "unknown kind (200)"),
        (&[1, 0, 0, 0, 9], &[0xff, 0xff], "kind Endpoint cannot be read"),
        (&[9, 0, 0, 0, 9], &[], "a policy that is not there"),
    ] {
        let state = written().await;
        let database = Database::open(state.path().join(STATE_FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction
            .open_table(OBJECTS)
            .unwrap()
            .insert(key, value)
            .unwrap();
        transaction.commit().unwrap();
        drop(database);
        let error = read(state.path()).unwrap_err();
        assert!(matches!(error, StateError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_noticed() {
    let state = written().await;
    let path = state.path().join(STATE_FILE);
    let good = fs::read(&path).unwrap();
    let expected = (Vec::from_iter(1..=400), 4);
    let (mut refused, mut same) = (0, 0);
    // Bytes that mean something, evenly over the file.
    let places: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    for at in places.iter().step_by(1 + places.len() / 400) {
        let mut bad = good.clone();
        bad[*at] ^= 0x41;
        fs::write(&path, &bad).unwrap();
        match read(state.path()) {
            // A page that nothing leads to any more.
            Ok(found) => {
                assert_eq!(found, expected, "byte {at}");
                same += 1;
            }
            Err(error @ StateError::Corrupt { .. }) => {
                assert!(error.to_string().contains("damaged"), "{error}");
                refused += 1;
            }
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    println!("{refused} damaged files refused, {same} read as they were written");
    assert!(refused > 50);
    for length in [0, 1, 64, 4096, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        let error = read(state.path()).unwrap_err();
        assert!(matches!(error, StateError::Corrupt { .. }), "{length}: {error}");
    }
    fs::write(&path, b"not a database").unwrap();
    assert!(matches!(read(state.path()), Err(StateError::Corrupt { .. })));
    fs::write(&path, &good).unwrap();
    assert_eq!(read(state.path()).unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_being_made_is_made_again() {
    let state = TempDir::new().unwrap();
    fs::write(state.path().join("state.redb.new"), b"half of a").unwrap();
    assert_eq!(read(state.path()).unwrap(), (Vec::new(), 0));
    let database = Database::open(state.path().join(STATE_FILE)).unwrap();
    let read = database.begin_read().unwrap();
    let schema = read.open_table(META).unwrap().get("schema").unwrap();
    assert_eq!(schema.map(|it| it.value()), Some(octoplane_control::SCHEMA));
}
