//! GC: removes what the runtime does not know of any more.

use std::collections::BTreeSet;

use super::{Call, del::remove};
use crate::link::names_with_alias;
use crate::names::{Names, alias_prefix};
use crate::spec::{Attachment, CniError, Version};

pub(crate) async fn gc(call: &Call, version: Version) -> Result<(), CniError> {
    let valid: BTreeSet<_> = call.conf.valid_attachments()?.iter().cloned().collect();
    let network = &call.conf.name;
    let mut known = BTreeSet::new();
    for attachment in call.daemon.attachments(network).await? {
        if let Some(key) = attachment.key {
            known.insert(Attachment {
                container: key.container_id,
                interface: key.interface,
            });
        }
    }
    // Interfaces whose reservation was lost.
    for (name, rest) in names_with_alias(&alias_prefix(network)).await? {
        let Some((container, interface)) = Names::attachment(&rest) else {
            continue;
        };
        // Somebody may have marked another interface so.
        if Names::new(network, container, interface).port == name {
            known.insert(Attachment {
                container: container.to_owned(),
                interface: interface.to_owned(),
            });
        }
    }
    let mut failed: Option<CniError> = None;
    for stale in known.difference(&valid) {
        // One that cannot be removed must not keep the others (specification, "GC").
        if let Err(error) = remove(call, &stale.container, &stale.interface).await {
            let error = error.during(&format!("container {} ({})", stale.container, stale.interface));
            failed = Some(match failed {
                Some(first) => first.and(error.message),
                None => error,
            });
        }
    }
    if let Some(delegate) = &call.delegate
        && delegate.speaks(version)
    {
        delegate.call("GC").await?;
    }
    failed.map_or(Ok(()), Err)
}
