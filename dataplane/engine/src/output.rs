//! Where packets leave the pipeline.

use arrayvec::ArrayVec;
use octoplane_esp::SaId;
use octoplane_tables::model::PortId;

/// Packets that wait for one port at most: two bursts, and what the slow path adds.
pub const PORT_QUEUE: usize = 256;

/// A frame to encrypt: what is behind its first bytes becomes the payload of ESP, and those go in front of that again. They are
/// its Ethernet header, with the addresses of the next hop, or all headers of a tunnel packet, whose lengths have to be made
/// right then ([`refit`](crate::refit)).
#[derive(Debug)]
pub struct ToSeal<B> {
    /// The frame.
    pub buf: B,
    /// With which security association.
    pub sa: SaId,
    /// The port it leaves by.
    pub port: PortId,
    /// How many bytes are not encrypted: 14, or the 64 or 84 up to the packet in the tunnel.
    pub front: u16,
}

/// Packets to send, by port, packets to encrypt or decrypt, and packets to free.
///
/// Buffers are never dropped one by one in the pipeline: the worker frees [`Output::free`] in bulk.
pub struct Output<B> {
    ports: Vec<ArrayVec<B, PORT_QUEUE>>,
    /// One bit a port that has packets.
    touched: [u64; 4],
    /// Frames to encrypt, in their order.
    pub seal: ArrayVec<ToSeal<B>, PORT_QUEUE>,
    /// Frames to decrypt, with the ports that they came in by, in their order.
    pub open: ArrayVec<(PortId, B), PORT_QUEUE>,
    /// Buffers that nobody needs any more.
    pub free: ArrayVec<B, PORT_QUEUE>,
}

impl<B> Output<B> {
    /// Queues for ports 0 to `ports` − 1.
    pub fn new(ports: usize) -> Self {
        Self {
            ports: (0..ports).map(|_| ArrayVec::new()).collect(),
            touched: [0; 4],
            seal: ArrayVec::new(),
            open: ArrayVec::new(),
            free: ArrayVec::new(),
        }
    }

    /// Queues a packet for a port; gives it back when the queue is full or the port unknown.
    #[inline(always)]
    pub fn send(&mut self, port: PortId, buf: B) -> Result<(), B> {
        match self.ports.get_mut(usize::from(port)) {
            Some(queue) => {
                self.touched[(usize::from(port) / 64) & 3] |= 1 << (port % 64);
                queue.try_push(buf).map_err(|full| full.element())
            }
            None => Err(buf),
        }
    }

    /// Queues packets for one port, as many as there is room for; the others stay.
    #[inline(always)]
    pub fn send_all<const N: usize>(&mut self, port: PortId, burst: &mut ArrayVec<B, N>) {
        let Some(queue) = self.ports.get_mut(usize::from(port)) else {
            return;
        };
        self.touched[(usize::from(port) / 64) & 3] |= 1 << (port % 64);
        let room = queue.remaining_capacity().min(burst.len());
        queue.extend(burst.drain(..room));
    }

    /// Packets there is room for in the queue of a port.
    pub fn room(&self, port: PortId) -> usize {
        let queue = self.ports.get(usize::from(port));
        queue.map_or(0, ArrayVec::remaining_capacity)
    }

    /// Whether the queue of a port that was sent to has room for fewer than `least` packets.
    pub fn is_crowded(&self, least: usize) -> bool {
        let bits = |(word, bits): (usize, &u64)| {
            let bits = *bits;
            (0..64)
                .filter(move |bit| bits >> bit & 1 != 0)
                .map(move |bit| word * 64 + bit)
        };
        self.touched
            .iter()
            .enumerate()
            .flat_map(bits)
            .any(|port| self.room(port as PortId) < least)
            || self.seal.remaining_capacity().min(self.open.remaining_capacity()) < least
    }

    /// Gives up a buffer.
    pub fn discard(&mut self, buf: B) {
        // When the list is full the buffer is freed on the spot: slower, never wrong.
        drop(self.free.try_push(buf));
    }

    /// The queue of one port.
    pub fn queue(&mut self, port: PortId) -> Option<&mut ArrayVec<B, PORT_QUEUE>> {
        self.ports.get_mut(usize::from(port))
    }

    /// Whether anything was sent to a port since [`Output::take_touched`] was called last.
    #[inline]
    pub fn is_touched(&self) -> bool {
        self.touched != [0; 4]
    }

    /// Looks at the set of ports that were sent to since [`Output::take_touched`] was called last, lowest first.
    pub fn touched(&self) -> impl Iterator<Item = PortId> + use<B> {
        bits(self.touched)
    }

    /// Takes the set of ports that were sent to since the last call, lowest first.
    #[inline]
    pub fn take_touched(&mut self) -> impl Iterator<Item = PortId> + use<B> {
        bits(std::mem::take(&mut self.touched))
    }
}

/// The numbers of the bits that are set.
#[inline]
fn bits(words: [u64; 4]) -> impl Iterator<Item = PortId> {
    words.into_iter().enumerate().flat_map(|(word, mut bits)| {
        std::iter::from_fn(move || {
            let bit = bits.trailing_zeros();
            bits &= bits.wrapping_sub(1);
            (bit < 64).then_some((word as u32 * 64 + bit) as PortId)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_ports_come_out_once() {
        let mut output = Output::new(200);
        for port in [3, 130, 3, 64] {
            output.send(port, ()).unwrap();
        }
        assert!(output.is_touched());
        assert_eq!(output.touched().collect::<Vec<_>>(), [3, 64, 130]);
        assert_eq!(output.take_touched().collect::<Vec<_>>(), [3, 64, 130]);
        assert_eq!(output.take_touched().count(), 0);
        assert_eq!(output.queue(3).unwrap().len(), 2);
        assert!(output.send(200, ()).is_err());
    }
}
