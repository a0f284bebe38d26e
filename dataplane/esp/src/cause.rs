//! Why a packet was refused, and how often.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $text:literal;)*) => {
        /// Why ESP refused a packet.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Cause {
            $($(#[$doc])* $name,)*
        }

        impl Cause {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Label in metrics.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// Text for people.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

causes! {
    /// No security association has this SPI, destination, source and mark.
    UnknownSpi = "unknown_spi", "no security association for SPI and addresses";
    /// The security association was removed while the packet was on its way, or never was there.
    NoSa = "no_sa", "security association was removed";
    /// A packet with this sequence number was accepted already.
    ReplayDuplicate = "replay_duplicate", "sequence number was seen before";
    /// The sequence number is behind the replay window.
    ReplayOld = "replay_old", "sequence number is behind the replay window";
    /// The integrity check value is wrong.
    Auth = "auth", "integrity check failed";
    /// Too few bytes for what has to be in every ESP packet.
    TooShort = "too_short", "packet is too short";
    /// Lengths or versions that contradict each other, or a length that no cipher makes.
    Malformed = "malformed", "malformed packet";
    /// The padding is not 1, 2, 3 ... (RFC 4303, section 2.4).
    Padding = "padding", "wrong padding";
    /// A fragment: packets are reassembled before they are decrypted (RFC 4303, section 3.4.1), and transport mode takes
    /// whole packets only (section 3.3.4).
    Fragment = "fragment", "fragment";
    /// A hard limit of the lifetime was reached: bytes, packets or time.
    Expired = "expired", "lifetime is over";
    /// All sequence numbers were used.
    SequenceExhausted = "sequence_exhausted", "sequence numbers are exhausted";
    /// No sequence number is reserved on disk at the moment.
    SequenceNotReserved = "sequence_not_reserved", "no sequence number is reserved";
    /// What was decrypted is not what the mode carries.
    WrongMode = "wrong_mode", "protocol inside does not fit the mode";
    /// The packet inside is none that this security association may carry.
    Selector = "selector", "packet inside is not for this security association";
    /// In UDP for a security association without NAT traversal, or the other way round.
    Encapsulation = "encapsulation", "UDP encapsulation does not fit the security association";
    /// Neither ESP nor ESP in UDP: IKE, for example.
    NotEsp = "not_esp", "not ESP";
    /// A keepalive of NAT traversal (RFC 3948, section 2.3): nothing is wrong.
    Keepalive = "keepalive", "NAT keepalive";
    /// A dummy packet (RFC 4303, section 2.6): nothing is wrong.
    Dummy = "dummy", "dummy packet";
    /// "Congestion experienced" outside, and inside a packet that knows no ECN (RFC 6040, section 4.2).
    Ecn = "ecn", "congestion experienced by a packet without ECN";
    /// Larger than 65,535 bytes with everything that is added.
    TooLarge = "too_large", "too large when encrypted";
    /// The buffer has too little room in front or behind.
    NoRoom = "no_room", "no room in the packet buffer";
    /// The device failed half way.
    Device = "device", "device error";
}

/// How often each cause was met by one worker. Written by that worker alone, read by anybody.
#[derive(Debug, Clone)]
pub struct CauseCounters(Arc<[AtomicU64]>);

impl Default for CauseCounters {
    fn default() -> Self {
        Self(Cause::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl CauseCounters {
    /// Only the one writer may call this: it is not a read-modify-write.
    #[inline]
    #[allow(clippy::needless_pass_by_ref_mut, reason = "so that there is one writer")]
    pub(crate) fn count(&mut self, cause: Cause) {
        if let Some(counter) = self.0.get(cause as usize) {
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// How often.
    pub fn get(&self, cause: Cause) -> u64 {
        self.0
            .get(cause as usize)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}
