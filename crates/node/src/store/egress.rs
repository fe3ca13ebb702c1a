//! One receiver's egress: the queue that `relay` decides about, a lock, and the writer task that drains it.
//!
//! It belongs to the store, not to the connection's actor: senders hold it through fan-out tables, and when the actor
//! dies the writer still owes the client a close frame.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use roomcast_protocol::notice::Notice;
use roomcast_protocol::{Class, CloseCode, Packet, PacketBuffer, SessionId, Tag, UserId};
use roomcast_relay::{Batch, DropReason, EgressQueue, Time};
use roomcast_transport::PacketWriter;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{Live, Store};
use crate::metrics::Transport;

/// The most that is taken from a queue at once: what a vectored write or two take, and a bound on what a crash of the
/// socket loses.
const BATCH: Batch = Batch { packets: 256, bytes: 256 * 1024 };
/// A coalescing writer is woken early when this much waits: the batch is already as cheap as it gets.
const FULL_BATCH_PACKETS: usize = 64;
/// How long a write that is under way when the connection is closed may still take.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Where packets for one session wait. Shared by fan-out tables, the connection and its writer.
pub struct Egress {
    session: SessionId,
    user: UserId,
    transport: Transport,
    /// Whether its client understands notices.
    notices: bool,
    /// Whether it was told that the node is draining.
    told: AtomicBool,
    /// Packets for this receiver that were dropped.
    drops: AtomicU64,
    store: Arc<Store>,
    state: Mutex<State>,
    /// Wakes the writer; one waiter only.
    wake: Notify,
    /// Wakes whoever must give up a write when the connection is closed.
    closing: Notify,
    /// Wakes the reader when the settings changed; one waiter only.
    retuned: Notify,
    /// Cancelled when the writer is over.
    ended: CancellationToken,
}

struct State {
    queue: EgressQueue,
    writer: Writer,
    /// The newest ping that was not answered yet: RFC 6455 lets a peer answer the newest only.
    pong: Option<Vec<u8>>,
    close: Option<Closing>,
}

/// How the connection ends.
#[derive(Clone, Copy)]
enum Closing {
    /// With a close frame.
    Say(CloseCode, &'static str),
    /// Nobody is there to be told.
    HangUp,
}

/// What the writer task is doing, and so what a sender must do after a push.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// Waiting for anything: wake it.
    Idle,
    /// Waiting for a batch to grow: wake it when the batch is full.
    Coalescing,
    /// On its way to the queue, or writing: it will look again.
    Busy,
    /// Over: nothing can be delivered any more.
    Ended,
}

/// What the writer must do next.
enum Next {
    Wait,
    Coalesce,
    Write { oldest: Duration },
    Pong(Vec<u8>),
    Close(Closing),
}

