//! The service `Observe`: what would happen to a packet, and what happens to packets.
//!
//! Events come through an [`EventHub`], which forgets what a client does not take in time, and counts that: nobody waits for
//! a client.

mod hub;

use std::sync::Arc;

use octoplane_api::v1;
use octoplane_convert::Mistake;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

pub use hub::{EventHub, Wanted};
use hub::{Next, Subscription};

use crate::refusal;

/// Most events in one message.
const BATCH: usize = 256;

/// Packets, as the service sees them.
pub trait Observer: Send + Sync + 'static {
    /// What would happen to a packet. Takes as long as a few engines and some packets do.
    ///
    /// # Errors
    /// What is wrong with the question.
    fn explain(&self, request: &v1::ExplainRequest) -> Result<v1::Explanation, Mistake>;

    /// Where events come from.
    fn events(&self) -> &Arc<EventHub>;
}

pub(crate) struct ObserveService(pub(crate) Arc<dyn Observer>);

#[tonic::async_trait]
impl v1::observe_server::Observe for ObserveService {
    type StreamEventsStream = ReceiverStream<Result<v1::PacketEvents, Status>>;

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::Explanation>, Status> {
        let request = request.into_inner();
        let observer = Arc::clone(&self.0);
        let explained = tokio::task::spawn_blocking(move || observer.explain(&request));
        match explained.await {
            Ok(Ok(explanation)) => Ok(Response::new(explanation)),
            // The text begins with the field.
            Ok(Err(mistake)) => {
                let field = mistake.text.split(':').next().unwrap_or_default().to_owned();
                Err(refusal::alone(&mistake, &field))
            }
            Err(_) => Err(Status::internal("the explanation was given up")),
        }
    }

    async fn stream_events(
        &self,
        request: Request<v1::StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let request = request.into_inner();
        let all = !request.verdicts && !request.drops;
        let wanted = Wanted {
            verdicts: request.verdicts || all,
            drops: request.drops || all,
            endpoint: request.endpoint,
        };
        let subscription = EventHub::subscribe(self.0.events(), wanted)
            .ok_or_else(|| Status::unavailable("the server stops"))?;
        let (sender, receiver) = channel(1);
        tokio::spawn(send(subscription, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Sends events until there are no more, or the reader is gone.
async fn send(mut events: Subscription, sender: Sender<Result<v1::PacketEvents, Status>>) {
    // Tells the client that it is heard from now on.
    if sender.send(Ok(v1::PacketEvents::default())).await.is_err() {
        return;
    }
    loop {
        let next = tokio::select! {
            next = events.next() => next,
            () = sender.closed() => return,
        };
        let mut message = v1::PacketEvents::default();
        let mut next = Some(next);
        while let Some(one) = next {
            match one {
                Next::Event(event) => message.events.push((*event).clone()),
                Next::Lost(events) => message.lost += events,
                Next::Closed => return,
            }
            next = match message.events.len() < BATCH {
                true => events.try_next(),
                false => None,
            };
        }
        // Meanwhile the hub goes on, and drops what there is no room for.
        if sender.send(Ok(message)).await.is_err() {
            return;
        }
    }
}
