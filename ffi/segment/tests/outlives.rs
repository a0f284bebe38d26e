//! What is written is there for the next process; what is not ours is not touched.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use segment::{Directory, SegmentError};

fn place() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        tempfile::tempdir_in(shm).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Run in another process by `a_killed_process_leaves_its_words`.
#[test]
fn child() {
    let Ok(path) = std::env::var("SEGMENT_TEST") else {
        return;
    };
    let directory = Directory::take(Path::new(&path)).unwrap();
    let segment = directory.make("words", 100_000).unwrap();
    assert!(segment.words().len() >= 100_000);
    for (at, word) in segment.words().iter().enumerate().take(100_000) {
        assert_eq!(word.load(Relaxed), 0);
        word.store(at as u64, Relaxed);
    }
    // No destructor runs.
    std::process::abort();
}

#[test]
fn a_killed_process_leaves_its_words() {
    let place = place();
    let path = place.path().join("made");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact"])
        .env("SEGMENT_TEST", &path)
        .output()
        .unwrap()
        .status;
    assert!(!status.success());
    let directory = Directory::take(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(directory.peek("words", 3).unwrap(), [0, 1, 2]);
    assert!(directory.peek("other", 3).unwrap().is_empty());
    let segment = directory.open("words").unwrap();
    let words = segment.words();
    assert_eq!(words.as_ptr().addr() % 64, 0);
    assert!(
        words
            .iter()
            .take(100_000)
            .enumerate()
            .all(|(at, word)| word.load(SeqCst) == at as u64)
    );
    // A new one is empty, whatever was there.
    let segment = directory.make("words", 10).unwrap();
    assert!(segment.words().iter().all(|word| word.load(SeqCst) == 0));
    assert!(segment.words().len() < 100_000);
}

#[test]
fn one_process_at_a_time() {
    let place = place();
    let first = Directory::take(place.path()).unwrap();
    assert!(matches!(
        Directory::take(place.path()),
        Err(SegmentError::InUse(_))
    ));
    drop(first);
    Directory::take(place.path()).unwrap();
}

#[test]
fn what_others_could_write_is_refused() {
    let place = place();
    let directory = Directory::take(place.path()).unwrap();
    let error = directory.open("none").err().unwrap();
    assert!(matches!(error, SegmentError::Io { error, .. } if error.kind() == std::io::ErrorKind::NotFound));
    fs::write(place.path().join("open"), [0; 4096]).unwrap();
    fs::set_permissions(place.path().join("open"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(
        directory.open("open"),
        Err(SegmentError::Foreign { .. })
    ));
    symlink("/etc/passwd", place.path().join("link")).unwrap();
    assert!(directory.open("link").is_err());
    drop(directory);
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        Directory::take(place.path()),
        Err(SegmentError::Foreign { .. })
    ));
}

#[test]
fn too_much_is_refused_and_leaves_nothing() {
    let place = place();
    let directory = Directory::take(place.path()).unwrap();
    // An exbibyte.
    let error = directory.make("huge", 1 << 57).err().unwrap();
    assert!(matches!(error, SegmentError::Io { .. }), "{error}");
    assert!(!place.path().join("huge").exists());
}
