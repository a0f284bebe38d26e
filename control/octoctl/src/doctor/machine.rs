//! The machine as the kernel shows it in files, below a root that may be another directory (in tests).

use std::fs;
use std::path::{Path, PathBuf};

use octoplane_config::CpuSet;

/// A machine.
pub(super) struct Machine {
    root: PathBuf,
}

impl Machine {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Whether it is the one we run on, of which more can be asked than files tell.
    pub(super) fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A path of the machine as one of ours.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        if self.is_this() {
            return path.into();
        }
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(super) fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// A file without the white space around it.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = fs::read_to_string(self.path(path)).ok()?;
        Some(text.trim().to_owned())
    }

    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// Names in a directory, in order; none if there is no such directory.
    pub(super) fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(path)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Last part of what a link points to.
    pub(super) fn link(&self, path: impl AsRef<Path>) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// CPUs in a file such as "0-3,8"; none in an empty one.
    pub(super) fn cpus(&self, path: impl AsRef<Path>) -> Option<CpuSet> {
        let text = self.read(path)?;
        if text.is_empty() {
            return Some(std::iter::empty().collect());
        }
        text.parse().ok()
    }

    pub(super) fn online_cpus(&self) -> Option<CpuSet> {
        self.cpus("/sys/devices/system/cpu/online")
    }

    /// Words of the kernel's command line.
    pub(super) fn command_line(&self) -> Vec<String> {
        let text = self.read("/proc/cmdline").unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// The value of a word KEY=VALUE on the kernel's command line, the last one.
    pub(super) fn boot_option(&self, key: &str) -> Option<String> {
        let words = self.command_line();
        let mut values = words
            .iter()
            .filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        values.next_back().map(str::to_owned)
    }
}

/// CPUs as a list for people.
pub(super) fn cpu_list(cpus: impl IntoIterator<Item = usize>) -> String {
    cpus.into_iter().collect::<CpuSet>().to_string()
}
