//! `octoctl auth`: who has authenticated to whom.

use std::time::{SystemTime, UNIX_EPOCH};

use octoplane_api::v1;
use octoplane_api::v1::change::Change as Step;
use octoplane_api::v1::config_client::ConfigClient;
use octoplane_state::Authentication;
use tonic::transport::Channel;

use crate::cli::{AuthVerb, AuthWho, Format};
use crate::error::Failure;
use crate::objects::{or_dash, show_all};
use crate::program::{apply, client, collect};

/// All that are there.
pub(crate) async fn all(client: &mut ConfigClient<Channel>) -> Result<Vec<Authentication>, Failure> {
    let stream = client
        .list_authentications(v1::ListRequest {})
        .await?
        .into_inner();
    let all = collect(stream, |chunk| chunk.authentications).await?;
    Ok(all.into_iter().map(Into::into).collect())
}

pub(crate) async fn verb(channel: Channel, verb: AuthVerb, format: Format) -> Result<(), Failure> {
    match verb {
        AuthVerb::Add { who, seconds } => {
            let it = message(who, now().saturating_add(seconds));
            apply(channel, vec![Step::PutAuthentication(it)], format).await
        }
        AuthVerb::Del { who } => {
            apply(channel, vec![Step::RemoveAuthentication(message(who, 0))], format).await
        }
        AuthVerb::List => {
            let heading = ["local", "remote", "node", "type", "expires in s"];
            let now = now();
            let row = |it: &Authentication| {
                [
                    it.local_identity.to_string(),
                    it.remote_identity.to_string(),
                    or_dash(&it.remote_node),
                    it.auth_type.to_string(),
                    it.expires.saturating_sub(now).to_string(),
                ]
            };
            show_all(&all(&mut client(channel)).await?, heading, row, format)
        }
    }
}

fn message(who: AuthWho, expires: u64) -> v1::Authentication {
    v1::Authentication {
        local_identity: who.local,
        remote_identity: who.remote,
        remote_node: who.node,
        auth_type: who.auth_type.into(),
        expires,
    }
}

/// Seconds since 1970 UTC.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
