//! One receiver's egress: the queue that `relay` decides about, a lock, and the connection's writer while nobody writes.
//!
//! It belongs to the store, not to the connection's actor: senders hold it through fan-out tables, and when the actor
//! dies the writer still owes the client a close frame.
//!
//! A push wakes no task of this receiver's: it puts the egress into its [flush set](super::flush), whose flusher writes without
//! waiting. Only a socket that takes no more, and what must be waited for, costs a task of its own, for as long as that lasts.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use roomcast_protocol::notice::Notice;
use roomcast_protocol::{Class, CloseCode, Packet, PacketBuffer, SessionId, Tag, UserId};
use roomcast_relay::{Batch, Density, DropReason, EgressQueue, Time};
use roomcast_transport::PacketWriter;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::outlet::Outlet;
use super::{Lane, Live, Store};
use crate::metrics::Transport;

/// The most that is taken from a queue at once: what a vectored write or two take, and a bound on what a crash of the
/// socket loses.
const BATCH: Batch = Batch { packets: 256, bytes: 256 * 1024 };
/// A wait for company ends early when this much waits: the batch is already as cheap as it gets.
const FULL_BATCH: Batch = Batch { packets: 64, bytes: 64 * 1024 };
/// How long a write that is under way when the connection is closed may still take.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Where packets for one session wait. Shared by fan-out tables, the connection and its writer.
pub struct Egress {
    session: SessionId,
    user: UserId,
    transport: Transport,
    /// Where its connection lives.
    lane: Arc<Lane>,
    /// Whether its client understands notices.
    notices: bool,
    /// Whether it was told that the node is draining.
    told: AtomicBool,
    /// Packets for this receiver that were dropped.
    drops: AtomicU64,
    store: Arc<Store>,
    state: Mutex<State>,
    /// Wakes whoever must give up a write when the connection is closed.
    closing: Notify,
    /// Wakes the reader when the settings changed; one waiter only.
    retuned: Notify,
    /// Cancelled when the writer is over.
    ended: CancellationToken,
}

struct State {
    queue: EgressQueue,
    density: Density,
    writer: Writer,
    /// Whether its flusher will come for it, and when.
    scheduled: Scheduled,
    /// Whether the peer is to be asked for a sign of life.
    ping: bool,
    /// The newest ping that was not answered yet: RFC 6455 lets a peer answer the newest only.
    pong: Option<Vec<u8>>,
    close: Option<Closing>,
}

/// How the connection ends.
#[derive(Clone, Copy)]
pub(super) enum Closing {
    /// With a close frame.
    Say(CloseCode, &'static str),
    /// Nobody is there to be told.
    HangUp,
}

/// Where the connection's writer is.
enum Writer {
    /// Not made yet, or somebody writes: whoever that is looks at the queue again before it puts the writer back.
    Away,
    /// Here, and nothing is being written.
    Here(Box<dyn Outlet>),
    /// Gone: nothing can be delivered any more.
    Ended,
}

/// Whether the egress is in its flush set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheduled {
    No,
    /// For when the wait for company is over.
    Later,
    /// For as soon as it can be.
    Now,
}

/// What is to be written next, by whoever has the writer.
pub(super) enum Next {
    /// Nothing: the writer was put back.
    Rest,
    /// The batch.
    Write {
        /// How long the oldest of it has waited.
        longest_wait: Duration,
    },
    Ping,
    Pong(Vec<u8>),
    Close(Closing),
}

impl Egress {
    pub(crate) fn new(
        session: SessionId,
        user: UserId,
        transport: Transport,
        lane: &Arc<Lane>,
        notices: bool,
        store: &Arc<Store>,
    ) -> Arc<Self> {
        Arc::new(Self {
            session,
            user,
            transport,
            lane: Arc::clone(lane),
            notices,
            told: AtomicBool::new(false),
            drops: AtomicU64::new(0),
            store: Arc::clone(store),
            state: Mutex::new(State {
                queue: EgressQueue::new(&store.budget),
                density: Density::default(),
                writer: Writer::Away,
                scheduled: Scheduled::No,
                ping: false,
                pong: None,
                close: None,
            }),
            closing: Notify::new(),
            retuned: Notify::new(),
            ended: CancellationToken::new(),
        })
    }

    /// The receiver.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Who the receiver is.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Where its connection lives.
    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// How the receiver is connected.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether its client understands notices.
    #[must_use]
    pub fn takes_notices(&self) -> bool {
        self.notices
    }

