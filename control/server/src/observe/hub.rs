//! Events on their way to any number of clients, none of which anybody waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use octoplane_api::v1;
use octoplane_api::v1::packet_event::Kind;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// Events that a client may be behind.
const ROOM: usize = 8192;

/// Which events somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// What policies say.
    pub verdicts: bool,
    /// Packets dropped.
    pub drops: bool,
    /// Only of this endpoint (0: the node itself); `None`: of all.
    pub endpoint: Option<u32>,
}

impl Wanted {
    /// What serves both.
    fn and(self, other: Self) -> Self {
        if self == Self::default() {
            return other;
        }
        Self {
            verdicts: self.verdicts || other.verdicts,
            drops: self.drops || other.drops,
            endpoint: self.endpoint.filter(|_| self.endpoint == other.endpoint),
        }
    }

    fn wants(&self, event: &v1::PacketEvent) -> bool {
        match &event.kind {
            Some(Kind::Verdict(it)) => {
                self.verdicts && self.endpoint.is_none_or(|endpoint| it.endpoint == endpoint)
            }
            Some(Kind::Drop(it)) => {
                let ends = [it.source_endpoint, it.destination_endpoint];
                let of = |endpoint| endpoint != 0 && ends.contains(&endpoint);
                self.drops && self.endpoint.is_none_or(of)
            }
            None => false,
        }
    }
}

/// What is said to all clients.
#[derive(Debug, Clone)]
enum Said {
    Event(Arc<v1::PacketEvent>),
    /// So many events could not be told.
    Lost(u64),
}

/// What a client gets.
#[derive(Debug)]
pub(super) enum Next {
    Event(Arc<v1::PacketEvent>),
    Lost(u64),
    /// There is no more.
    Closed,
}

struct Inner {
    /// `None`: the server stops.
    sender: Option<broadcast::Sender<Said>>,
    clients: BTreeMap<u64, Wanted>,
    /// Number of the next client.
    next: u64,
    switch: Box<dyn FnMut(Wanted) + Send>,
}

/// Passes events on to those who want them, and tells where they come from whether anybody does.
pub struct EventHub(Mutex<Inner>);

