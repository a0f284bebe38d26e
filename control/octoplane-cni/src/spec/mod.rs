//! The CNI specification (version 1.1.0 and those before it from 0.3.1): what a plugin is given, and what it answers.

mod conf;
mod env;
mod error;
mod result;
mod version;

pub(crate) use conf::{Attachment, NetConf};
pub(crate) use env::{Command, Environment};
pub(crate) use error::{CniError, Code};
pub(crate) use result::{CniResult, Interface, Ip, Route};
pub(crate) use version::{SUPPORTED, Version};
