//! In which order packets are released: the order in which their streams were opened, whatever order they end in.
//!
//! Pure: no sockets, and time is an argument. What does not live here: reading streams, and telling a peer that one was
//! abandoned.
//!
//! The oldest stream that has not ended is the head. It holds up everything behind it, so only the head can be abandoned:
//! when finished packets have waited behind it too long, when it has been open too long, or when too much memory waits.
//!
//! The first three streams are likely no packets at all: HTTP/3 sets them aside for itself, and a browser opens two of them
//! long before it says anything on them, if ever. Where nothing came on one of those, it is waited for only briefly.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::intake::Bounds;

/// What a tracked stream costs besides its bytes, so that a flood of empty packets behind a stalled head is bounded too.
pub(super) const ENTRY_BYTES: usize = 256;

/// How many streams HTTP/3 sets aside: the control stream and QPACK's two.
const SET_ASIDE: u64 = 3;

/// How patient to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long finished packets may wait behind a head that makes no progress.
    pub(super) wait: Duration,
    /// The same for a stream that HTTP/3 may have set aside and that nothing came on: long enough for a lost first
    /// datagram to be sent again, short enough that nobody hears it when a browser joins.
    pub(super) silent_wait: Duration,
    /// How long a stream may take from its opening to its end, and how large its packet may be.
    pub(super) packet: Bounds,
    /// How many bytes all tracked streams may hold besides one largest packet, with [`ENTRY_BYTES`] for each.
    pub(super) reorder_bytes: usize,
}

impl Limits {
    /// A stream that is too large is found out by the piece that makes it so: the head alone never gets this far.
    fn bytes(&self) -> usize {
        self.reorder_bytes.saturating_add(self.packet.max_packet_bytes)
    }
}

/// Why a stream was abandoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Abandoned {
    /// It made no progress while later packets waited for it.
    Stalled,
    /// It did not end in its lifetime.
    Overdue,
    /// Too much memory waited for it.
    Memory,
}

#[derive(Debug)]
enum State<P> {
    Open { progress: Instant, bytes: usize },
    Finished { packet: P, bytes: usize },
    Gone,
}

#[derive(Debug)]
struct Entry<P> {
    id: u64,
    opened: Instant,
    state: State<P>,
}

impl<P> Entry<P> {
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self.state {
                State::Open { bytes, .. } | State::Finished { bytes, .. } => bytes,
                State::Gone => 0,
            }
    }
}

/// The streams of one connection that are open, or finished and not yet released. Ids grow in the order of opening.
#[derive(Debug)]
pub(super) struct Sequencer<P> {
    limits: Limits,
    /// By id. The front is open or finished, never gone.
    entries: VecDeque<Entry<P>>,
    /// When which stream finished behind an open one, oldest first; ids before the front of `entries` are history.
    finished: VecDeque<(u64, Instant)>,
    held: usize,
}

