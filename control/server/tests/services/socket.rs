use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use octoplane_api::v1;
use octoplane_control::{ServeError, Server};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::common::{Lab, server};

#[tokio::test]
async fn the_socket_is_for_owner_and_group() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("deep/er/control.sock");
    let gid = nix::unistd::Gid::current();
    let group = nix::unistd::Group::from_gid(gid).unwrap().map(|group| group.name);
    let bound = Server {
        group,
        ..server(&socket)
    }
    .bind()
    .unwrap();
    let meta = fs::metadata(&socket).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o660);
    assert_eq!(meta.gid(), gid.as_raw());
    assert_eq!(bound.path(), socket);
    drop(bound);
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("control.sock");
    // What a killed daemon leaves behind: a file on which nobody listens.
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    server(&socket).probe().unwrap();
    let bound = server(&socket).bind().unwrap();
    let error = server(&socket).probe().unwrap_err();
    assert!(matches!(error, ServeError::InUse(_)), "{error}");
    assert!(error.to_string().contains("another daemon listens there"));
    assert!(matches!(server(&socket).bind(), Err(ServeError::InUse(_))));
    assert!(socket.exists());
    drop(bound);
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(server(&path).bind(), Err(ServeError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_socket_that_somebody_else_made_is_not_removed() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("control.sock");
    let bound = server(&socket).bind().unwrap();
    // Made before the old one goes, so that it cannot have the old one's number.
    let other = directory.path().join("other.sock");
    let listener = UnixListener::bind(&other).unwrap();
    fs::rename(&other, &socket).unwrap();
    drop(bound);
    assert!(socket.exists());
    drop(listener);
}

#[tokio::test]
async fn an_unknown_group_leaves_nothing_behind() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("control.sock");
    let unknown = Server {
        group: Some("no-such-group-here".into()),
        ..server(&socket)
    };
    let error = unknown.bind().err().unwrap();
    assert_eq!(
        error.to_string(),
        "control.socket_group: there is no group \"no-such-group-here\""
    );
    assert!(!socket.exists());
}

#[tokio::test]
async fn stopping_ends_open_streams_and_removes_the_socket() {
    let lab = Lab::start().await;
    let mut events = lab
        .config()
        .await
        .watch(v1::WatchRequest::default())
        .await
        .unwrap()
        .into_inner();
    let socket = lab.socket.clone();
    // The directory stays for the check.
    let kept = TempDir::new().unwrap();
    let mut lab = lab;
    let directory = std::mem::replace(&mut lab.directory, kept);
    lab.stop().await;
    assert!(directory.path().exists() && !socket.exists());
    let end = tokio::time::timeout(Duration::from_secs(10), events.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(
        (end.code(), end.message()),
        (Code::Unavailable, "the daemon stops")
    );
}
