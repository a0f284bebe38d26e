//! The layer in front of all services: whoever asks, what for, and whether it is too much.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use octoplane_config::Class;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::Peer;
use super::body::{Holding, Limited};
use super::client::RequestPermit;
use super::methods::{Kind, Method, find};

/// Largest request of a method that changes nothing, in bytes: names and filters.
const MOST_ASKED: usize = 1 << 20;
/// Messages of the largest size that one streamed request may consist of.
const MOST_MESSAGES: usize = 64;

/// Puts the checks in front of a service.
#[derive(Clone)]
pub(crate) struct AccessLayer {
    /// Largest message taken from a client, in bytes.
    pub(crate) max_message: usize,
}

impl<S> Layer<S> for AccessLayer {
    type Service = Checked<S>;

    fn layer(&self, inner: S) -> Checked<S> {
        Checked {
            inner,
            max_message: self.max_message,
        }
    }
}

/// A service behind the checks.
#[derive(Clone)]
pub(crate) struct Checked<S> {
    inner: S,
    max_message: usize,
}

/// What was allowed.
struct Granted {
    method: &'static Method,
    peer: Peer,
    permit: RequestPermit,
}

fn check(request: &Request<Body>) -> Result<Granted, Status> {
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return Err(Status::internal("a connection without a peer"));
    };
    peer.check_rate()?;
    let path = request.uri().path();
    let Some(method) = find(path) else {
        return Err(Status::unimplemented(format!(
            "there is no method {}",
            shown(path)
        )));
    };
    if !peer.may.contains(method.class) {
        return Err(Status::permission_denied(format!(
            "{path} is for clients that may \"{}\"; {} may {}",
            method.class.as_str(),
            peer.id(),
            peer.may
        )));
    }
    let permit = peer.begin(method.kind)?;
    Ok(Granted { method, peer, permit })
}

/// Text of a client, so that a message stays one readable line.
fn shown(text: &str) -> String {
    text.chars().take(128).flat_map(char::escape_debug).collect()
}

type Answer<E> = Result<Response<Body>, E>;

impl<S> Service<Request<Body>> for Checked<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Answer<S::Error>>, Pin<Box<dyn Future<Output = Answer<S::Error>> + Send>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Granted { method, peer, permit } = match check(&request) {
            Ok(granted) => granted,
            Err(status) => return Either::Now(ready(Ok(status.into_http()))),
        };
        let most = match method.class {
            Class::Read | Class::Debug => MOST_ASKED,
            Class::Program => self.max_message.saturating_mul(MOST_MESSAGES),
        };
        let request = request.map(|body| {
            Body::new(Limited {
                body,
                left: most,
                most,
            })
        });
        // That which was made ready is used; its copy is made ready the next time.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Either::Later(Box::pin(async move {
            let answer = match method.kind {
                Kind::Endless => inner.call(request).await?,
                Kind::Call => {
                    let most = peer.limits().request_timeout;
                    match tokio::time::timeout(most, inner.call(request)).await {
                        Ok(answer) => answer?,
                        Err(_) => {
                            let text = format!(
                                "not done after {} seconds (control.request_timeout_s)",
                                most.as_secs()
                            );
                            return Ok(Status::deadline_exceeded(text).into_http());
                        }
                    }
                }
            };
            Ok(answer.map(|body| Body::new(Holding { body, _held: permit })))
        }))
    }
}

/// One future or the other.
pub(crate) enum Either<A, B> {
    Now(A),
    Later(B),
}

impl<A: Future + Unpin, B: Future<Output = A::Output> + Unpin> Future for Either<A, B> {
    type Output = A::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<A::Output> {
        match &mut *self {
            Self::Now(future) => Pin::new(future).poll(cx),
            Self::Later(future) => Pin::new(future).poll(cx),
        }
    }
}
