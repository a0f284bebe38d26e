//! What a provider counts.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use octoplane_engine::Counter;

use crate::crypto::health::Cause;

/// Why a job was done in software although there is a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The device cannot do what the security association asks for, or could not make a session of it.
    Unsupported,
    /// The device's session is still being made.
    SessionPending,
    /// The device had no room.
    Full,
    /// The device refused or failed.
    Failed,
    /// The device is not used now, or stopped giving anything back.
    Silent,
    /// The device is not used now: it failed too often.
    Errors,
    /// The device is not used now: its results were wrong.
    WrongResult,
    /// The device is gone.
    Removed,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Unsupported,
        Self::SessionPending,
        Self::Full,
        Self::Failed,
        Self::Silent,
        Self::Errors,
        Self::WrongResult,
        Self::Removed,
    ];

    /// Name in statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::SessionPending => "session_pending",
            Self::Full => "queue_full",
            Self::Failed => "device_failed",
            Self::Silent => Cause::Silent.name(),
            Self::Errors => Cause::Errors.name(),
            Self::WrongResult => Cause::WrongResult.name(),
            Self::Removed => Cause::Removed.name(),
        }
    }
}

impl From<Cause> for Why {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Silent => Self::Silent,
            Cause::Errors => Self::Errors,
            Cause::WrongResult => Self::WrongResult,
            Cause::Removed => Self::Removed,
        }
    }
}

/// Counters of one worker's provider: written by the worker, read by anybody.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ProviderStats {
    /// Jobs that the device finished.
    pub device: Counter,
    /// Jobs that went to the software, by [`Why`].
    pub software: [Counter; Why::ALL.len()],
    /// Jobs that could not be saved: the device had their packets when it was given up, or broke them.
    pub lost: Counter,
    /// Packets that the device gave back after it had been given up.
    pub late: Counter,
    /// Times the device was given up, by [`Cause`].
    pub failures: [Counter; Cause::ALL.len()],
    /// Times it was used again.
    pub recoveries: Counter,
    /// Packets in the device, when last looked at.
    pub in_device: Counter,
    /// Jobs not yet given back, when last looked at.
    pub in_flight: Counter,
    /// Sessions the device has.
    pub sessions: Counter,
    /// 0: the device is used; otherwise the number of the [`Cause`], from 1.
    state: AtomicU8,
}

impl ProviderStats {
    #[inline(always)]
    pub(crate) fn to_software(&self, why: Why) {
        self.software[why as usize].add(1);
    }

    pub(crate) fn set_state(&self, cause: Option<Cause>) {
        self.state
            .store(cause.map_or(0, |cause| cause as u8 + 1), Relaxed);
    }

    /// Why the device is not used now; `None` if it is.
    pub fn unused(&self) -> Option<Cause> {
        let state = usize::from(self.state.load(Relaxed));
        Cause::ALL.get(state.checked_sub(1)?).copied()
    }

    /// Jobs done in software for this reason.
    pub fn software(&self, why: Why) -> u64 {
        self.software[why as usize].get()
    }

    /// Times the device was given up for this reason.
    pub fn failures(&self, cause: Cause) -> u64 {
        self.failures[cause as usize].get()
    }
}
