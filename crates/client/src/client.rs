//! The application's handles and the task behind them, which connects, runs the connection, and connects again.
//!
//! What lives here: the thin shell. What does not: the decisions (`reconnect`, `outbox`, `pulse`), the moving of packets
//! (`connection`), and the move from a draining node to another (`moving`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use roomcast_protocol::{Dialect, MAX_PACKET_BYTES, PacketKind, peek};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

use crate::connection::{End, now};
use crate::dial::{self, Transport};
use crate::handover::Marker;
use crate::inbox::{self, InboxReader, InboxWriter, Received};
use crate::options::{ClientOptions, OptionsError};
use crate::outbox::{Outgoing, SendError};
use crate::reconnect::{ClosedReason, Ended, Plan, Reconnect};
use crate::shared::{Shared, Stats, count};

/// What a client is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Connecting to an endpoint.
    Connecting {
        /// Where.
        endpoint: Url,
        /// 1, and one more for each failure since the last connection that stayed up.
        attempt: u32,
    },
    /// In the room. A move from a draining node to another goes from one such state to the next, with nothing in between.
    Connected {
        /// Where.
        endpoint: Url,
        /// How.
        transport: Transport,
        /// Since when.
        since: Instant,
        /// Which of this client's connections this is, counted from 1. A number is left out where a connection was made for a
        /// move and failed before it was used.
        number: u64,
    },
    /// Between two attempts.
    Waiting {
        /// Until when.
        until: Instant,
        /// What went wrong.
        reason: String,
    },
    /// Over, for good.
    Closed(ClosedReason),
}

/// A member of a room. It connects and reconnects by itself; dropping it leaves the room.
///
/// One task owns the connection. It ends when the client is closed or dropped, within `flush_timeout` and about two
/// seconds.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    inbox: InboxReader,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
    /// How long the task may take to end.
    stop_timeout: Duration,
}

/// Sends into a client's room. Cheap to clone; all clones share one queue.
#[derive(Clone, Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    dialect: Dialect,
    timeout: Duration,
}

impl Client {
    /// Starts connecting and returns at once; [`state`](Self::state) and [`joined`](Self::joined) tell how it goes.
    ///
    /// # Errors
    /// Options that cannot work.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect(options: ClientOptions) -> Result<Self, OptionsError> {
        let urls = options.validate()?;
        let marker = options.notices.then(|| Marker::new(options.dialect));
        let shared = Arc::new(Shared::new(options.send_queue, marker));
        let (inbox_writer, inbox) = inbox::inbox(options.receive_queue);
        let (state_writer, state) =
            watch::channel(State::Connecting { endpoint: options.endpoints[0].clone(), attempt: 1 });
        let sender = Sender { shared: Arc::clone(&shared), dialect: options.dialect, timeout: options.send_timeout };
        let stop_timeout = options.flush_timeout + Duration::from_secs(2);
        let task = Task { options, urls, shared, inbox: inbox_writer, state: state_writer };
        Ok(Self { sender, inbox, state, task: tokio::spawn(task.run()), stop_timeout })
    }

    /// The sending handle.
    #[must_use]
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Queues a packet; see [`Sender::try_send`].
    pub fn try_send(&self, packet: Bytes) -> Result<(), SendError> {
        self.sender.try_send(packet)
    }

    /// Queues a packet, waiting a little for room; see [`Sender::send`].
    pub async fn send(&self, packet: Bytes) -> Result<(), SendError> {
        self.sender.send(packet).await
    }

    /// Waits for the next packet. `None` once the client is closed and everything was taken. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Received> {
        self.inbox.take().await
    }

    /// What the client is doing, now and from now on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// What was sent, received and lost so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.sender.shared.stats()
    }

    /// Waits until the client is in the room.
    ///
    /// # Errors
    /// Why it never will be (again).
    pub async fn joined(&self) -> Result<(), ClosedReason> {
        let mut state = self.state.clone();
        let reached = state
            .wait_for(|state| matches!(state, State::Connected { .. } | State::Closed(_)))
            .await
            .map(|s| s.clone());
        match reached {
            Ok(State::Closed(reason)) => Err(reason),
            Ok(_) => Ok(()),
            Err(_) => Err(ClosedReason::Local), // the task is gone, which only an aborted runtime does
        }
    }

    /// Sends what waits, leaves the room, and says how it ended and what was counted. Takes at most `flush_timeout` and
    /// about two seconds. Packets that were received and not taken are dropped.
    pub async fn close(mut self) -> (ClosedReason, Stats) {
        self.sender.shared.refuse();
        self.sender.shared.closing.cancel();
        if tokio::time::timeout(self.stop_timeout, &mut self.task).await.is_err() {
            self.task.abort();
        }
        let reason = match &*self.state.borrow() {
            State::Closed(reason) => reason.clone(),
            _ => ClosedReason::Local,
        };
        (reason, self.stats())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.sender.shared.refuse();
        self.sender.shared.closing.cancel();
    }
}

