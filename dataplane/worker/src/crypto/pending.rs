//! Jobs that were taken and have not come back: where they are, and in which order they go back.

use std::collections::VecDeque;

use octoplane_esp::{Job, JobStatus};

use crate::crypto::device::{Ticket, join};

/// Where a job's packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// There is no job here.
    Free,
    /// In the device.
    Device,
    /// With the software.
    Software,
    /// Here, finished.
    Done,
    /// The job has gone back without its packet, which the device still has.
    Abandoned,
}

#[derive(Debug)]
struct Slot<B> {
    job: Option<Job<()>>,
    buf: Option<B>,
    place: Place,
    /// Whether the device has a packet under this ticket.
    held: bool,
}

/// A fixed number of jobs. A ticket is a place in an array; the latest used is used next, so that few of them are in use
/// when few packets are.
#[derive(Debug)]
pub(crate) struct Pending<B> {
    slots: Box<[Slot<B>]>,
    free: Vec<Ticket>,
    order: VecDeque<Ticket>,
    awaited: usize,
}

impl<B> Pending<B> {
    /// Room for `n` jobs.
    pub(crate) fn new(n: usize) -> Self {
        Self {
            slots: (0..n)
                .map(|_| Slot {
                    job: None,
                    buf: None,
                    place: Place::Free,
                    held: false,
                })
                .collect(),
            free: (0..n as Ticket).rev().collect(),
            order: VecDeque::with_capacity(n),
            awaited: 0,
        }
    }

    /// Jobs that may still come in.
    #[inline(always)]
    pub(crate) fn room(&self) -> usize {
        self.free.len()
    }

    /// Jobs that have not gone back.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Jobs that wait for the device.
    #[inline(always)]
    pub(crate) fn awaited(&self) -> usize {
        self.awaited
    }

    /// Takes a job in, behind all others. `None`: no room, and the job is dropped; ask [`Pending::room`] first.
    #[inline(always)]
    pub(crate) fn enter(&mut self, job: Job<()>, place: Place) -> Option<(Ticket, &Job<()>)> {
        let ticket = self.free.pop()?;
        let slot = self.slots.get_mut(ticket as usize)?;
        slot.place = place;
        slot.held = place == Place::Device;
        self.awaited += usize::from(place == Place::Device);
        self.order.push_back(ticket);
        Some((ticket, slot.job.insert(job)))
    }

    #[inline(always)]
    pub(crate) fn job(&self, ticket: Ticket) -> Option<&Job<()>> {
        self.slots.get(ticket as usize)?.job.as_ref()
    }

    /// The job and the place of its packet, which the device gave back; `None` if nobody waits for it any more.
    #[inline(always)]
    pub(crate) fn returned(&mut self, ticket: Ticket) -> Option<&Job<()>> {
        let slot = self.slots.get_mut(ticket as usize)?;
        slot.held = false;
        match slot.place {
            Place::Device => {
                self.awaited -= 1;
                slot.job.as_ref()
            }
            Place::Abandoned => {
                slot.place = Place::Free;
                self.free.push(ticket);
                None
            }
            _ => None,
        }
    }

    /// The software has the packet.
    pub(crate) fn give_to_software(&mut self, ticket: Ticket) {
        if let Some(slot) = self.slots.get_mut(ticket as usize) {
            slot.place = Place::Software;
        }
    }

    /// The job is finished.
    #[inline(always)]
    pub(crate) fn finish(&mut self, ticket: Ticket, buf: B, status: JobStatus) {
        if let Some(slot) = self.slots.get_mut(ticket as usize) {
            slot.buf = Some(buf);
            slot.place = Place::Done;
            if let Some(job) = &mut slot.job {
                job.status = status;
            }
        }
    }

    /// Nobody waits for the device any more: appends the jobs it has to `left`, in order.
    pub(crate) fn give_up(&mut self, left: &mut Vec<Ticket>) {
        for &ticket in &self.order {
            if let Some(slot) = self.slots.get_mut(ticket as usize)
                && slot.place == Place::Device
            {
                slot.place = Place::Software;
                left.push(ticket);
            }
        }
        self.awaited = 0;
    }

    /// The device is gone, and with it every packet that it had.
    pub(crate) fn nothing_held(&mut self) {
        for (ticket, slot) in self.slots.iter_mut().enumerate() {
            slot.held = false;
            if slot.place == Place::Abandoned {
                slot.place = Place::Free;
                self.free.push(ticket as Ticket);
            }
        }
    }

    /// The next job in order, if it is finished.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<Job<B>> {
        let ticket = *self.order.front()?;
        let slot = self.slots.get_mut(ticket as usize)?;
        if slot.place != Place::Done {
            return None;
        }
        self.order.pop_front();
        if slot.held {
            slot.place = Place::Abandoned;
        } else {
            slot.place = Place::Free;
            self.free.push(ticket);
        }
        let buf = slot.buf.take()?;
        slot.job.take().map(|job| join(&job, buf))
    }
}
