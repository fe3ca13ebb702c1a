//! What waits to be sent: bounded in packets and bytes, in order.
//!
//! What lives here: what is taken, what is refused, and what is dropped when the connection goes. What does not: waking
//! whoever waits, and the sending.

use std::collections::VecDeque;

use bytes::Bytes;
use roomcast_protocol::MAX_PACKET_BYTES;

/// How much a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBounds {
    /// Packets. At least 1.
    pub packets: usize,
    /// Bytes of all packets together. A packet that is larger than this is taken only into an empty queue.
    pub bytes: usize,
}

/// Why a packet was not taken. Nothing of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The queue is full: the connection is slower than the sender. Try again, or leave the packet out.
    #[error("the send queue is full")]
    Full,
    /// No server would take it.
    #[error("the packet has {0} bytes; the largest allowed has {MAX_PACKET_BYTES}")]
    TooLarge(usize),
    /// Media while there is no connection: late media is of no use. Everything else waits for the next connection.
    #[error("there is no connection, and media does not wait for one")]
    Disconnected,
    /// The client is closed for good.
    #[error("the client is closed")]
    Closed,
}

/// One packet on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) bytes: Bytes,
    /// Dropped when the connection goes.
    pub(crate) media: bool,
    /// May travel as a datagram, where the transport has them.
    pub(crate) unreliable: bool,
}

/// What the writer gets next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Batch {
    /// Packets to write in order.
    Reliable(Vec<Bytes>),
    /// One packet that may be lost.
    Unreliable(Bytes),
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Outbox {
    bounds: QueueBounds,
    queue: VecDeque<Outgoing>,
    bytes: usize,
    connected: bool,
    closed: bool,
}

/// A batch holds no more than this, so that a ping or a close never waits long behind it.
const BATCH_PACKETS: usize = 64;
const BATCH_BYTES: usize = 256 * 1024;

impl Outbox {
    pub(crate) fn new(bounds: QueueBounds) -> Self {
        Self { bounds, queue: VecDeque::new(), bytes: 0, connected: false, closed: false }
    }

    /// Takes a packet, or says why not.
    pub(crate) fn push(&mut self, packet: Outgoing) -> Result<(), SendError> {
        let length = packet.bytes.len();
        if self.closed {
            Err(SendError::Closed)
        } else if length > MAX_PACKET_BYTES {
            Err(SendError::TooLarge(length))
        } else if packet.media && !self.connected {
            Err(SendError::Disconnected)
        } else if !self.queue.is_empty()
            && (self.queue.len() >= self.bounds.packets || self.bytes + length > self.bounds.bytes)
        {
            Err(SendError::Full)
        } else {
            self.bytes += length;
            self.queue.push_back(packet);
            Ok(())
        }
    }

