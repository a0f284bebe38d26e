//! Versions of the specification.

use std::fmt;

use super::{CniError, Code};

/// A version that this plugin speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

/// All of them, from the oldest on. 0.3.0 has the same forms as 0.3.1 and is left out, as it had been withdrawn at once.
pub(crate) const SUPPORTED: [Version; 4] =
    [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];

impl Version {
    fn text(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version that a configuration asks for.
    pub(crate) fn parse(text: &str) -> Result<Self, CniError> {
        SUPPORTED
            .into_iter()
            .find(|version| version.text() == text)
            .ok_or_else(|| {
                let known: Vec<_> = SUPPORTED.iter().map(ToString::to_string).collect();
                CniError::new(
                    Code::Version,
                    format!(
                        "cniVersion: \"{text}\" is not spoken, expected one of {}",
                        known.join(", ")
                    ),
                )
            })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