impl EventHub {
    /// A hub that calls `switch` with what all clients together want, whenever that may have changed: the default if there is
    /// nobody. It must not call the hub.
    pub fn new(switch: impl FnMut(Wanted) + Send + 'static) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            sender: Some(broadcast::Sender::new(ROOM)),
            clients: BTreeMap::new(),
            next: 0,
            switch: Box::new(switch),
        })))
    }

    /// Tells everybody who wants to know. Never waits for them.
    pub fn publish(&self, event: v1::PacketEvent) {
        self.say(Said::Event(Arc::new(event)));
    }

    /// Tells everybody that so many events are lost.
    pub fn lost(&self, events: u64) {
        self.say(Said::Lost(events));
    }

    /// Whether nobody wants anything.
    pub fn is_idle(&self) -> bool {
        self.lock().clients.is_empty()
    }

    fn say(&self, it: Said) {
        let sender = self.lock().sender.clone();
        // Nobody there: nobody misses it.
        let _ = sender.map(|sender| sender.send(it));
    }

    /// Ends all streams.
    pub(crate) fn close(&self) {
        self.lock().sender = None;
    }

    /// Listens from now on. `None` if the server stops.
    pub(super) fn subscribe(hub: &Arc<Self>, wanted: Wanted) -> Option<Subscription> {
        let mut inner = hub.lock();
        let receiver = inner.sender.as_ref()?.subscribe();
        let number = inner.next;
        inner.next += 1;
        inner.clients.insert(number, wanted);
        inner.tell();
        Some(Subscription {
            receiver,
            wanted,
            number,
            hub: Arc::clone(hub),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell(&mut self) {
        let all = self.clients.values().copied();
        (self.switch)(all.fold(Wanted::default(), Wanted::and));
    }
}

/// A client's part of the events.
pub(super) struct Subscription {
    receiver: broadcast::Receiver<Said>,
    wanted: Wanted,
    number: u64,
    hub: Arc<EventHub>,
}

impl Subscription {
    /// The next event, or how many there were no room for.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            let said = self.receiver.recv().await;
            if let Some(next) = self.of(said.map_err(|error| match error {
                RecvError::Closed => None,
                RecvError::Lagged(events) => Some(events),
            })) {
                return next;
            }
        }
    }

    /// The same if there is anything now.
    pub(super) fn try_next(&mut self) -> Option<Next> {
        loop {
            let said = match self.receiver.try_recv() {
                Ok(said) => Ok(said),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Closed) => Err(None),
                Err(TryRecvError::Lagged(events)) => Err(Some(events)),
            };
            if let Some(next) = self.of(said) {
                return Some(next);
            }
        }
    }

    fn of(&self, said: Result<Said, Option<u64>>) -> Option<Next> {
        match said {
            Ok(Said::Event(event)) => self.wanted.wants(&event).then_some(Next::Event(event)),
            Ok(Said::Lost(events)) | Err(Some(events)) => Some(Next::Lost(events)),
            Err(None) => Some(Next::Closed),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut inner = self.hub.lock();
        inner.clients.remove(&self.number);
        inner.tell();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn drop_of(endpoint: u32) -> v1::PacketEvent {
        v1::PacketEvent {
            kind: Some(Kind::Drop(v1::PacketDrop {
                source_endpoint: endpoint,
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    fn wanted(endpoint: Option<u32>) -> Wanted {
        Wanted {
            verdicts: false,
            drops: true,
            endpoint,
        }
    }

    #[test]
    fn the_source_knows_what_is_wanted() {
        let (sender, told) = mpsc::channel();
        let hub = EventHub::new(move |wanted| sender.send(wanted).unwrap());
        assert!(hub.is_idle());
        let one = EventHub::subscribe(&hub, wanted(Some(7))).unwrap();
        assert_eq!(told.recv(), Ok(wanted(Some(7))));
        let two = EventHub::subscribe(&hub, wanted(Some(8))).unwrap();
        assert_eq!(told.recv(), Ok(wanted(None)));
        drop(one);
        assert_eq!(told.recv(), Ok(wanted(Some(8))));
        assert!(!hub.is_idle());
        drop(two);
        assert_eq!(told.recv(), Ok(Wanted::default()));
        assert!(hub.is_idle());
    }

    #[test]
    fn each_gets_what_it_wants() {
        let hub = EventHub::new(|_| {});
        let mut seven = EventHub::subscribe(&hub, wanted(Some(7))).unwrap();
        let mut all = EventHub::subscribe(&hub, wanted(None)).unwrap();
        hub.publish(drop_of(8));
        hub.publish(drop_of(7));
        assert!(matches!(seven.try_next(), Some(Next::Event(it)) if *it == drop_of(7)));
        assert!(seven.try_next().is_none());
        assert!(matches!(all.try_next(), Some(Next::Event(it)) if *it == drop_of(8)));
        assert!(all.try_next().is_some() && all.try_next().is_none());
    }

    #[test]
    fn who_is_slow_is_told_what_it_missed() {
        let hub = EventHub::new(|_| {});
        let mut slow = EventHub::subscribe(&hub, wanted(None)).unwrap();
        // Nobody reads, and yet all of them are taken at once.
        for _ in 0..ROOM + 100 {
            hub.publish(drop_of(1));
        }
        assert!(matches!(slow.try_next(), Some(Next::Lost(100))));
        let mut got = 0;
        while let Some(Next::Event(_)) = slow.try_next() {
            got += 1;
        }
        assert_eq!(got, ROOM);
        hub.close();
        assert!(matches!(slow.try_next(), Some(Next::Closed)));
        assert!(EventHub::subscribe(&hub, wanted(None)).is_none());
    }
}