impl Egress {
    pub(crate) fn new(
        session: SessionId,
        user: UserId,
        transport: Transport,
        notices: bool,
        store: &Arc<Store>,
    ) -> Arc<Self> {
        Arc::new(Self {
            session,
            user,
            transport,
            notices,
            told: AtomicBool::new(false),
            drops: AtomicU64::new(0),
            store: Arc::clone(store),
            state: Mutex::new(State {
                queue: EgressQueue::new(&store.budget),
                writer: Writer::Busy,
                pong: None,
                close: None,
            }),
            wake: Notify::new(),
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

    fn dropped(&self, reason: DropReason, packets: u64) {
        self.drops.fetch_add(packets, Ordering::Relaxed);
        self.store.metrics.dropped(reason, packets);
    }

    /// Queues a packet for the receiver. Never waits; what does not fit is dropped as `relay` decides, and counted.
    pub(crate) fn push(&self, packet: &Packet, now: Time, live: &Live) {
        let mut state = self.lock();
        if state.close.is_some() || state.writer == Writer::Ended {
            drop(state);
            self.dropped(DropReason::Closed, 1);
            return;
        }
        let mut drops = |_: &Packet, reason| self.dropped(reason, 1);
        state.queue.push(packet.clone(), now, &live.egress, &mut drops);
        let wake = match state.writer {
            Writer::Idle => true,
            Writer::Coalescing => state.queue.len() >= FULL_BATCH_PACKETS,
            Writer::Busy => {
                // A queue full of control that nobody drains is a client that does not read.
                if state.queue.saturated_since().is_some_and(|since| now.since(since) > live.slow_client) {
                    state.close = Some(Closing::Say(CloseCode::Policy, "too slow"));
                    self.closing.notify_one();
                }
                false
            }
            Writer::Ended => false,
        };
        if wake {
            state.writer = Writer::Busy;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Answers a ping.
    pub(crate) fn pong(&self, payload: Vec<u8>) {
        self.lock().pong = Some(payload);
        self.wake.notify_one();
    }

    /// Asks the writer to deliver what waits, say why, and close. The first reason given is the one that counts.
    pub(crate) fn close(&self, code: CloseCode, reason: &'static str) {
        self.end(Closing::Say(code, reason));
    }

    /// Ends the connection without a word: its peer is gone.
    pub(crate) fn hang_up(&self) {
        self.end(Closing::HangUp);
    }

    /// Tells the client, once, that the node is draining: one that understands notices joins elsewhere and then ends this
    /// connection itself, any other is closed with 1001.
    pub(crate) fn tell_to_leave(&self) {
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

    /// Has both halves of the connection look at the settings again.
    pub(crate) fn retune(&self) {
        self.wake.notify_one();
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

    fn end(&self, closing: Closing) {
        {
            let mut state = self.lock();
            if state.close.is_some() {
                return;
            }
            state.close = Some(closing);
        }
        self.wake.notify_one();
        self.closing.notify_one();
    }

    /// Drains the queue into the socket until the connection is closed or the socket fails; then whatever waits is
    /// counted as dropped. Pings the peer every `timers.ping`.
    pub(crate) async fn write_to<W: PacketWriter>(self: Arc<Self>, mut writer: W) {
        let mut end = End { egress: &self, told: None };
        let mut batch = Vec::new();
        let mut last_write: Option<Instant> = None;
        let mut last_ping = Instant::now();
        loop {
            let live = self.store.live();
            let now = Instant::now();
            let next_ping = last_ping + live.timers.ping;
            if next_ping <= now {
                drop(live);
                // Also between two batches of a queue that never empties: its client may have nothing else to say.
                last_ping = now;
                self.lock().writer = Writer::Busy;
                if self.bounded(writer.ping()).await.is_err() {
                    return end.after_failure(&mut writer).await;
                }
                continue;
            }
            let coalesce_until = last_write.map(|at| at + live.coalesce).filter(|until| *until > now);
            match self.next(&live, coalesce_until.is_some(), &mut batch) {
                Next::Wait => {
                    // An idle connection keeps room for a few packets only, and a quiet one allocates nothing.
                    batch.shrink_to(4);
                    drop(live);
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = sleep_until(next_ping) => {}
                    }
                }
                Next::Coalesce => {
                    drop(live);
                    let until = coalesce_until.unwrap_or_else(Instant::now);
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = sleep_until(until) => last_write = None,
                    }
                }
                Next::Write { oldest } => {
                    drop(live);
                    if self.bounded(writer.write(&batch)).await.is_err() {
                        self.dropped(DropReason::Closed, batch.len() as u64);
                        return end.after_failure(&mut writer).await;
                    }
                    self.store.metrics.batch_written(self.transport, &batch, oldest);
                    batch.clear();
                    last_write = Some(Instant::now());
                }
                Next::Pong(payload) => {
                    if self.bounded(writer.pong(&payload)).await.is_err() {
                        return end.after_failure(&mut writer).await;
                    }
                }
                Next::Close(closing) => return end.close(&mut writer, closing).await,
            }
        }
    }

    /// Decides what the writer does next, and takes a batch from the queue where it is to write.
    fn next(&self, live: &Live, coalesce: bool, batch: &mut Vec<Packet>) -> Next {
        let now = self.store.clock.now();
        let mut state = self.lock();
        if let Some(payload) = state.pong.take() {
            return Next::Pong(payload);
        }
        let closing = state.close.is_some();
        if coalesce && !closing && !state.queue.is_empty() && state.queue.len() < FULL_BATCH_PACKETS {
            state.writer = Writer::Coalescing;
            return Next::Coalesce;
        }
        state.writer = Writer::Busy;
        if !matches!(state.close, Some(Closing::HangUp)) {
            let mut drops = |_: &Packet, reason| self.dropped(reason, 1);
            let drained = state.queue.drain(now, &live.egress, BATCH, batch, &mut drops);
            if !batch.is_empty() {
                return Next::Write { oldest: drained.longest_wait };
            }
        }
        if let Some(closing) = state.close {
            return Next::Close(closing);
        }
        state.writer = Writer::Idle;
        Next::Wait
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

    /// A poisoned lock means that a panic struck between two statements that keep the queue whole; going on is right.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer's end, whatever brings it: the queue is emptied and its packets are counted, and so is the close.
struct End<'a> {
    egress: &'a Arc<Egress>,
    told: Option<CloseCode>,
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
        let metrics = &self.egress.store.metrics;
        let mut state = self.egress.lock();
        state.writer = Writer::Ended;
        state.queue.close(&mut |_, reason| self.egress.dropped(reason, 1));
        drop(state);
        metrics.closed(self.told);
        self.egress.ended.cancel();
    }
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
