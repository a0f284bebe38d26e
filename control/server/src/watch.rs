//! Who wants to know what changes.

use std::sync::Arc;

use octoplane_api::v1;
use octoplane_tables::{Committed, SharedStore, State};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::convert;

/// Transactions that a reader may be behind.
const BEHIND: usize = 1024;

/// All readers. The writer never waits for one: who falls behind is told so and ended.
pub(crate) struct Watchers {
    sender: broadcast::Sender<Arc<Committed>>,
}

impl Watchers {
    pub(crate) fn new(store: &SharedStore) -> Arc<Self> {
        let (sender, _) = broadcast::channel(BEHIND);
        let watchers = Arc::new(Self {
            sender: sender.clone(),
        });
        store.subscribe(Box::new(move |committed| {
            // No reader is no error.
            let _ = sender.send(Arc::new(committed.clone()));
        }));
        watchers
    }

    pub(crate) fn watch(
        &self,
        store: &SharedStore,
        initial: bool,
    ) -> impl Stream<Item = Result<v1::Event, Status>> + Send + use<> {
        // Subscribed first: what is committed in between is seen twice rather than not at all, and sorted out below.
        let receiver = self.sender.subscribe();
        let state = store.state();
        let start = state.revision();
        let first = if initial { all(&state) } else { Vec::new() };
        let store = store.clone();
        let news = BroadcastStream::new(receiver)
            .map(move |item| match item {
                Ok(committed) if committed.revision <= start => Vec::new(),
                Ok(committed) => {
                    let state = store.state();
                    committed
                        .events
                        .iter()
                        .map(|event| Ok(convert::event_message(&state, event)))
                        .collect()
                }
                Err(BroadcastStreamRecvError::Lagged(missed)) => {
                    let text = format!("{missed} transactions were missed: read faster, and start over");
                    vec![Err(Status::resource_exhausted(text))]
                }
            })
            .map(tokio_stream::iter);
        let mut ended = false;
        tokio_stream::iter(first.into_iter().map(Ok))
            .chain(Flatten::new(news))
            .take_while(move |item| {
                let go_on = !ended;
                ended = item.is_err();
                go_on
            })
    }
}

fn all(state: &State) -> Vec<v1::Event> {
    use v1::event::Object;
    let put = |object| v1::Event {
        revision: state.revision(),
        removed: false,
        object: Some(object),
    };
    let mut events: Vec<v1::Event> = state
        .ports()
        .map(|it| put(Object::Port(convert::port_message(it))))
        .collect();
    events.extend(
        state
            .endpoints()
            .map(|it| put(Object::Endpoint(convert::endpoint_message(state, it)))),
    );
    events.extend(
        state
            .routes()
            .map(|it| put(Object::Route(convert::route_message(state, it)))),
    );
    events.extend(
        state
            .neighbours()
            .map(|it| put(Object::Neighbour(convert::neighbour_message(state, it)))),
    );
    events
}

/// A stream of streams as one stream; `tokio-stream` has no such adapter.
struct Flatten<O, I> {
    outer: O,
    inner: Option<I>,
}

impl<O, I> Flatten<O, I> {
    fn new(outer: O) -> Self {
        Self { outer, inner: None }
    }
}

impl<O, I> Stream for Flatten<O, I>
where
    O: Stream<Item = I> + Unpin,
    I: Stream + Unpin,
{
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        use std::task::Poll::{Pending, Ready};
        let this = &mut *self;
        loop {
            if let Some(inner) = &mut this.inner {
                match std::pin::Pin::new(inner).poll_next(context) {
                    Ready(Some(item)) => return Ready(Some(item)),
                    Ready(None) => this.inner = None,
                    Pending => return Pending,
                }
            }
            match std::pin::Pin::new(&mut this.outer).poll_next(context) {
                Ready(Some(inner)) => this.inner = Some(inner),
                Ready(None) => return Ready(None),
                Pending => return Pending,
            }
        }
    }
}
