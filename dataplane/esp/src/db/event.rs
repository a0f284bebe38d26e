//! What happens to security associations while nobody programs anything.

use std::fmt;

use crate::sa::{Sa, SaId, SaKey};

/// Which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Of bytes.
    Bytes,
    /// Of packets.
    Packets,
    /// Of time.
    Time,
    /// Of sequence numbers.
    Sequence,
}

/// Told once each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A soft limit was passed: it is time for a successor. For sequence numbers, seven eighths are used.
    Soft {
        /// Name.
        id: SaId,
        /// What it is known by.
        key: SaKey,
        /// Which limit.
        limit: Limit,
    },
    /// A hard limit was reached: packets are refused.
    Hard {
        /// Name.
        id: SaId,
        /// What it is known by.
        key: SaKey,
        /// Which limit.
        limit: Limit,
    },
    /// The reservation of sequence numbers could not be written: when those that are reserved are used up, packets are
    /// refused. Tried again at the next tick; told again only after it went well.
    NotReserved {
        /// Why.
        error: String,
    },
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Time => "time",
            Self::Sequence => "sequence numbers",
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Soft { key, limit, .. } => write!(f, "{key}: soft limit of {limit} was passed"),
            Self::Hard { key, limit, .. } => write!(f, "{key}: hard limit of {limit} was reached"),
            Self::NotReserved { error } => write!(f, "sequence numbers were not reserved: {error}"),
        }
    }
}

/// What was told of a security association already, as bits.
pub(super) type Told = u8;

/// What there is to tell; `told` is updated.
pub(super) fn events(sa: &Sa, now: u64, told: &mut Told, out: &mut Vec<Event>) {
    let (config, used) = (sa.config(), sa.used());
    let lifetime = &config.lifetime;
    let age = now.saturating_sub(sa.added());
    let nanoseconds = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let end = sa.sequence().end();
    let numbers = match config.direction {
        crate::Direction::Outbound => sa.sequence().next(),
        crate::Direction::Inbound => 0,
    };
    for (bit, limit, used, soft, hard) in [
        (
            0,
            Limit::Bytes,
            used.bytes,
            lifetime.soft_bytes,
            lifetime.hard_bytes,
        ),
        (
            2,
            Limit::Packets,
            used.packets,
            lifetime.soft_packets,
            lifetime.hard_packets,
        ),
        (
            4,
            Limit::Time,
            age,
            lifetime.soft_time.map(nanoseconds),
            lifetime.hard_time.map(nanoseconds),
        ),
        (6, Limit::Sequence, numbers, Some(end / 8 * 7), Some(end)),
    ] {
        let (id, key) = (sa.id(), config.key());
        for (bit, at, event) in [
            (bit, soft, Event::Soft { id, key, limit }),
            (bit + 1, hard, Event::Hard { id, key, limit }),
        ] {
            if at.is_some_and(|at| used >= at) && *told & 1 << bit == 0 {
                *told |= 1 << bit;
                out.push(event);
            }
        }
    }
}
