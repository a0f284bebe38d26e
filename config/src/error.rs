//! What is said about a file that is not a configuration.

use std::fmt;
use std::io;

/// Why a configuration was refused. Displays one line per mistake, in the order of the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigErrors {
    /// The file could not be read.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The file as it was named.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file has mistakes, all of which are listed.
    #[error("{}", Lines { file, mistakes })]
    Invalid {
        /// The file as it was named.
        file: String,
        /// At least one mistake, by line.
        mistakes: Vec<Mistake>,
    },
}

impl ConfigErrors {
    /// The mistakes, of which an unreadable file has none.
    pub fn mistakes(&self) -> &[Mistake] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid { mistakes, .. } => mistakes,
        }
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1. Of a key that is missing: the line of its section's header.
    pub line: usize,
    /// Path of the key, for example `ports[1].mtu`; list items count from 0. Empty where the text is not TOML.
    pub key: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

struct Lines<'a> {
    file: &'a str,
    mistakes: &'a [Mistake],
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.mistakes.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{mistake}", self.file)?;
        }
        Ok(())
    }
}
