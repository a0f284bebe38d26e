//! Authentications.

use crate::error::ChangeError;
use crate::model::{AuthKey, Authentication, MAX_IDENTITY};
use crate::state::State;
use crate::store::Capacity;
use crate::validate::policy::MAX_AUTH_TYPE;
use crate::validate::{field, unusable};

impl State {
    pub(super) fn put_authentication(
        &mut self,
        it: Authentication,
        capacity: &Capacity,
    ) -> Result<(), ChangeError> {
        let key = it.key;
        let refuse = |name: &str, why: String| Err(field(object(&key), name, why));
        for (name, identity) in [
            ("local_identity", key.local_identity),
            ("remote_identity", key.remote_identity),
        ] {
            if !(1..=MAX_IDENTITY).contains(&identity) {
                return refuse(
                    name,
                    format!("{identity} is out of range, expected 1 to {MAX_IDENTITY}"),
                );
            }
        }
        if !(1..=MAX_AUTH_TYPE).contains(&key.auth_type) {
            return refuse(
                "auth_type",
                format!("{} is out of range, expected 1 to {MAX_AUTH_TYPE}", key.auth_type),
            );
        }
        if let Some(addr) = key.remote_node
            && let Some(why) = unusable(addr)
        {
            return refuse(
                "remote_node",
                format!("{addr} is not the address of a node: {why}"),
            );
        }
        if !self.authentications.contains_key(&key) && self.authentications.len() >= capacity.authentications
        {
            return Err(ChangeError::TableFull {
                table: "authentications",
                size: capacity.authentications,
            });
        }
        self.authentications.insert(key, it);
        Ok(())
    }

    pub(super) fn remove_authentication(&mut self, key: &AuthKey) -> Result<(), ChangeError> {
        let gone = self.authentications.remove(key);
        gone.map(drop)
            .ok_or_else(|| ChangeError::NotFound { object: object(key) })
    }
}

fn object(key: &AuthKey) -> String {
    let node = key
        .remote_node
        .map_or_else(|| "this node".to_owned(), |addr| addr.to_string());
    format!(
        "authentication {} to {} on {node} by type {}",
        key.local_identity, key.remote_identity, key.auth_type
    )
}
