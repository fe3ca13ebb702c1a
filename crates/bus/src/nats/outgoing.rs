//! What waits for the broker: one egress queue for the node. What lives here: its lock, its bounds and what it counts. What does not:
//! who hands it to the broker.
//!
//! The queue is open only while a connection carries it; what is still in it when the connection is lost is dropped there and
//! then, under the same lock, so nothing of one connection can wait for the next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use roomcast_protocol::{Class, Packet, SessionId, Tag};
use roomcast_relay::{Batch, Budget, DropReason, EgressLimits, EgressQueue, Pushed, Queued, Time};
use tokio::sync::{Notify, oneshot};

use crate::{BusCounts, Published};

/// What is handed over at once. More would only wait in the client library, where nothing can be dropped.
const BATCH: Batch = Batch { packets: 32, bytes: 128 * 1024 };

/// A message on its way to the broker.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) subject: String,
    pub(super) payload: Bytes,
    /// No message at all, but somebody who waits until what is before it has passed.
    pub(super) marker: Option<oneshot::Sender<()>>,
    tag: Tag,
}

impl Message {
    pub(super) fn packet(subject: String, packet: &Packet) -> Self {
        Self { subject, payload: Bytes::from_owner(Payload(packet.clone())), marker: None, tag: *packet.tag() }
    }

    pub(super) fn control(subject: String, payload: Bytes) -> Self {
        Self { subject, payload, marker: None, tag: Tag { sender: SessionId(0), class: Class::Control, flow: 0 } }
    }
}

impl Message {
    pub(super) fn marker(marker: oneshot::Sender<()>) -> Self {
        Self { marker: Some(marker), ..Self::control(String::new(), Bytes::new()) }
    }
}

impl Queued for Message {
    fn tag(&self) -> &Tag {
        &self.tag
    }

    fn length(&self) -> usize {
        self.payload.len()
    }
}

/// A packet's payload, shared with the packet itself.
struct Payload(Packet);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.0.payload()
    }
}

/// The node's outgoing queue.
#[derive(Debug)]
pub(super) struct Outgoing {
    start: Instant,
    limits: EgressLimits,
    waiting: Mutex<Waiting>,
    /// What `open` is, for a look without the lock.
    carried: AtomicUsize,
    filled: Notify,
}

#[derive(Debug)]
struct Waiting {
    queue: EgressQueue<Message>,
    /// The largest payload that the broker takes; 0: nobody carries anything.
    open: usize,
    counts: BusCounts,
}

impl Outgoing {
    pub(super) fn new(limits: EgressLimits) -> Self {
        // The queue's own bounds are the only ones: a share of the budget is never refused.
        let queue = EgressQueue::new(&Budget::new(usize::MAX));
        let waiting = Waiting { queue, open: 0, counts: BusCounts::default() };
        Self {
            start: Instant::now(),
            limits,
            waiting: Mutex::new(waiting),
            carried: AtomicUsize::new(0),
            filled: Notify::new(),
        }
    }