    /// Whether it was told that the node is draining.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Packets and bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.queue.len(), state.queue.bytes())
    }

    /// Packets for this receiver that were dropped, for whatever reason.
    #[must_use]
    pub fn drops(&self) -> u64 {
        self.drops.load(Ordering::Relaxed)
    }

    pub(super) fn dropped(&self, reason: DropReason, packets: u64) {
        self.drops.fetch_add(packets, Ordering::Relaxed);
        self.store.metrics.dropped(reason, packets);
    }

    /// Takes the connection's writer in: from now on what is pushed is written, and the peer is pinged every `timers.ping`.
    pub(crate) fn open(self: &Arc<Self>, writer: impl PacketWriter) {
        self.give_back(Box::new(writer));
        self.lane.flush.keep_alive(self, self.store.clock.now());
    }

    /// Queues a packet for the receiver. Never waits; what does not fit is dropped as `relay` decides, and counted.
    pub(crate) fn push(self: &Arc<Self>, packet: &Packet, now: Time, live: &Live) {
        let mut state = self.lock();
        if state.close.is_some() || matches!(state.writer, Writer::Ended) {
            drop(state);
            self.dropped(DropReason::Closed, 1);
            return;
        }
        let mut drops = |_: &Packet, reason| self.dropped(reason, 1);
        state.queue.push(packet.clone(), now, &live.egress, &mut drops);
        if matches!(state.writer, Writer::Here(_)) {
            self.schedule(state, now, live);
        } else if state.queue.saturated_since().is_some_and(|since| now.since(since) > live.slow_client) {
            // A queue full of control that nobody drains is a client that does not read.
            state.close = Some(Closing::Say(CloseCode::Policy, "too slow"));
            self.closing.notify_one();
        }
    }

    /// Puts the egress into its flush set, where something waits and it is not there already.
    fn schedule(self: &Arc<Self>, mut state: MutexGuard<'_, State>, now: Time, live: &Live) {
        let full = state.queue.len() >= FULL_BATCH.packets || state.queue.bytes() >= FULL_BATCH.bytes;
        let due = match state.scheduled {
            Scheduled::No if state.queue.is_empty() => return,
            Scheduled::No if full => None,
            Scheduled::No => state.density.due(now, live.coalesce),
            Scheduled::Later if full => None,
            Scheduled::Later | Scheduled::Now => return,
        };
        state.scheduled = if due.is_some() { Scheduled::Later } else { Scheduled::Now };
        drop(state);
        self.lane.flush.add(self, now, due);
    }

    /// Writes what waits, as far as that takes no waiting. Called by its flusher. `batch` is empty before and after.
    pub(super) fn flush(self: &Arc<Self>, batch: &mut Vec<Packet>) {
        let live = self.store.live();
        let now = self.store.clock.now();
        // Made before the lock is taken, and so dropped after it is let go, also in a panic.
        let mut held = Held { egress: self, writer: None };
        let mut state = self.lock();
        state.scheduled = Scheduled::No;
        match std::mem::replace(&mut state.writer, Writer::Away) {
            Writer::Here(writer) => held.writer = Some(writer),
            // Whoever has the writer will look at the queue.
            other => return state.writer = other,
        }
        if state.close.is_some() || state.ping || state.pong.is_some() {
            drop(state);
            return held.go_on(Vec::new());
        }
        let mut drops = |_: &Packet, reason| self.dropped(reason, 1);
        let drained = state.queue.drain(now, &live.egress, BATCH, batch, &mut drops);
        if batch.is_empty() {
            drop(state);
            return held.put_back();
        }
        state.density.took(batch.len(), now, live.coalesce);
        drop(state);
        let Some(writer) = &mut held.writer else { return };
        match writer.try_write(batch) {
            Some(Ok(tried)) => {
                self.store.metrics.batch_written(self.transport, &batch[..tried.packets], drained.longest_wait);
                if tried.blocked {
                    held.hand_over(batch.drain(tried.packets..).collect());
                } else {
                    held.put_back();
                }
            }
            Some(Err(_)) => {
                self.dropped(DropReason::Closed, batch.len() as u64);
                self.end(Closing::HangUp);
                held.hand_over(Vec::new());
            }
            None => held.go_on(std::mem::take(batch)),
        }
        batch.clear();
    }

    /// Asks the peer for a sign of life. False once the connection is over.
    pub(super) fn ping(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        if matches!(state.writer, Writer::Ended) {
            return false;
        }
        state.ping = true;
        self.look(state);
        true
    }

    /// Answers a ping.
    pub(crate) fn pong(self: &Arc<Self>, payload: Vec<u8>) {
        let mut state = self.lock();
        state.pong = Some(payload);
        self.look(state);
    }

    /// Has the flusher come for what is not in the queue.
    fn look(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if matches!(state.writer, Writer::Here(_)) && state.scheduled != Scheduled::Now {
            state.scheduled = Scheduled::Now;
            drop(state);
            self.lane.flush.add(self, self.store.clock.now(), None);
        }
    }

    /// Asks the writer to deliver what waits, say why, and close. The first reason given is the one that counts.
    pub(crate) fn close(self: &Arc<Self>, code: CloseCode, reason: &'static str) {
        self.end(Closing::Say(code, reason));
    }

    /// Ends the connection without a word: its peer is gone.
    pub(crate) fn hang_up(self: &Arc<Self>) {
        self.end(Closing::HangUp);
    }

    /// Tells the client, once, that the node is draining: one that understands notices joins elsewhere and then ends this
    /// connection itself, any other is closed with 1001.
    pub(crate) fn tell_to_leave(self: &Arc<Self>) {
        if self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.notices {
            let mut buffer = PacketBuffer::new();
            buffer.extend(Notice::Leave.bytes());
            let packet = buffer.seal(Tag { sender: SessionId(0), class: Class::Control, flow: 0 }, None);
            self.push(&packet, self.store.clock.now(), &self.store.live());
        } else {
            self.close(CloseCode::Draining, "this node is draining; reconnect to another");
        }
    }

    /// Has the connection look at the settings again.
    pub(crate) fn retune(&self) {
        self.retuned.notify_one();
    }

    /// Waits until the settings have changed since the last time.
    pub(crate) fn retuned(&self) -> Notified<'_> {
        self.retuned.notified()
    }

    /// Waits until the writer is over.
    pub(crate) fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.ended.cancelled()
    }

    fn end(self: &Arc<Self>, closing: Closing) {
        let mut state = self.lock();
        if state.close.is_some() {
            return;
        }
        state.close = Some(closing);
        self.closing.notify_one();
        match std::mem::replace(&mut state.writer, Writer::Away) {
            // Not the flusher's business: a connection is closed also while no flusher is up.
            Writer::Here(writer) => {
                drop(state);
                Held { egress: self, writer: Some(writer) }.hand_over(Vec::new());
            }
            other => state.writer = other,
        }
    }

    /// Takes the writer back from whoever wrote.
    fn give_back(self: &Arc<Self>, writer: Box<dyn Outlet>) {
        let mut held = Held { egress: self, writer: Some(writer) };
        let state = self.lock();
        if state.close.is_some() || state.ping || state.pong.is_some() {
            drop(state);
            held.hand_over(Vec::new());
        } else {
            held.put_back_into(state);
        }
    }

    /// Writes `batch`, then whatever waits, waiting for the socket; gives the writer back when nothing waits any more, and closes
    /// the connection once that is asked for.
    pub(super) async fn write_with<W: PacketWriter>(self: Arc<Self>, writer: Box<W>, mut batch: Vec<Packet>) {
        let mut end = End { egress: &self, told: None, given_back: false };
        let mut writer = Some(writer);
        let mut longest_wait = Duration::ZERO;
        let mut fresh = true;
        loop {
            let Some(own) = writer.as_deref_mut() else { return };
            // The first time also without packets: what `try_write` left behind is finished first.
            if fresh || !batch.is_empty() {
                if self.bounded(own.write(&batch)).await.is_err() {
                    self.dropped(DropReason::Closed, batch.len() as u64);
                    return end.after_failure(own).await;
                }
                if !batch.is_empty() {
                    self.store.metrics.batch_written(self.transport, &batch, longest_wait);
                    batch.clear();
                }
                fresh = false;
            }
            let done = match self.next(&mut writer, &mut batch) {
                Next::Rest => {
                    end.given_back = true;
                    return;
                }
                Next::Write { longest_wait: waited } => {
                    longest_wait = waited;
                    Ok(())
                }
                next => {
                    let Some(own) = writer.as_deref_mut() else { return };
                    match next {
                        Next::Pong(payload) => self.bounded(own.pong(&payload)).await,
                        Next::Close(closing) => return end.close(own, closing).await,
                        _ => self.bounded(own.ping()).await,
                    }
                }
            };
            if done.is_err() {
                let Some(own) = writer.as_deref_mut() else { return };
                return end.after_failure(own).await;
            }
        }
    }

    /// Decides what whoever has the writer does next, and takes a batch from the queue where it is to write.
    fn next<W: PacketWriter>(self: &Arc<Self>, writer: &mut Option<Box<W>>, batch: &mut Vec<Packet>) -> Next {
        let live = self.store.live();
        let now = self.store.clock.now();
        let mut state = self.lock();
        // Whatever was written has just been taken.
        state.queue.ready(now, &live.egress);
        if std::mem::take(&mut state.ping) {
            return Next::Ping;
        }
        if let Some(payload) = state.pong.take() {
            return Next::Pong(payload);
        }
        if !matches!(state.close, Some(Closing::HangUp)) {
            let mut drops = |_: &Packet, reason| self.dropped(reason, 1);
            let drained = state.queue.drain(now, &live.egress, BATCH, batch, &mut drops);
            if !batch.is_empty() {
                state.density.took(batch.len(), now, live.coalesce);
                return Next::Write { longest_wait: drained.longest_wait };
            }
        }
        if let Some(closing) = state.close {
            return Next::Close(closing);
        }
        if let Some(writer) = writer.take() {
            state.writer = Writer::Here(writer);
        }
        Next::Rest
    }

    /// Runs a write; once the connection is being closed, for a second more at most: a peer that does not read must
    /// not hold it.
    async fn bounded<T>(&self, write: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
        tokio::pin!(write);
        tokio::select! {
            result = &mut write => result,
            () = self.closing.notified() => {
                // The permit is spent; a later write must find it again.
                self.closing.notify_one();
                timeout(LAST_WRITE, write).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// The writer is gone, whatever took it: the queue is emptied and its packets are counted, and so is the close.
    fn over(&self, told: Option<CloseCode>) {
        let mut state = self.lock();
        state.writer = Writer::Ended;
        state.queue.close(&mut |_, reason| self.dropped(reason, 1));
        drop(state);
        self.store.metrics.closed(told);
        self.ended.cancel();
    }

    /// A poisoned lock means that a panic struck between two statements that keep the queue whole; going on is right.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer, while it is not with its egress. Dropped with it, by a panic or with the runtime, the connection is over.
struct Held<'a> {
    egress: &'a Arc<Egress>,
    writer: Option<Box<dyn Outlet>>,
}

impl Held<'_> {
    /// Puts the writer back, or goes on with what came up meanwhile.
    fn put_back(mut self) {
        if let Some(writer) = self.writer.take() {
            self.egress.give_back(writer);
        }
    }

    fn put_back_into(&mut self, mut state: MutexGuard<'_, State>) {
        if let Some(writer) = self.writer.take() {
            state.writer = Writer::Here(writer);
            let store = &self.egress.store;
            let (now, live) = (store.clock.now(), store.live());
            // What it waits from here on is our own choice, and not the link's doing.
            state.queue.ready(now, &live.egress);
            self.egress.schedule(state, now, &live);
        }
    }

    /// Does what a task would, here and now if it need not wait for anything.
    fn go_on(mut self, batch: Vec<Packet>) {
        let Some(writer) = self.writer.take() else { return };
        let mut task = writer.write_with(Arc::clone(self.egress), batch);
        if (&mut task).now_or_never().is_none() {
            self.egress.store.tasks.spawn_on(task, &self.egress.lane.runtime());
        }
    }

    /// Goes on in a task of its own, with packets that were taken from the queue and not written.
    fn hand_over(mut self, batch: Vec<Packet>) {
        if let Some(writer) = self.writer.take() {
            let tasks = &self.egress.store.tasks;
            tasks.spawn_on(writer.write_with(Arc::clone(self.egress), batch), &self.egress.lane.runtime());
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.egress.over(None);
        }
    }
}

/// The end of a task that writes: unless it gave the writer back, the connection is over.
struct End<'a> {
    egress: &'a Arc<Egress>,
    told: Option<CloseCode>,
    given_back: bool,
}

impl End<'_> {
    async fn close<W: PacketWriter>(&mut self, writer: &mut W, closing: Closing) {
        if let Closing::Say(code, reason) = closing {
            self.told = Some(code);
            writer.close(code, reason).await;
        }
    }

    /// A write failed, or was given up because the connection is to be closed; then the client may still be told.
    async fn after_failure<W: PacketWriter>(&mut self, writer: &mut W) {
        let closing = self.egress.lock().close;
        self.close(writer, closing.unwrap_or(Closing::HangUp)).await;
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if !self.given_back {
            self.egress.over(self.told);
        }
    }
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
