//! Between the API's messages and the tables' types: whoever takes messages and has tables, over gRPC or not, reads them
//! by the same rules and refuses them with the same words.

#![forbid(unsafe_code)]

mod field;
mod mistake;
mod node;
mod objects;
mod policy;
mod remote;
mod replace;
mod scope;
mod service;
mod transaction;

pub use mistake::{Kind, Located, Mistake, clip};
pub use objects::*;
pub use replace::{changes, changes_in, size};
pub use scope::{Kinds, Scope};
pub use transaction::{Origin, Transaction, steps};