impl Sender {
    /// The largest packet that goes as a datagram; a larger one goes on a stream.
    pub const MAX_DATAGRAM_BYTES: usize = 1200;

    /// Queues a packet (a serialized `PacketWrapper`; its content is not checked) and returns at once. Packets are sent in
    /// the order queued. While there is no connection, media is refused and everything else waits.
    ///
    /// # Errors
    /// Why the packet was not taken; it is counted as `refused`.
    pub fn try_send(&self, packet: Bytes) -> Result<(), SendError> {
        self.counted(self.push(packet, false))
    }

    /// Like [`try_send`](Self::try_send), for a packet whose loss does no harm, such as a heartbeat: on WebTransport it
    /// goes as a datagram if it has at most [`MAX_DATAGRAM_BYTES`](Self::MAX_DATAGRAM_BYTES).
    ///
    /// # Errors
    /// Why the packet was not taken; it is counted as `refused`.
    pub fn try_send_unreliable(&self, packet: Bytes) -> Result<(), SendError> {
        let fits = packet.len() <= Self::MAX_DATAGRAM_BYTES;
        self.counted(self.push(packet, fits))
    }

    /// Like [`try_send`](Self::try_send), but where the queue is full it waits for room, at most `send_timeout`.
    ///
    /// # Errors
    /// Why the packet was not taken; it is counted as `refused`.
    pub async fn send(&self, packet: Bytes) -> Result<(), SendError> {
        let waiting = async {
            loop {
                let drained = self.shared.drained.notified();
                tokio::pin!(drained);
                drained.as_mut().enable(); // before the attempt, so that no wake-up is missed
                match self.push(packet.clone(), false) {
                    Err(SendError::Full) => drained.await,
                    result => return result,
                }
            }
        };
        self.counted(tokio::time::timeout(self.timeout, waiting).await.unwrap_or(Err(SendError::Full)))
    }

    fn push(&self, packet: Bytes, unreliable: bool) -> Result<(), SendError> {
        // What does not parse is sent as it is: the node counts it.
        let media = packet.len() <= MAX_PACKET_BYTES
            && peek(self.dialect, &packet).is_ok_and(|header| header.kind == PacketKind::Media);
        self.shared.push(Outgoing { bytes: packet, media, unreliable })
    }

    fn counted(&self, result: Result<(), SendError>) -> Result<(), SendError> {
        if result.is_err() {
            count(&self.shared.counters.refused, 1);
        }
        result
    }
}

/// The one task: connects, runs the connection, and connects again.
pub(crate) struct Task {
    pub(crate) options: ClientOptions,
    /// Where to join at each endpoint.
    pub(crate) urls: Vec<Url>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: InboxWriter,
    state: watch::Sender<State>,
}

impl Task {
    async fn run(self) {
        let reason = self.until_closed().await;
        tracing::debug!(%reason, "client closed");
        self.shared.finish();
        self.tell(State::Closed(reason));
    }

    async fn until_closed(&self) -> ClosedReason {
        let mut reconnect = Reconnect::new(self.options.reconnect.clone(), self.urls.len(), fastrand::u64(..));
        let mut plan = reconnect.start(now());
        let mut why = String::new();
        loop {
            let (after, endpoint, attempt) = match plan {
                Plan::Connect { after, endpoint, attempt } => (after, endpoint, attempt),
                Plan::Finish(reason) => return reason,
            };
            let line = tokio::select! {
                biased;
                // A connection closes itself, with what still waits: only what comes before it is cut short.
                () = self.shared.closing.cancelled() => return ClosedReason::Local,
                line = self.attempt(after, endpoint, attempt, &why) => line,
            };
            let (ended, up_for) = match line {
                Ok(line) => match self.stay(line, endpoint, &mut reconnect).await {
                    (End::Local, _) => return ClosedReason::Local,
                    (End::Remote(ended), up_for) => (ended, Some(up_for)),
                },
                Err(ended) => (ended, None),
            };
            tracing::debug!(%ended, "connection over");
            why = ended.to_string();
            plan = reconnect.after(&ended, up_for, now());
        }
    }

    /// Tells the application, unless it is nothing new.
    pub(crate) fn tell(&self, state: State) {
        self.state.send_if_modified(|old| {
            let news = *old != state;
            *old = state;
            news
        });
    }

    /// Waits and connects.
    async fn attempt(&self, after: Duration, endpoint: usize, attempt: u32, why: &str) -> Result<dial::Line, Ended> {
        if !after.is_zero() {
            let until = now() + after;
            self.tell(State::Waiting { until, reason: why.to_owned() });
            tokio::time::sleep(after).await;
        }
        self.tell(State::Connecting { endpoint: self.options.endpoints[endpoint].clone(), attempt });
        dial::dial(&self.urls[endpoint], &self.options).await
    }
}
