//! One connection, from joined to ended: reads into the inbox, writes from the outbox, keeps it alive.
//!
//! What lives here: moving packets. What does not: how the connection came about, what follows from its end (`reconnect`),
//! and what it may do while another one is beside it (`gate`). Generic over the transport's halves, so that it is tested without sockets.

use std::future::{Future, pending};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::notice::Notice;
use roomcast_protocol::{CloseCode, PacketBuffer};
use roomcast_transport::{Incoming, PacketReader, ReadError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::gate::{Gate, Mode, Taken};
use crate::inbox::InboxWriter;
use crate::outbox::Batch;
use crate::pulse::{KeepAlive, Pulse};
use crate::reconnect::Ended;
use crate::shared::{Shared, count};

/// The sending half of either transport.
pub(crate) trait ClientSink: Send + 'static {
    /// Whether the server answers pings, so that its silence means something.
    const ANSWERED: bool;

    /// Writes all packets in order. The future may be dropped only before `close`, and what it had not written is lost.
    fn send(&mut self, packets: &[Bytes]) -> impl Future<Output = io::Result<()>> + Send;
    /// Writes one packet that may be lost, as a datagram where there are any and it fits.
    fn send_unreliable(&mut self, packet: Bytes) -> impl Future<Output = io::Result<()>> + Send;
    /// Says that this side lives.
    fn ping(&mut self) -> impl Future<Output = io::Result<()>> + Send;
    /// Answers a ping.
    fn pong(&mut self, payload: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send;
    /// Waits until what was sent has arrived, where closing would abandon it.
    fn confirmed(&mut self) -> impl Future<Output = ()> + Send;
    /// Says why and closes, within about a second.
    fn close(&mut self, code: CloseCode, reason: &'static str) -> impl Future<Output = ()> + Send;
}

/// How a connection is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) keep_alive: KeepAlive,
    /// How long a local close may take to send what still waits.
    pub(crate) flush: Duration,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// This side wanted it.
    Local,
    /// Any other way.
    Remote(Ended),
}

/// What the two directions share.
struct Line {
    pulse: Mutex<Pulse>,
    /// The ping to answer: only the latest needs an answer (RFC 6455, section 5.5.3), so one place is enough.
    pong: Mutex<Option<Vec<u8>>>,
    pong_due: Notify,
}

impl Line {
    fn pulse<T>(&self, act: impl FnOnce(&mut Pulse) -> T) -> T {
        act(&mut self.pulse.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_pong(&self, payload: Vec<u8>) {
        *self.pong.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
        self.pong_due.notify_one();
    }

    fn take_pong(&self) -> Option<Vec<u8>> {
        self.pong.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// On tokio's clock, so that tests can pause it.
pub(crate) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Runs a connection until it ends. `gate` says what it may do.
pub(crate) async fn run<R: PacketReader, W: ClientSink>(
    (mut reader, mut writer): (R, W),
    gate: &Gate,
    shared: &Shared,
    inbox: &InboxWriter,
    settings: Settings,
) -> End {
    let line = Line {
        pulse: Mutex::new(Pulse::new(settings.keep_alive, W::ANSWERED, now())),
        pong: Mutex::new(None),
        pong_due: Notify::new(),
    };
    let end = tokio::select! {
        // First: what is read after that is handed on by the connection that took over.
        biased;
        () = abandoned(gate) => End::Local,
        ended = read_all(&mut reader, gate, &line, shared, inbox) => End::Remote(ended),
        end = write_all(&mut writer, gate, &line, shared, settings.keep_alive.dead_after) => end,
        ended = watch(&line, settings.keep_alive.dead_after) => End::Remote(ended),
        () = flush_time_over(shared, settings.flush) => End::Local,
    };
    match &end {
        End::Local => writer.close(CloseCode::Done, "bye").await,
        // The answer that a close expects.
        End::Remote(Ended::Closed(_)) => writer.close(CloseCode::Done, "").await,
        End::Remote(Ended::Misbehaved(_)) => writer.close(CloseCode::ProtocolError, "not accepted here").await,
        End::Remote(_) => {}
    }
    end
}

async fn read_all<R: PacketReader>(
    reader: &mut R,
    gate: &Gate,
    line: &Line,
    shared: &Shared,
    inbox: &InboxWriter,
) -> Ended {
    let mut buffer = PacketBuffer::new();
    loop {
        let incoming = match reader.read(&mut buffer).await {
            Ok(incoming) => incoming,
            Err(ReadError::Gone(why)) => return Ended::Lost(why),
            Err(error) => return Ended::Misbehaved(error.to_string()),
        };
        line.pulse(|pulse| pulse.heard(now()));
        match incoming {
            Incoming::Packet if shared.marker.is_some() && Notice::parse(buffer.payload()).is_some() => {
                // Only a client says that it is done; from a server it means nothing.
                if Notice::parse(buffer.payload()) == Some(Notice::Leave) {
                    gate.leave.cancel();
                }
            }
            Incoming::Packet => {
                receive(Bytes::copy_from_slice(buffer.payload()), gate, line, shared, inbox).await;
            }
            Incoming::Ping(payload) => line.set_pong(payload),
            Incoming::Alive => {}
            Incoming::Closed(code) => return Ended::Closed(code),
        }
    }
}

/// Hands a packet on, as the gate says. Waits where there is no room for it: nothing is read meanwhile.
async fn receive(mut bytes: Bytes, gate: &Gate, line: &Line, shared: &Shared, inbox: &InboxWriter) {
    let deaf = |deaf| {
        line.pulse(|pulse| pulse.set_deaf(deaf, now()));
        if !deaf {
            gate.was_deaf(now());
        }
    };
    let mut full = false;
    loop {
        match gate.take(bytes, shared, now()) {
            Taken::Kept => return,
            Taken::Pass(packet) => {
                shared.received(packet.bytes.len());
                if let Err(packet) = inbox.try_put(packet) {
                    deaf(true);
                    if !inbox.put(packet).await {
                        // Nobody takes packets any more, so a local close is under way.
                        pending::<()>().await;
                    }
                    deaf(false);
                }
                return;
            }
            Taken::Full(back) => {
                if !std::mem::replace(&mut full, true) {
                    count(&shared.counters.held_full, 1);
                }
                deaf(true);
                gate.opened().await;
                deaf(false);
                bytes = back;
            }
        }
    }
}

/// Ends with `Local` once a local close has nothing left to send.
async fn write_all<W: ClientSink>(writer: &mut W, gate: &Gate, line: &Line, shared: &Shared, longest: Duration) -> End {
    let mut modes = gate.mode();
    let mut done = false;
    loop {
        let mode = *modes.borrow_and_update();
        let sends = mode == Mode::Send;
        let written = if let Some(payload) = line.take_pong() {
            timeout(longest, writer.pong(payload)).await
        } else if now() >= line.pulse(|pulse| pulse.next_ping()) {
            line.pulse(|pulse| pulse.pinged(now()));
            timeout(longest, writer.ping()).await
        } else if mode == Mode::Finish && !done {
            done = true;
            timeout(longest, writer.send(&[Bytes::from_static(Notice::Done.bytes())])).await
        } else if sends && let Some(batch) = shared.take() {
            timeout(longest, write_batch(writer, batch, shared)).await
        } else if sends && shared.closing.is_cancelled() {
            writer.confirmed().await; // bounded by the time to flush
            return End::Local;
        } else {
            let next_ping = line.pulse(|pulse| pulse.next_ping());
            tokio::select! {
                () = shared.filled.notified(), if sends => {}
                () = line.pong_due.notified() => {}
                () = shared.closing.cancelled(), if sends => {}
                _ = modes.changed() => {} // an error is impossible: the gate holds the sender
                () = sleep_until(next_ping.into()) => {}
            }
            continue;
        };
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return End::Remote(lost_or_closed(error).await),
            Err(_) => return End::Remote(Ended::Lost("the server takes nothing".into())),
        }
    }
}

/// A write fails as soon as the server is gone, while the close frame that says why may still wait to be read. Gives the
/// reader the time to find it.
async fn lost_or_closed(error: io::Error) -> Ended {
    const TIME_TO_READ_WHY: Duration = Duration::from_millis(500);
    sleep(TIME_TO_READ_WHY).await;
    Ended::Lost(error.to_string())
}

async fn write_batch<W: ClientSink>(writer: &mut W, batch: Batch, shared: &Shared) -> io::Result<()> {
    let (packets, bytes) = match &batch {
        Batch::Reliable(packets) => (packets.len(), packets.iter().map(Bytes::len).sum()),
        Batch::Unreliable(packet) => (1, packet.len()),
    };
    let mut guard = Unconfirmed { shared, packets };
    match &batch {
        Batch::Reliable(packets) => shared.remember_sent(packets, now()),
        Batch::Unreliable(packet) => shared.remember_sent([packet], now()),
    }
    match batch {
        Batch::Reliable(packets) => writer.send(&packets).await?,
        Batch::Unreliable(packet) => writer.send_unreliable(packet).await?,
    }
    guard.packets = 0;
    count(&shared.counters.sent, packets);
    count(&shared.counters.sent_bytes, bytes);
    Ok(())
}

/// Counts the packets of a write that failed or was abandoned.
struct Unconfirmed<'a> {
    shared: &'a Shared,
    packets: usize,
}

impl Drop for Unconfirmed<'_> {
    fn drop(&mut self) {
        count(&self.shared.counters.unconfirmed, self.packets);
    }
}

/// Ends when the server counts as dead.
async fn watch(line: &Line, dead_after: Duration) -> Ended {
    loop {
        match line.pulse(|pulse| pulse.dead_at()) {
            Some(at) if now() >= at => return Ended::Lost(format!("nothing heard for {dead_after:?}")),
            Some(at) => sleep_until(at.into()).await,
            None => sleep(dead_after).await,
        }
    }
}

/// Ends when the connection is to be closed, whatever the server does.
async fn abandoned(gate: &Gate) {
    // An error is impossible: the gate holds the sender.
    let _ = gate.mode().wait_for(|mode| *mode == Mode::Abandon).await;
}

/// Ends when a local close has had its time to send what waits.
async fn flush_time_over(shared: &Shared, flush: Duration) {
    shared.closing.cancelled().await;
    sleep(flush).await;
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
