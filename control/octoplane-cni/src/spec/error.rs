//! What a plugin says when it fails (specification, "Error").

use std::fmt;
use std::io;

use serde::Serialize;

/// Numbers of errors: those below 100 are the specification's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The version is not spoken.
    Version = 1,
    /// A key of the configuration asks for what is not there.
    Unsupported = 2,
    /// Nothing is known of the container.
    UnknownContainer = 3,
    /// A variable of the environment is missing or wrong.
    Environment = 4,
    /// The operating system refused.
    Io = 5,
    /// The input is not JSON.
    Decode = 6,
    /// The configuration is wrong.
    Conf = 7,
    /// It may be better later.
    TryAgain = 11,
    /// STATUS: pods cannot be added.
    NotAvailable = 50,
    /// The daemon refused.
    Daemon = 100,
    /// The kernel refused.
    Kernel = 101,
    /// CHECK: a pod is not as it should be.
    Broken = 102,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CniError {
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) details: String,
}

impl CniError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code: code as u32,
            message: message.into(),
            details: String::new(),
        }
    }

    /// Says what was being done.
    pub(crate) fn during(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Adds to what happened.
    pub(crate) fn and(mut self, details: impl fmt::Display) -> Self {
        if !self.details.is_empty() {
            self.details.push_str("; ");
        }
        self.details.push_str(&details.to_string());
        self
    }

    /// As it is printed.
    pub(crate) fn to_json(&self, version: &str) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Printed<'a> {
            cni_version: &'a str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let printed = Printed {
            cni_version: version,
            code: self.code,
            msg: &self.message,
            details: &self.details,
        };
        serde_json::to_string_pretty(&printed).unwrap_or_else(|_| self.message.clone())
    }
}

impl From<io::Error> for CniError {
    fn from(error: io::Error) -> Self {
        Self::new(Code::Io, error.to_string())
    }
}
