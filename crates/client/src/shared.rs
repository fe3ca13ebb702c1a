//! What the application's handles and the connection's task share: the outbox, the wish to close, the counters.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::handover::{Marker, Memory};
use crate::outbox::{Batch, Outbox, Outgoing, QueueBounds, SendError};

/// How many packets went where, since the client was made. Every packet given to `send` is in exactly one of `sent`,
/// `unconfirmed`, `dropped` or still waiting; one that `send` refused is in `refused`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets handed to the system.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets that were being written when the connection ended: they may have arrived or not, and are not sent again.
    pub unconfirmed: u64,
    /// Packets taken and then dropped: media when the connection ended, everything when the client closed.
    pub dropped: u64,
    /// Packets that `send` did not take: the error said why.
    pub refused: u64,
    /// Packets received. One that two connections brought is received once.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Connections made.
    pub connections: u64,
    /// Moves from a draining node to another without a gap: those of the connections that were joined before the last one
    /// had ended.
    pub handovers: u64,
    /// Packets that the new connection of a move brought after the old one had: left out, and not `received` again.
    pub matched: u64,
    /// This client's own packets, sent on the old connection of a move, that came back by the new one: left out.
    pub echoes: u64,
    /// Times that the new connection of a move was not read further, since more waited for the old one's end than
    /// `receive_queue` holds. Nothing is lost by it here.
    pub held_full: u64,
    /// Packets of an old connection that were forgotten during a move, since they were more than can be remembered: the new
    /// one may have brought them again.
    pub forgotten: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) unconfirmed: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) handovers: AtomicU64,
    pub(crate) matched: AtomicU64,
    pub(crate) echoes: AtomicU64,
    pub(crate) held_full: AtomicU64,
    pub(crate) forgotten: AtomicU64,
}

/// Adds to a counter and returns its new value.
pub(crate) fn count(counter: &AtomicU64, more: usize) -> u64 {
    counter.fetch_add(more as u64, Ordering::Relaxed) + more as u64
}

#[derive(Debug)]
pub(crate) struct Shared {
    outbox: Mutex<Outbox>,
    /// Something came into the outbox. One waiter: the writer.
    pub(crate) filled: Notify,
    /// Room was made in the outbox, or it was closed. Any number of waiters.
    pub(crate) drained: Notify,
    pub(crate) closing: CancellationToken,
    pub(crate) counters: Counters,
    /// Where packets are remembered, for a move to another node.
    pub(crate) marker: Option<Marker>,
    sent: Mutex<Memory<u64>>,
}

impl Shared {
    /// `marker` is given where the client may be asked to move to another node.
    pub(crate) fn new(bounds: QueueBounds, marker: Option<Marker>) -> Self {
        Self {
            outbox: Mutex::new(Outbox::new(bounds)),
            filled: Notify::new(),
            drained: Notify::new(),
            closing: CancellationToken::new(),
            counters: Counters::default(),
            marker,
            sent: Mutex::default(),
        }
    }

    /// These are about to be sent; they may come back.
    pub(crate) fn remember_sent<'a>(&self, packets: impl IntoIterator<Item = &'a Bytes>, now: Instant) {
        let Some(marker) = &self.marker else { return };
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        for packet in packets {
            // What no longer fits in the memory is counted nowhere: nothing waits for it unless a move is under way, and
            // that ends long before so much was sent.
            sent.add(marker.sent(packet), now);
        }
    }

    /// What was sent lately, the oldest first.
    pub(crate) fn sent_lately<T>(&self, now: Instant, act: impl FnOnce(&VecDeque<(u64, Instant)>) -> T) -> T {
        act(self.sent.lock().unwrap_or_else(PoisonError::into_inner).entries(now))
    }

    /// A packet is handed on to the application.
    pub(crate) fn received(&self, bytes: usize) {
        count(&self.counters.received, 1);
        count(&self.counters.received_bytes, bytes);
    }

    fn outbox<T>(&self, act: impl FnOnce(&mut Outbox) -> T) -> T {
        act(&mut self.outbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a packet in, not counting a refusal.
    pub(crate) fn push(&self, packet: Outgoing) -> Result<(), SendError> {
        self.outbox(|outbox| outbox.push(packet))?;
        self.filled.notify_one();
        Ok(())
    }

    pub(crate) fn take(&self) -> Option<Batch> {
        let batch = self.outbox(Outbox::take)?;
        self.drained.notify_waiters();
        Some(batch)
    }

    pub(crate) fn connected(&self) {
        self.outbox(Outbox::connected);
    }

    pub(crate) fn disconnected(&self) {
        let dropped = self.outbox(Outbox::disconnected);
        count(&self.counters.dropped, dropped);
        self.drained.notify_waiters();
    }

    /// From now on no packets are taken.
    pub(crate) fn refuse(&self) {
        self.outbox(Outbox::refuse);
        self.drained.notify_waiters();
    }

    /// For good: nothing waits any more.
    pub(crate) fn finish(&self) {
        self.refuse();
        let dropped = self.outbox(Outbox::clear);
        count(&self.counters.dropped, dropped);
    }

    pub(crate) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Stats {
            sent: read(&counters.sent),
            sent_bytes: read(&counters.sent_bytes),
            unconfirmed: read(&counters.unconfirmed),
            dropped: read(&counters.dropped),
            refused: read(&counters.refused),
            received: read(&counters.received),
            received_bytes: read(&counters.received_bytes),
            connections: read(&counters.connections),
            handovers: read(&counters.handovers),
            matched: read(&counters.matched),
            echoes: read(&counters.echoes),
            held_full: read(&counters.held_full),
            forgotten: read(&counters.forgotten),
        }
    }
}
