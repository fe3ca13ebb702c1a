//! What a connection may do while another one is beside it: whether what it brings is handed on or held back, and whether
//! it sends.
//!
//! What lives here: the switch, shared by the connection that obeys it and the one that turns it (`moving`). What does not:
//! what is matched (`handover`).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::handover::{Mark, Matcher, Memory, Verdict};
use crate::inbox::{InboxWriter, Received};
use crate::outbox::QueueBounds;
use crate::shared::{Shared, count};

/// What a connection does with what is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing: another connection sends.
    Hold,
    /// It sends.
    Send,
    /// It says that it is done, and waits for the server to close.
    Finish,
    /// It closes, whatever the server does.
    Abandon,
}

/// One connection's switch.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Which of this client's connections it is, counted from 1.
    pub(crate) number: u64,
    /// The server asked to leave.
    pub(crate) leave: CancellationToken,
    mode: watch::Sender<Mode>,
    passage: Mutex<Passage>,
    /// What was held back is handed on.
    opened: Notify,
}

#[derive(Debug)]
struct Passage {
    /// What the connection brought lately.
    memory: Memory<Mark>,
    /// `None`: it is handed on at once.
    held: Option<Held>,
    matcher: Option<Matcher>,
    /// Another connection took over: it brings what this one would.
    over: bool,
}

/// What is held back, at most as much as the receive queue holds.
#[derive(Debug)]
struct Held {
    packets: VecDeque<((Mark, Instant), Bytes)>,
    bytes: usize,
    bounds: QueueBounds,
}

/// What became of a packet.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is to be handed on.
    Pass(Received),
    /// It is not, now or ever.
    Kept,
    /// Too much is held back: ask again once [`Gate::opened`].
    Full(Bytes),
}

impl Gate {
    /// A connection that is the only one.
    pub(crate) fn open(number: u64) -> Self {
        Self::new(number, Mode::Send, None)
    }

    /// A connection beside an older one: what it brings is held back, and it does not send.
    pub(crate) fn closed(number: u64, bounds: QueueBounds) -> Self {
        Self::new(number, Mode::Hold, Some(Held { packets: VecDeque::new(), bytes: 0, bounds }))
    }

    fn new(number: u64, mode: Mode, held: Option<Held>) -> Self {
        Self {
            number,
            leave: CancellationToken::new(),
            mode: watch::Sender::new(mode),
            passage: Mutex::new(Passage { memory: Memory::default(), held, matcher: None, over: false }),
            opened: Notify::new(),
        }
    }

    pub(crate) fn mode(&self) -> watch::Receiver<Mode> {
        self.mode.subscribe()
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// A packet came.
    pub(crate) fn take(&self, bytes: Bytes, shared: &Shared, now: Instant) -> Taken {
        let mark = shared.marker.as_ref().map(|marker| marker.mark(&bytes));
        let mut passage = self.lock();
        // What it has brought is known to its successor by now; what it brings after that, both would hand on.
        if *self.mode.borrow() == Mode::Abandon {
            return Taken::Kept;
        }
        let Some(mark) = mark else { return Taken::Pass(self.received(bytes)) };
        if passage.over {
            return Taken::Kept;
        }
        if let Some(held) = &mut passage.held {
            if !held.takes(bytes.len()) {
                return Taken::Full(bytes);
            }
            held.bytes += bytes.len();
            held.packets.push_back(((mark, now), bytes));
            passage.remember(mark, shared, now);
            return Taken::Kept;
        }
        passage.remember(mark, shared, now);
        if passage.passes(mark, shared, now) { Taken::Pass(self.received(bytes)) } else { Taken::Kept }
    }

    /// Waits until what is held back has become less.
    pub(crate) async fn opened(&self) {
        self.opened.notified().await;
    }

    /// Nothing was read for a while, for this side's reasons.
    pub(crate) fn was_deaf(&self, now: Instant) {
        if let Some(matcher) = &mut self.lock().matcher {
            matcher.postpone(now);
        }
    }

    /// From now on nothing that this connection brought is forgotten.
    pub(crate) fn keep(&self, now: Instant) {
        self.lock().memory.keep(now);
    }

    /// Takes over from `old`, which has ended or is given up: what is held back is matched with what that brought, and what
    /// it still brings is thrown away.
    pub(crate) fn succeed(&self, old: &Self, shared: &Shared, now: Instant) {
        let mut memory = {
            let mut old = old.lock();
            old.over = true;
            std::mem::take(&mut old.memory)
        };
        let mut passage = self.lock();
        let held = passage.held.iter().flat_map(|held| held.packets.iter().map(|(seen, _)| seen));
        let matcher = shared.sent_lately(now, |sent| Matcher::new(memory.entries(now), sent, held, now));
        passage.matcher = Some(matcher);
    }

    /// Hands on what is held back and is new, and from then on everything at once. Ends early where nobody takes packets any
    /// more.
    pub(crate) async fn hand_on(&self, shared: &Shared, inbox: &InboxWriter, now: impl Fn() -> Instant) {
        loop {
            let packet = {
                let mut passage = self.lock();
                let Some(held) = &mut passage.held else { return };
                let Some(((mark, _), bytes)) = held.packets.pop_front() else {
                    passage.held = None;
                    self.opened.notify_one();
                    return;
                };
                held.bytes -= bytes.len();
                self.opened.notify_one();
                passage.passes(mark, shared, now()).then_some(bytes)
            };
            let Some(bytes) = packet else { continue };
            shared.received(bytes.len());
            if !inbox.put(self.received(bytes)).await {
                return;
            }
        }
    }

    fn received(&self, bytes: Bytes) -> Received {
        Received { bytes, connection: self.number }
    }

    fn lock(&self) -> MutexGuard<'_, Passage> {
        self.passage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passage {
    fn remember(&mut self, mark: Mark, shared: &Shared, now: Instant) {
        if !self.memory.add(mark, now) {
            count(&shared.counters.forgotten, 1);
        }
    }

    fn passes(&mut self, mark: Mark, shared: &Shared, now: Instant) -> bool {
        let Some(matcher) = &mut self.matcher else { return true };
        if matcher.is_over(now) {
            self.matcher = None;
            return true;
        }
        let counter = match matcher.judge(mark) {
            Verdict::New => return true,
            Verdict::Brought => &shared.counters.matched,
            Verdict::Echo => &shared.counters.echoes,
        };
        count(counter, 1);
        false
    }
}

impl Held {
    fn takes(&self, length: usize) -> bool {
        self.packets.is_empty()
            || (self.packets.len() < self.bounds.packets && self.bytes + length <= self.bounds.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use roomcast_protocol::Dialect;

    use super::*;
    use crate::handover::Marker;

    #[test]
    fn an_old_connection_that_was_given_up_hands_nothing_on_beside_its_successor() {
        let bounds = QueueBounds { packets: 10, bytes: 1000 };
        let shared = Shared::new(bounds, Some(Marker::new(Dialect::Seed)));
        let (old, new) = (Gate::open(1), Gate::closed(2, bounds));
        let now = Instant::now();
        let packet = |bytes: &'static [u8]| Bytes::from_static(bytes);
        assert!(matches!(old.take(packet(b"one"), &shared, now), Taken::Pass(_)));
        for bytes in [b"one".as_slice(), b"two"] {
            assert!(matches!(new.take(packet(bytes), &shared, now), Taken::Kept));
        }
        // It does not end in time, while its last packets are still coming.
        old.set_mode(Mode::Abandon);
        new.succeed(&old, &shared, now);
        assert!(matches!(old.take(packet(b"two"), &shared, now + Duration::from_millis(1)), Taken::Kept));
    }
}
