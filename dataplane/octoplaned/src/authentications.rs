//! Authentications end when their time is over.

use std::sync::Weak;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use octoplane_tables::model::Change;
use octoplane_worker::Dataplane;
use tracing::warn;

/// How often it is looked: how much too late one may end.
const ROUND: Duration = Duration::from_secs(1);

/// Removes what has expired, until the data plane is gone. Inside a runtime.
pub(crate) async fn expire(dataplane: Weak<Dataplane>) {
    let mut rounds = tokio::time::interval(ROUND);
    loop {
        rounds.tick().await;
        let Some(dataplane) = dataplane.upgrade() else {
            return;
        };
        let store = dataplane.store.clone();
        drop(dataplane);
        // It may wait for the disk.
        let removed = tokio::task::spawn_blocking(move || {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.as_secs());
            if store.state().authentications().all(|it| it.expires > now) {
                return Ok(());
            }
            store
                .update(|state| {
                    let over = state.authentications().filter(|it| it.expires <= now);
                    over.map(|it| Change::RemoveAuthentication { key: it.key })
                        .collect()
                })
                .map(drop)
        });
        if let Ok(Err(error)) = removed.await {
            warn!("authentications that have expired stay for now: {error}");
        }
    }
}