impl<P> Sequencer<P> {
    /// Tracks nothing yet.
    #[must_use]
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, entries: VecDeque::new(), finished: VecDeque::new(), held: 0 }
    }

    /// Other bounds for packets from now on, those under way included.
    pub(super) fn rebound(&mut self, packet: Bounds) {
        self.limits.packet = packet;
    }

    /// How many bytes wait here, with [`ENTRY_BYTES`] for each stream.
    #[must_use]
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// How many streams are tracked.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether this stream is the head: its packet will be the next one released.
    #[must_use]
    pub(super) fn is_next(&self, id: u64) -> bool {
        self.entries.front().is_some_and(|head| head.id == id)
    }

    /// A stream was opened. Those of lower ids come first, also when they are told of later.
    pub(super) fn opened(&mut self, id: u64, now: Instant) {
        if let Err(at) = self.position(id) {
            let entry = Entry { id, opened: now, state: State::Open { progress: now, bytes: 0 } };
            self.held += entry.bytes();
            self.entries.insert(at, entry);
        }
    }

    /// A stream has `bytes` by now. False if it is not open here (any more).
    pub(super) fn progressed(&mut self, id: u64, bytes: usize, now: Instant) -> bool {
        self.change(id, State::Open { progress: now, bytes })
    }

    /// A stream ended with this packet of so many bytes. False if it is not open here (any more).
    pub(super) fn finished(&mut self, id: u64, packet: P, bytes: usize, now: Instant) -> bool {
        let behind = self.entries.front().is_some_and(|head| head.id < id);
        let known = self.change(id, State::Finished { packet, bytes });
        if known && behind {
            self.finished.push_back((id, now));
        }
        known
    }

    /// A stream ended without a packet: reset, or not one of the session's. False if it is not open here (any more).
    pub(super) fn gone(&mut self, id: u64) -> bool {
        let known = self.change(id, State::Gone);
        self.trim();
        known
    }

    /// The next packet in order, if its turn has come.
    pub(super) fn release(&mut self) -> Option<P> {
        if !matches!(self.entries.front()?.state, State::Finished { .. }) {
            return None;
        }
        let entry = self.pop()?;
        self.trim();
        match entry.state {
            State::Finished { packet, .. } => Some(packet),
            State::Open { .. } | State::Gone => None,
        }
    }

    /// The head, if it has been waited for long enough. [`Self::gone`] is how it is given up.
    #[must_use]
    pub(super) fn overdue(&self, now: Instant) -> Option<(u64, Abandoned)> {
        let (head, progress, wait) = self.head()?;
        if self.held > self.limits.bytes() {
            return Some((head.id, Abandoned::Memory));
        }
        if self.patience(progress, wait).is_some_and(|until| now >= until) {
            return Some((head.id, Abandoned::Stalled));
        }
        (now >= self.end_of(head)).then_some((head.id, Abandoned::Overdue))
    }

    /// Whether this is a stream that HTTP/3 may have set aside for itself.
    #[must_use]
    pub(super) const fn may_be_set_aside(id: u64) -> bool {
        id < SET_ASIDE
    }

    /// When [`Self::overdue`] must be asked again if nothing happens until then.
    #[must_use]
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (head, progress, wait) = self.head()?;
        let end = self.end_of(head);
        Some(self.patience(progress, wait).map_or(end, |until| until.min(end)))
    }

    /// The head, its last progress, and how long packets may wait behind it.
    fn head(&self) -> Option<(&Entry<P>, Instant, Duration)> {
        let head = self.entries.front()?;
        match head.state {
            State::Open { progress, .. } => {
                let silent = Self::may_be_set_aside(head.id) && progress == head.opened;
                Some((head, progress, if silent { self.limits.silent_wait } else { self.limits.wait }))
            }
            State::Finished { .. } | State::Gone => None,
        }
    }

    /// When a stream must have ended, as far as it has come.
    fn end_of(&self, entry: &Entry<P>) -> Instant {
        entry.opened + self.limits.packet.time_for(entry.bytes() - ENTRY_BYTES)
    }

    /// Until when a head with this last progress is waited for; `None` where nothing waits behind it.
    fn patience(&self, progress: Instant, wait: Duration) -> Option<Instant> {
        self.finished.front().map(|&(_, since)| since.max(progress) + wait)
    }

    fn position(&self, id: u64) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.id)
    }

    fn change(&mut self, id: u64, state: State<P>) -> bool {
        let Ok(at) = self.position(id) else { return false };
        let Some(entry) = self.entries.get_mut(at) else { return false };
        if !matches!(entry.state, State::Open { .. }) {
            return false;
        }
        self.held -= entry.bytes();
        entry.state = state;
        self.held += entry.bytes();
        true
    }

    fn pop(&mut self) -> Option<Entry<P>> {
        let entry = self.entries.pop_front()?;
        self.held -= entry.bytes();
        Some(entry)
    }

    /// Keeps what is over from being at the front.
    fn trim(&mut self) {
        while self.entries.front().is_some_and(|head| matches!(head.state, State::Gone)) {
            self.pop();
        }
        let first = self.entries.front().map_or(u64::MAX, |head| head.id);
        while self.finished.front().is_some_and(|&(id, _)| id < first) {
            self.finished.pop_front();
        }
    }
}

#[cfg(test)]
#[path = "sequencer_tests.rs"]
mod tests;