    /// Takes out what is to be written next; `None` where nothing waits.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        let first = self.pop()?;
        if first.unreliable {
            return Some(Batch::Unreliable(first.bytes));
        }
        let mut bytes = first.bytes.len();
        let mut batch = vec![first.bytes];
        while batch.len() < BATCH_PACKETS
            && self.queue.front().is_some_and(|next| !next.unreliable && bytes + next.bytes.len() <= BATCH_BYTES)
        {
            if let Some(next) = self.pop() {
                bytes += next.bytes.len();
                batch.push(next.bytes);
            }
        }
        Some(Batch::Reliable(batch))
    }

    fn pop(&mut self) -> Option<Outgoing> {
        let packet = self.queue.pop_front()?;
        self.bytes -= packet.bytes.len();
        Some(packet)
    }

    /// From now on media is taken.
    pub(crate) fn connected(&mut self) {
        self.connected = true;
    }

    /// From now on media is refused. Says how many packets of media were dropped; the rest waits.
    pub(crate) fn disconnected(&mut self) -> usize {
        self.connected = false;
        let before = self.queue.len();
        self.queue.retain(|packet| !packet.media);
        self.bytes = self.queue.iter().map(|packet| packet.bytes.len()).sum();
        before - self.queue.len()
    }

    /// From now on nothing is taken; what waits can still be taken out.
    pub(crate) fn refuse(&mut self) {
        self.closed = true;
    }

    /// Drops what still waits. Says how many packets that were.
    pub(crate) fn clear(&mut self) -> usize {
        self.bytes = 0;
        std::mem::take(&mut self.queue).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(length: usize, media: bool) -> Outgoing {
        Outgoing { bytes: Bytes::from(vec![length as u8; length]), media, unreliable: false }
    }

    fn outbox(packets: usize, bytes: usize) -> Outbox {
        let mut outbox = Outbox::new(QueueBounds { packets, bytes });
        outbox.connected();
        outbox
    }

    #[test]
    fn it_is_bounded_in_packets_and_in_bytes() {
        let mut outbox = outbox(2, 10);
        assert_eq!(outbox.push(packet(4, true)), Ok(()));
        assert_eq!(outbox.push(packet(7, true)), Err(SendError::Full));
        assert_eq!(outbox.push(packet(6, true)), Ok(()));
        assert_eq!(outbox.push(packet(0, true)), Err(SendError::Full));
        assert!(outbox.take().is_some());
        assert_eq!(outbox.push(packet(11, true)), Ok(()), "a large packet is taken into an empty queue");
        assert_eq!(outbox.push(packet(MAX_PACKET_BYTES + 1, true)), Err(SendError::TooLarge(MAX_PACKET_BYTES + 1)));
    }

    #[test]
    fn batches_keep_the_order_and_stay_small() {
        let mut outbox = outbox(1000, usize::MAX);
        for length in 0..100 {
            outbox.push(packet(length, true)).unwrap();
        }
        let Some(Batch::Reliable(first)) = outbox.take() else { panic!("no batch") };
        let Some(Batch::Reliable(second)) = outbox.take() else { panic!("no batch") };
        assert_eq!(first.len(), BATCH_PACKETS);
        let lengths: Vec<usize> = first.iter().chain(&second).map(Bytes::len).collect();
        assert_eq!(lengths, (0..100).collect::<Vec<_>>());
        for _ in 0..3 {
            outbox.push(packet(BATCH_BYTES / 2, true)).unwrap();
        }
        assert!(matches!(outbox.take(), Some(Batch::Reliable(two)) if two.len() == 2));
        assert!(matches!(outbox.take(), Some(Batch::Reliable(one)) if one.len() == 1));
        assert_eq!(outbox.take(), None);
    }

    #[test]
    fn what_may_be_lost_goes_by_itself_and_in_its_turn() {
        let mut outbox = outbox(10, 1000);
        let unreliable = Outgoing { unreliable: true, ..packet(2, false) };
        for next in [packet(1, false), unreliable, packet(3, false)] {
            outbox.push(next).unwrap();
        }
        assert!(matches!(outbox.take(), Some(Batch::Reliable(one)) if one.len() == 1));
        assert!(matches!(outbox.take(), Some(Batch::Unreliable(bytes)) if bytes.len() == 2));
        assert!(matches!(outbox.take(), Some(Batch::Reliable(one)) if one.len() == 1));
    }

    #[test]
    fn without_a_connection_media_is_refused_and_the_rest_waits() {
        let mut outbox = outbox(10, 1000);
        for next in [packet(1, true), packet(2, false), packet(3, true)] {
            outbox.push(next).unwrap();
        }
        assert_eq!(outbox.disconnected(), 2);
        assert_eq!(outbox.push(packet(4, true)), Err(SendError::Disconnected));
        assert_eq!(outbox.push(packet(5, false)), Ok(()));
        assert_eq!(outbox.bytes, 7);
        outbox.connected();
        assert!(matches!(outbox.take(), Some(Batch::Reliable(two)) if two.len() == 2));
    }

    #[test]
    fn a_closed_one_takes_nothing_and_says_what_it_drops() {
        let mut outbox = outbox(10, 1000);
        outbox.push(packet(1, false)).unwrap();
        outbox.refuse();
        assert_eq!(outbox.push(packet(1, false)), Err(SendError::Closed));
        assert_eq!(outbox.clear(), 1);
        assert_eq!(outbox.take(), None);
    }
}
