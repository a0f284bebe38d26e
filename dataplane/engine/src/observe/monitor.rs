//! Verdicts and drops of one worker, on their way to whoever asked for them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crossbeam::queue::ArrayQueue;

use super::{Dropped, PolicyVerdict};

/// Which events somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// [`Interest::VERDICTS`], [`Interest::DROPS`].
    pub kinds: u32,
    /// Only of this endpoint (0: the node itself); `None`: of all.
    pub endpoint: Option<u32>,
}

impl Interest {
    /// What policies say.
    pub const VERDICTS: u32 = 1;
    /// Packets dropped.
    pub const DROPS: u32 = 2;
    /// Nothing at all.
    pub const NONE: Self = Self {
        kinds: 0,
        endpoint: None,
    };

    /// What serves both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self.kinds == 0 {
            return other;
        }
        if other.kinds == 0 {
            return self;
        }
        Self {
            kinds: self.kinds | other.kinds,
            endpoint: self.endpoint.filter(|_| self.endpoint == other.endpoint),
        }
    }

    /// Whether it wants this event.
    #[must_use]
    pub fn wants(&self, kind: &EventKind) -> bool {
        let of = |endpoint| kind.is_of(endpoint);
        self.kinds & kind.interest() != 0 && self.endpoint.is_none_or(of)
    }
}

/// Something that happened to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds of the engines' clock.
    pub time: u64,
    /// What.
    pub kind: EventKind,
}

/// What happened to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "it lies in a ring")]
pub enum EventKind {
    /// A policy has decided.
    Verdict(PolicyVerdict),
    /// It was dropped.
    Drop(Dropped),
}

impl EventKind {
    fn interest(&self) -> u32 {
        match self {
            Self::Verdict(_) => Interest::VERDICTS,
            Self::Drop(_) => Interest::DROPS,
        }
    }

    /// Whether it is about this endpoint.
    fn is_of(&self, endpoint: u32) -> bool {
        match self {
            Self::Verdict(it) => it.endpoint == endpoint,
            Self::Drop(it) => endpoint != 0 && it.endpoints.contains(&endpoint),
        }
    }
}

/// Any endpoint, in [`Monitor::endpoint`].
const ANY: u64 = u64::MAX;

/// A ring of events with one worker that fills it, and a switch that is off until somebody asks. What there is no room for,
/// and what exceeds the rate, is counted and forgotten: the worker never waits.
#[derive(Debug)]
pub struct Monitor {
    /// Kinds of events that are wanted.
    kinds: AtomicU32,
    /// The endpoint they have to be of.
    endpoint: AtomicU64,
    ring: ArrayQueue<Event>,
    lost: AtomicU64,
    /// When, in nanoseconds, as many events may come at once again as there is room for.
    full_at: AtomicU64,
    /// Nanoseconds that one event costs.
    cost: u64,
}

impl Monitor {
    /// Room for so many events, and so many a second.
    #[must_use]
    pub fn new(room: usize, rate: u32) -> Self {
        Self {
            kinds: AtomicU32::new(0),
            endpoint: AtomicU64::new(ANY),
            ring: ArrayQueue::new(room.max(1)),
            lost: AtomicU64::new(0),
            full_at: AtomicU64::new(0),
            cost: 1_000_000_000 / u64::from(rate.max(1)),
        }
    }

    /// Says what is wanted from now on. What is in the ring stays there.
    pub fn set(&self, interest: Interest) {
        self.endpoint
            .store(interest.endpoint.map_or(ANY, u64::from), Relaxed);
        self.kinds.store(interest.kinds, Relaxed);
    }

    /// The oldest event. Anybody may take them.
    pub fn pop(&self) -> Option<Event> {
        self.ring.pop()
    }

    /// Events lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Whether events of a kind are wanted.
    #[inline(always)]
    pub(crate) fn wants(&self, kind: u32) -> bool {
        self.kinds.load(Relaxed) & kind != 0
    }

    /// Tells of an event that happened at `now`. Only the owning worker may.
    #[cold]
    pub(crate) fn tell(&self, now: u64, kind: EventKind) {
        let endpoint = self.endpoint.load(Relaxed);
        if endpoint != ANY && !kind.is_of(endpoint as u32) {
            return;
        }
        let full_at = self.full_at.load(Relaxed).max(now).saturating_add(self.cost);
        let burst = self.cost.saturating_mul(self.ring.capacity() as u64);
        if full_at - now > burst || self.ring.push(Event { time: now, kind }).is_err() {
            self.lost.store(self.lost.load(Relaxed).wrapping_add(1), Relaxed);
            return;
        }
        self.full_at.store(full_at, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drop_reason::{Direction, DropReason};

    fn event(endpoint: u32) -> EventKind {
        EventKind::Drop(Dropped {
            reason: DropReason::PolicyDenied,
            direction: Direction::Egress,
            port: 0,
            tuple: None,
            endpoints: [endpoint, 0],
            identities: [0, 0],
            len: 60,
        })
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let monitor = Monitor::new(4, 1_000_000);
        (0..7).for_each(|n| monitor.tell(n * 1_000_000, event(1)));
        assert_eq!(std::iter::from_fn(|| monitor.pop()).count(), 4);
        assert_eq!(monitor.lost(), 3);
        monitor.tell(8_000_000, event(1));
        assert_eq!(
            (monitor.pop().map(|it| it.time), monitor.lost()),
            (Some(8_000_000), 3)
        );
    }

    #[test]
    fn the_rate_holds() {
        let monitor = Monitor::new(10, 100);
        let second = |from: u64| {
            let mut passed = 0;
            for step in 0..1000 {
                monitor.tell(from + step * 1_000_000, event(1));
                passed += usize::from(monitor.pop().is_some());
            }
            passed
        };
        // 100 a second, and 10 more after a pause.
        assert!((109..=110).contains(&second(0)));
        assert!((99..=101).contains(&second(1_000_000_000)));
    }

    #[test]
    fn others_endpoints_do_not_count() {
        let monitor = Monitor::new(4, 1000);
        monitor.set(Interest {
            kinds: Interest::DROPS,
            endpoint: Some(7),
        });
        assert!(monitor.wants(Interest::DROPS) && !monitor.wants(Interest::VERDICTS));
        monitor.tell(0, event(8));
        monitor.tell(0, event(7));
        assert!(monitor.pop().is_some() && monitor.pop().is_none());
        assert_eq!(monitor.lost(), 0);
        monitor.set(Interest::NONE);
        assert!(!monitor.wants(Interest::DROPS));
    }

    #[test]
    fn interests_add_up() {
        let one = Interest {
            kinds: Interest::DROPS,
            endpoint: Some(7),
        };
        let other = Interest {
            kinds: Interest::VERDICTS,
            endpoint: Some(8),
        };
        assert_eq!(Interest::NONE.and(one), one);
        assert_eq!(one.and(one), one);
        let both = one.and(other);
        assert_eq!((both.kinds, both.endpoint), (3, None));
        assert!(one.wants(&event(7)) && !one.wants(&event(8)) && !other.wants(&event(8)));
    }
}
