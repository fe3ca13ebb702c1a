//! `connections/{session}`: one client. Reads its packets and relays them; what others send it goes past this actor,
//! through its egress queue to its writer.
//!
//! What it owes its client on death (the close frame, the leave) is done by guards, in whatever way it dies.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use roomcast_protocol::notice::Notice;
use roomcast_protocol::{CloseCode, PacketBuffer};
use roomcast_relay::{DropReason, Ingress, Verdict};
use roomcast_supervision::{ChildSpec, Context, Failure, Flow, StartError, Worker};
use roomcast_transport::pulse::Pulse;
use roomcast_transport::{Incoming, PacketReader, PacketWriter, ReadError};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use crate::metrics::Transport;
use crate::store::{Egress, Permit, RoomCell, Seat, Seated, Store, Welcome};

/// How long a client may take to read why it was closed, while what it still sends is thrown away.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client that moves is kept for its packets to be on their way to other nodes.
const AHEAD: Duration = Duration::from_millis(500);

/// What a connection is told.
#[derive(Debug)]
pub enum Message {
    /// End it, and tell the client why.
    Close(CloseCode, &'static str),
}

/// What a connection begins with.
pub struct Args<R> {
    /// The node.
    pub store: Arc<Store>,
    /// The client's membership.
    pub seated: Seated,
    /// The receiving half of its socket; the sending half is with its writer already.
    pub reader: R,
    /// How it is connected.
    pub transport: Transport,
}

/// One client's connection. Fields are dropped in this order: the client is told first, then it leaves.
pub struct Connection<R> {
    farewell: Farewell,
    _seat: Seat,
    _permit: Permit,
    _reader: std::marker::PhantomData<fn() -> R>,
}

impl<R: PacketReader> Worker for Connection<R> {
    type Message = Message;
    type Args = Args<R>;

    async fn start(args: Args<R>, ctx: &Context<Self>) -> Result<Self, StartError> {
        let Args { store, seated: Seated { user, seat, permit, egress }, reader, transport } = args;
        let lane = Arc::clone(egress.lane());
        let farewell = Farewell { egress: Arc::clone(&egress), store: Arc::clone(&store) };
        let reading = Reading {
            reader: Lingering { reader: Some(reader), tasks: store.tasks.clone() },
            ingress: Ingress::new(store.dialect, user, egress.session()),
            room: Arc::clone(seat.room()),
            egress,
            store,
            transport,
        };
        ctx.attach_on("read", reading.run(), &lane.runtime());
        Ok(Self { farewell, _seat: seat, _permit: permit, _reader: std::marker::PhantomData })
    }

    async fn handle(&mut self, message: Message, _: &Context<Self>) -> Result<Flow, Failure> {
        let Message::Close(code, reason) = message;
        self.farewell.egress.close(code, reason);
        Ok(Flow::Stop)
    }

    async fn stop(&mut self) {
        let (code, reason) = STOPPING;
        self.farewell.egress.close(code, reason);
    }
}

/// What clients are told when the node stops.
pub(crate) const STOPPING: (CloseCode, &str) = (CloseCode::Draining, "this node is stopping; reconnect to another");

/// Closes with 1011 whatever was not closed for a better reason: the actor was killed, or it panicked. A stopping node
/// kills what is still starting, and that is no crash.
struct Farewell {
    egress: Arc<Egress>,
    store: Arc<Store>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let crashed = (CloseCode::Crashed, "the connection crashed; reconnect");
        let (code, reason) = if self.store.is_draining() { STOPPING } else { crashed };
        self.egress.close(code, reason);
    }
}

/// The task that reads.
struct Reading<R: PacketReader> {
    reader: Lingering<R>,
    ingress: Ingress,
    room: Arc<RoomCell>,
    egress: Arc<Egress>,
    store: Arc<Store>,
    transport: Transport,
}

impl<R: PacketReader> Reading<R> {
    async fn run(mut self) -> Result<(), Failure> {
        let Some(reader) = self.reader.reader.as_mut() else { return Ok(()) };
        let mut buffer = PacketBuffer::new();
        let mut silence = Silence::new(reader.pulse());
        let mut next_look = pin!(sleep_until(Instant::now()));
        let mut retuned = pin!(self.egress.retuned());
        let mut ended = pin!(self.egress.ended());
        loop {
            let incoming = {
                let mut read = pin!(reader.read(&mut buffer));
                loop {
                    tokio::select! {
                        biased;
                        incoming = &mut read => break incoming,
                        // The writer failed, or closed what another asked it to close.
                        () = &mut ended => return Ok(()),
                        // Set again only here, not for every packet.
                        () = &mut next_look => match silence.look(self.store.live().timers.idle) {
                            Some(next) => next_look.as_mut().reset(next),
                            None => {
                                self.egress.close(CloseCode::Policy, "idle for too long");
                                return Ok(());
                            }
                        },
                        () = &mut retuned => {
                            retuned.set(self.egress.retuned());
                            // A shorter time runs from here on: who was not asked in time is not to blame.
                            silence.broken();
                            next_look.as_mut().reset(Instant::now());
                        }
                    }
                }
            };
            silence.heard();
            match incoming {
                Ok(Incoming::Packet) if self.egress.takes_notices() && is_done(&buffer) => {
                    // It has joined elsewhere and reads this connection to its end. What it sent here must be ahead of what it
                    // sends there, on the way to other nodes too.
                    let _ = timeout(AHEAD, self.store.bus.flush()).await;
                    self.egress.close(CloseCode::Done, "moved");
                    return Ok(());
                }
                Ok(Incoming::Packet) => {
                    if let Some((code, reason)) =
                        relay_one(&mut self.ingress, &mut buffer, &self.room, &self.store, self.transport)
                    {
                        self.egress.close(code, reason);
                        return Ok(());
                    }
                }
                Ok(Incoming::Ping(payload)) => self.egress.pong(payload),
                Ok(Incoming::Alive) => {}
                Ok(Incoming::Closed(_)) => {
                    self.egress.close(CloseCode::Done, "");
                    return Ok(());
                }
                Err(error) => {
                    tracing::info!(session = %self.egress.session(), %error, "connection ended");
                    self.end(&error);
                    return Ok(());
                }
            }
        }
    }
}