    /// No code that holds the lock leaves a change half done, so a poisoned one is as good as new.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time::from_start(self.start.elapsed())
    }

    /// Queues a message, unless nobody carries it, it is too large or there is no room; `make` is called only where needed.
    pub(super) fn push(&self, length: usize, make: impl FnOnce() -> Message) -> Published {
        // A first look without the lock, so that a bus that is down costs next to nothing; what counts is the one under it.
        if self.carried.load(Ordering::Relaxed) == 0 {
            return Published::Down;
        }
        let (message, now) = (make(), self.now());
        let mut waiting = self.lock();
        if waiting.open == 0 {
            return Published::Down;
        }
        if length > waiting.open {
            return Published::Full;
        }
        let Waiting { queue, counts, .. } = &mut *waiting;
        let pushed = queue.push(message, now, &self.limits, &mut |_, reason| *counter(counts, reason) += 1);
        if let Pushed::Dropped(reason) = pushed {
            // The queue has told of the newcomer too, which is for the caller to count.
            *counter(counts, reason) -= 1;
            return Published::Full;
        }
        drop(waiting);
        if pushed == Pushed::First {
            self.filled.notify_one();
        }
        Published::Sent
    }

    /// A connection carries from now on.
    pub(super) fn open(&self, max_payload: usize) {
        self.set_open(&mut self.lock(), max_payload);
    }

    /// Nothing more is taken; what waits stays, to be sent before an orderly end.
    pub(super) fn refuse(&self) {
        self.set_open(&mut self.lock(), 0);
        self.filled.notify_one();
    }

    /// The connection is lost: nothing more is taken, what waits is dropped.
    pub(super) fn shut(&self) {
        let mut waiting = self.lock();
        self.set_open(&mut waiting, 0);
        // A new one, since a queue that was closed stays so.
        let old = std::mem::replace(&mut waiting.queue, EgressQueue::new(&Budget::new(usize::MAX)));
        waiting.counts.dropped_down += old.len() as u64;
        // Before what was in it is freed: publishers do not wait for that.
        drop(waiting);
    }

    fn set_open(&self, waiting: &mut Waiting, max_payload: usize) {
        waiting.open = max_payload;
        self.carried.store(max_payload, Ordering::Relaxed);
    }

    /// Moves the next messages to `out`, once there are some, up to a batch; false where nothing is left and nothing more is taken.
    /// Cancel-safe; for one reader.
    pub(super) async fn next(&self, out: &mut Vec<Message>) -> bool {
        loop {
            {
                let now = self.now();
                let mut waiting = self.lock();
                let Waiting { queue, counts, open } = &mut *waiting;
                let mut drops = |_: &Message, reason| *counter(counts, reason) += 1;
                if queue.drain(now, &self.limits, BATCH, out, &mut drops).packets > 0 {
                    return true;
                }
                if *open == 0 {
                    return false;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Counts what happened elsewhere.
    pub(super) fn count(&self, change: impl FnOnce(&mut BusCounts)) {
        change(&mut self.lock().counts);
    }

    pub(super) fn take_counts(&self) -> BusCounts {
        std::mem::take(&mut self.lock().counts)
    }
}

fn counter(counts: &mut BusCounts, reason: DropReason) -> &mut u64 {
    match reason {
        DropReason::Late | DropReason::Congested => &mut counts.dropped_late,
        DropReason::Closed | DropReason::BusDown => &mut counts.dropped_down,
        _ => &mut counts.dropped_full,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use roomcast_protocol::PacketBuffer;

    use super::*;

    fn outgoing(packets: usize) -> Outgoing {
        Outgoing::new(EgressLimits { packets, bytes: 1 << 20, max_delay: Duration::from_secs(3_600) })
    }

    fn push(outgoing: &Outgoing, class: Class, name: &str) -> Published {
        let mut buffer = PacketBuffer::new();
        buffer.extend(name.as_bytes());
        let packet = buffer.seal(Tag { sender: SessionId(1), class, flow: 0 }, None);
        outgoing.push(name.len(), || Message::packet(name.to_owned(), &packet))
    }

    fn waiting(outgoing: &Outgoing) -> Vec<String> {
        let mut out = Vec::new();
        assert_eq!(outgoing.next(&mut out).now_or_never(), Some(true));
        out.into_iter().map(|message| message.subject).collect()
    }

    #[test]
    fn nothing_is_taken_while_nobody_carries_it_nor_kept_for_the_next_who_does() {
        let outgoing = outgoing(8);
        assert_eq!(push(&outgoing, Class::Audio, "before"), Published::Down);
        outgoing.open(100);
        assert_eq!(push(&outgoing, Class::Audio, "waits"), Published::Sent);
        outgoing.shut();
        assert_eq!(push(&outgoing, Class::Audio, "between"), Published::Down);
        outgoing.open(100);
        assert_eq!(push(&outgoing, Class::Audio, "after"), Published::Sent);
        assert_eq!(waiting(&outgoing), ["after"]);
        assert_eq!(outgoing.take_counts(), BusCounts { dropped_down: 1, ..BusCounts::default() });
        assert_eq!(push(&outgoing, Class::Audio, "last"), Published::Sent);
        outgoing.refuse();
        assert_eq!(push(&outgoing, Class::Audio, "closed"), Published::Down);
        assert_eq!(waiting(&outgoing), ["last"]);
        assert_eq!(outgoing.next(&mut Vec::new()).now_or_never(), Some(false));
    }

    #[test]
    fn a_full_queue_drops_the_oldest_video_first_and_control_last() {
        let outgoing = outgoing(4);
        outgoing.open(100);
        for (class, name) in [
            (Class::Control, "control"),
            (Class::Delta, "old video"),
            (Class::Opaque, "media"),
            (Class::Audio, "audio"),
        ] {
            assert_eq!(push(&outgoing, class, name), Published::Sent);
        }
        let event = || Message::control("event".to_owned(), Bytes::new());
        assert_eq!(outgoing.push(0, event), Published::Sent, "video goes for it");
        assert_eq!(push(&outgoing, Class::Audio, "more audio"), Published::Sent, "media goes for it");
        assert_eq!(push(&outgoing, Class::Opaque, "refused"), Published::Full, "all that waits matters more");
        assert_eq!(waiting(&outgoing), ["control", "audio", "event", "more audio"]);
        let counted = outgoing.take_counts();
        assert_eq!(counted, BusCounts { dropped_full: 2, ..BusCounts::default() }, "the refused one is the caller's");
    }

    #[test]
    fn what_the_broker_does_not_take_is_refused_alone() {
        let outgoing = outgoing(8);
        outgoing.open(5);
        assert_eq!(push(&outgoing, Class::Control, "fits!"), Published::Sent);
        assert_eq!(push(&outgoing, Class::Control, "larger"), Published::Full);
        assert_eq!(waiting(&outgoing), ["fits!"]);
        assert_eq!(outgoing.take_counts(), BusCounts::default());
    }
}
