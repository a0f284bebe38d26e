//! Lists in chunks.

use octoplane_api::{CHUNK, v1};
use octoplane_tables::State;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Chunks that are made before the reader takes them.
const AHEAD: usize = 2;

/// A list on its way.
pub(crate) type ListStream = ReceiverStream<Result<v1::Objects, Status>>;

/// Sends a list in chunks of one state. Only the keys are copied beforehand: messages are made as the reader takes them.
pub(crate) fn send<K: Send + Sync + 'static>(
    state: State,
    keys: impl FnOnce(&State) -> Vec<K>,
    fill: fn(&State, &[K], &mut v1::Objects),
) -> ListStream {
    send_in(CHUNK, state, keys, fill)
}

/// The same in chunks of so many objects: fewer where one may be large.
pub(crate) fn send_in<K: Send + Sync + 'static>(
    size: usize,
    state: State,
    keys: impl FnOnce(&State) -> Vec<K>,
    fill: fn(&State, &[K], &mut v1::Objects),
) -> ListStream {
    let keys = keys(&state);
    let (sender, receiver) = tokio::sync::mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut rest = keys.as_slice();
        loop {
            let (chunk, more) = rest.split_at(rest.len().min(size));
            let mut message = v1::Objects {
                revision: state.revision(),
                ..Default::default()
            };
            fill(&state, chunk, &mut message);
            // A reader that went away wants no more.
            if sender.send(Ok(message)).await.is_err() || more.is_empty() {
                break;
            }
            rest = more;
        }
    });
    ReceiverStream::new(receiver)
}