impl<R: PacketReader> Reading<R> {
    /// Tells the client why no more is read, and counts the packet that is lost with it, where one is.
    fn end(&self, error: &ReadError) {
        let Some(code) = error.close_code() else { return self.egress.hang_up() };
        let reason = match error {
            ReadError::TooLarge(_) => "the packet is too large",
            ReadError::Unsupported(_) => "send binary messages only",
            ReadError::Slow => {
                self.store.metrics.dropped(DropReason::Stalled, 1);
                "the packet took too long to arrive"
            }
            ReadError::NoMemory => {
                self.store.metrics.dropped(DropReason::Budget, 1);
                "no memory is left for large packets; try again later"
            }
            ReadError::Protocol(_) | ReadError::Gone(_) => "protocol error",
        };
        self.egress.close(code, reason);
    }
}

/// Whether the client says that this was its last packet here.
fn is_done(buffer: &PacketBuffer) -> bool {
    Notice::parse(buffer.payload()) == Some(Notice::Done)
}

/// How long a connection has been silent.
struct Silence {
    /// When silence began to count, or the last packet, ping or pong that was read.
    last_read: Instant,
    /// What was heard: all bytes, also pieces of a packet under way and QUIC's acknowledgements.
    pulse: Option<Pulse>,
}

impl Silence {
    fn new(pulse: Option<Pulse>) -> Self {
        Self { last_read: Instant::now(), pulse }
    }

    /// Something was read. Where there is a pulse, that has been noted with the first byte of it.
    fn heard(&mut self) {
        if self.pulse.is_none() {
            self.broken();
        }
    }

    /// Silence begins to count now.
    fn broken(&mut self) {
        self.last_read = Instant::now();
    }

    /// When to look next; `None`: it has lasted as long as it may.
    fn look(&self, idle: Duration) -> Option<Instant> {
        let now = Instant::now();
        let heard = self.pulse.as_ref().map_or(self.last_read, |pulse| pulse.last().max(self.last_read));
        let until = heard + idle;
        let next = match &self.pulse {
            // It knows only whether something was heard since the last look.
            Some(pulse) if pulse.is_sampled() => until.min(now + idle / 3),
            _ => until,
        };
        (until > now).then_some(next)
    }
}

/// Decides about one packet and acts on it. Gives back what to close with, if so.
fn relay_one(
    ingress: &mut Ingress,
    buffer: &mut PacketBuffer,
    room: &RoomCell,
    store: &Store,
    transport: Transport,
) -> Option<(CloseCode, &'static str)> {
    let live = store.live();
    let bytes = buffer.payload().len();
    match ingress.judge(buffer.payload(), store.clock.now(), &live.ingress) {
        Verdict::Relay { tag, stamp } => {
            store.metrics.transport(transport).received(tag.class, bytes);
            room.relay(&buffer.seal(tag, stamp), &live);
            None
        }
        Verdict::Consume => None,
        Verdict::Drop(reason) => {
            store.metrics.dropped(reason, 1);
            None
        }
        Verdict::Close(code, reason) => Some((code, reason)),
    }
}

/// When reading ends, in whatever way, what the client still sends is read and thrown away for a moment: closing a
/// socket with unread input resets it, and the client would never see why it was closed.
struct Lingering<R: PacketReader> {
    reader: Option<R>,
    tasks: TaskTracker,
}

impl<R: PacketReader> Drop for Lingering<R> {
    fn drop(&mut self) {
        // Outside a runtime the process is ending, and so is the socket.
        if let (Some(mut reader), Ok(runtime)) = (self.reader.take(), tokio::runtime::Handle::try_current()) {
            self.tasks.spawn_on(async move { drop(timeout(LINGER, reader.linger()).await) }, &runtime);
        }
    }
}

/// Begins a connection whose handshake succeeded: its writer, then its actor; or tells the client why not.
pub(crate) async fn begin<R: PacketReader, W: PacketWriter>(
    store: &Arc<Store>,
    transport: Transport,
    welcome: Welcome,
    reader: R,
    mut writer: W,
) {
    match welcome {
        Welcome::Seated(seated) => {
            let egress = Arc::clone(&seated.egress);
            egress.open(writer);
            let id = egress.session().to_string();
            let args = Args { store: Arc::clone(store), seated: *seated, reader, transport };
            let child = ChildSpec::once::<Connection<R>>(id, args);
            if let Err(error) = store.connections_supervisor.start_child(child).await {
                tracing::warn!(session = %egress.session(), %error, "a connection could not start");
                let full = (CloseCode::TryAgainLater, "try again later");
                let (code, reason) = if store.is_draining() { STOPPING } else { full };
                egress.close(code, reason);
            }
        }
        Welcome::Turned(code, reason) => {
            store.metrics.closed(Some(code));
            writer.close(code, reason).await;
            let mut reader = reader;
            drop(timeout(LINGER, reader.linger()).await);
        }
    }
}
