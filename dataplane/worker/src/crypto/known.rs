//! The sessions that one worker has seen, and what the device knows of them.

use std::sync::Arc;

use octoplane_esp::{Operation, Session, SessionId, SessionLookup};

use crate::crypto::device::SessionKey;

/// Where device sessions come from. Making one takes long, so it is asked for and comes later.
pub trait SessionClient<T>: Send {
    /// Whether the device can do what the session asks for.
    fn supports(&self, session: &Session) -> bool;

    /// Asks for a device session. `false`: ask again.
    fn ask(&mut self, session: &Arc<Session>) -> bool;

    /// A device session that has been made, asked for or not; without one if it could not be made.
    fn answer(&mut self) -> Option<(Arc<Session>, Option<Arc<T>>)>;

    /// The session is gone, and nothing here uses its device session any more. `false`: tell again.
    fn forget(&mut self, id: SessionId) -> bool;
}

/// What the device knows of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDevice {
    /// Nothing, and it never will.
    Never,
    /// Nothing yet.
    Wanted,
    /// Nothing yet, but it was asked for.
    Asked,
    /// It has it under this key.
    Ready(SessionKey),
}

#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) session: Arc<Session>,
    /// Copies of what the session has: with many of them it is in no cache.
    generation: u32,
    pub(crate) operation: Operation,
    pub(crate) device: OnDevice,
}

/// Sessions by index.
#[derive(Debug, Default)]
pub(crate) struct KnownSessions {
    entries: Vec<Option<Known>>,
}

impl KnownSessions {
    /// The session of this name, if it was seen before.
    #[inline(always)]
    pub(crate) fn get(&self, id: SessionId) -> Option<&Known> {
        let known = self.entries.get(id.index as usize)?.as_ref()?;
        (known.generation == id.generation).then_some(known)
    }

    pub(crate) fn set_device(&mut self, id: SessionId, device: OnDevice) {
        if let Some(Some(known)) = self.entries.get_mut(id.index as usize)
            && known.generation == id.generation
        {
            known.device = device;
        }
    }

    /// Enters a session that was not seen before. Returns the one that had its place.
    pub(crate) fn enter(&mut self, session: Arc<Session>, device: OnDevice) -> Option<Known> {
        let SessionId { index, generation } = session.id();
        let index = index as usize;
        if index >= self.entries.len() {
            self.entries.resize_with((index + 1).next_power_of_two(), || None);
        }
        self.entries.get_mut(index)?.replace(Known {
            generation,
            operation: session.operation(),
            session,
            device,
        })
    }

    /// Whether another session has this place.
    pub(crate) fn is_taken(&self, id: SessionId) -> bool {
        let known = self.entries.get(id.index as usize).and_then(Option::as_ref);
        known.is_some_and(|known| known.generation != id.generation)
    }

    /// Takes out those that are gone.
    pub(crate) fn take_gone(&mut self, sessions: &dyn SessionLookup, mut gone: impl FnMut(Known)) {
        for entry in &mut self.entries {
            if let Some(known) = entry.take_if(|known| sessions.session(known.session.id()).is_none()) {
                gone(known);
            }
        }
    }

    /// All of them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Known> {
        self.entries.iter_mut().flatten()
    }
}

impl SessionLookup for KnownSessions {
    fn session(&self, id: SessionId) -> Option<&Arc<Session>> {
        self.get(id).map(|known| &known.session)
    }
}
