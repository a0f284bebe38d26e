//! Work in another network namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::os::unix::fs::MetadataExt as _;

use nix::sched::{CloneFlags, setns};

use crate::spec::{CniError, Code};

/// The namespace of this thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace that is held open.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    path: String,
}

impl Netns {
    /// Opens one by its path. `None` if it is gone.
    pub(crate) fn open(path: &str) -> Result<Option<Self>, CniError> {
        let wrong =
            |error: io::Error| CniError::new(Code::Environment, format!("CNI_NETNS: {path}: {error}"));
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error)),
        };
        let id = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
        let (other, own) = (id(&file).map_err(wrong)?, id(&File::open(OWN)?)?);
        if other == own {
            return Err(CniError::new(
                Code::Environment,
                format!("CNI_NETNS: {path} is the namespace of the plugin itself"),
            ));
        }
        if other.0 != own.0 {
            // A file that was a namespace once, or that somebody made in its place: nothing lives there.
            return Ok(None);
        }
        Ok(Some(Self {
            file,
            path: path.to_owned(),
        }))
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Does something inside, on a thread and a runtime of its own, which then end.
    pub(crate) fn run<T: Send>(
        &self,
        work: impl AsyncFnOnce() -> Result<T, CniError> + Send,
    ) -> Result<T, CniError> {
        let inside = || {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                .map_err(|error| CniError::new(Code::Kernel, format!("CNI_NETNS: {}: {error}", self.path)))?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(work())
        };
        let result = std::thread::scope(|scope| scope.spawn(inside).join());
        result.unwrap_or_else(|_| {
            Err(CniError::new(
                Code::Kernel,
                "the thread in the namespace panicked",
            ))
        })
    }
}
