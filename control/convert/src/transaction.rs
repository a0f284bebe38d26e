//! A transaction: what was asked for, in the tables' terms.

use octoplane_api::v1;
use octoplane_tables::model::Change;
use octoplane_tables::{ApplyError, State};

use crate::mistake::{Located, Mistake};
use crate::objects::change;

/// Where in a request a change comes from: list and position.
pub type Origin = (&'static str, usize);

/// A transaction in the tables' terms.
#[derive(Debug)]
pub struct Transaction {
    /// In the order in which they are applied.
    pub changes: Vec<Change>,
    /// Where they come from: one for each change.
    pub origins: Vec<Origin>,
}

impl Transaction {
    /// What of the request the tables refused. `origins` are those of the transaction.
    pub fn refused(error: &ApplyError, origins: &[Origin]) -> Located {
        let (list, index) = origins
            .get(error.index)
            .copied()
            .unwrap_or(("changes", error.index));
        Mistake::from(&error.error).at(list, index)
    }
}

/// The steps of a client in the tables' terms.
///
/// # Errors
/// What is wrong with the first step that cannot be.
pub fn steps(state: &State, changes: Vec<v1::Change>) -> Result<Transaction, Located> {
    let origins = (0..changes.len()).map(|index| ("changes", index)).collect();
    let changes = changes
        .into_iter()
        .enumerate()
        .map(|(index, step)| change(state, step).map_err(|mistake| mistake.at("changes", index)))
        .collect::<Result<_, _>>()?;
    Ok(Transaction { changes, origins })
}
