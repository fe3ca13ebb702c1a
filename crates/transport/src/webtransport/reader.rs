//! The receiving half: streams and datagrams to packets, in order.
//!
//! What does not live here: the order itself (`sequencer.rs`) and the reading of one stream (`stream.rs`). No task of its
//! own: a connection that is not read holds QUIC's windows and no more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use roomcast_protocol::PacketBuffer;
use tokio::time::{Interval, MissedTickBehavior, sleep_until};
use web_transport_quinn::{SessionError, WebTransportError, proto};

use super::sequencer::Sequencer;
use super::stats::Counters;
use super::stream::{Event, Gathered, Reading, Stream};
use super::{Options, Shared, Stats, stream_code};
use crate::intake::{Account, Intake};
use crate::pulse::{Pulse, Sample};
use crate::{Incoming, PacketReader, ReadError};

/// The datagram that only says that its sender is alive.
const PING: &[u8] = b"ping";

/// The code to stop a stream with that is not waited for any more. WebTransport leaves the numbers to the application.
const STOP_ABANDONED: u32 = 1;

/// How often the bounds are looked at while a packet is under way and nothing happens.
const LOOK: Duration = Duration::from_millis(250);

/// How long a peer that was told to close may take to go.
const LINGER: Duration = Duration::from_secs(1);

/// RFC 9114: the stream's kind is not known or not wanted.
const H3_STREAM_CREATION_ERROR: u32 = 0x103;

/// The receiving half of a WebTransport connection. Its `read` keeps nothing in flight: unlike what the trait asks, the
/// future may be dropped and the reader used again.
pub struct Reader {
    shared: Arc<Shared>,
    intake: Arc<dyn Intake>,
    account: Account,
    sequencer: Sequencer<Gathered>,
    /// The streams that are being read, at most as many as the peer may open.
    streams: FuturesUnordered<Reading>,
    accepting: bool,
    datagrams: bool,
    /// When to look whether QUIC heard of the peer.
    alive: Interval,
    /// How many datagrams had come when it last looked.
    heard: u64,
    /// After how long without any an unexplained end is taken for a death. QUIC's idle timer has found at least two thirds
    /// of the idle time to be silent; a last word is heard as it is said. A sixth keeps clear of both.
    silence: Duration,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, options: &Options) -> Self {
        let mut alive = tokio::time::interval(options.keep_alive());
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        alive.reset();
        Self {
            shared,
            intake: Arc::clone(&options.intake),
            account: Account::new(),
            sequencer: Sequencer::new(options.limits()),
            streams: FuturesUnordered::new(),
            accepting: true,
            datagrams: true,
            alive,
            heard: 0,
            silence: options.idle / 6,
        }
    }

    /// What did not become packets since the last call, and why.
    pub fn take_stats(&mut self) -> Stats {
        self.shared.counters.take()
    }

    /// The same counters, for someone else to read.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }

    /// How many streams are open or wait for their turn, and the bytes they hold.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        (self.sequencer.len(), self.sequencer.held())
    }

    fn begin(&mut self, recv: quinn::RecvStream) -> Result<(), ReadError> {
        let stream = Stream::new(recv, self.intake.bounds().max_packet_bytes);
        self.sequencer.opened(stream.id(), Instant::now());
        self.go_on(stream)
    }

    /// Takes what there is of a stream at once, since most packets are whole by now; keeps the rest for later.
    fn go_on(&mut self, stream: Stream) -> Result<(), ReadError> {
        let mut reading = Reading::new(stream);
        match (&mut reading).now_or_never() {
            None => self.streams.push(reading),
            Some(None) => {}
            Some(Some((stream, event))) => self.on_event(stream, event)?,
        }
        Ok(())
    }

    fn on_event(&mut self, stream: Stream, event: Event) -> Result<(), ReadError> {
        let speaks = matches!(event, Event::Progress | Event::Finished(_));
        if speaks && Sequencer::<Gathered>::may_be_set_aside(stream.id()) {
            // It was taken for one of HTTP/3's own, and is a packet: late is better than lost. Where it is still waited
            // for, this changes nothing.
            self.sequencer.opened(stream.id(), Instant::now());
        }
        match event {
            Event::Progress => {
                if self.sequencer.progressed(stream.id(), stream.len(), Instant::now()) {
                    self.streams.push(Reading::new(stream));
                }
                Ok(())
            }
            event => self.ended(stream, event),
        }
    }

    fn ended(&mut self, stream: Stream, event: Event) -> Result<(), ReadError> {
        let id = stream.id();
        let counters = &self.shared.counters;
        match event {
            Event::Progress => {}
            Event::Finished(packet) => {
                let bytes = packet.len();
                // Its turn is now, or it waits.
                let packet = if self.sequencer.is_next(id) { packet } else { packet.parked() };
                self.sequencer.finished(id, packet, bytes, Instant::now());
            }
            Event::Reset => {
                if self.sequencer.gone(id) {
                    counters.reset();
                }
            }
            Event::Lost => {
                if self.sequencer.gone(id) {
                    counters.cut();
                }
            }
            Event::Critical => {
                self.sequencer.gone(id);
                // Never read: with no dynamic table there is nothing to say on them.
                if let Some(mut spare) = self.shared.keep(stream.into_inner()) {
                    counters.foreign();
                    let _ = spare.stop(H3_STREAM_CREATION_ERROR.into()); // an error means that it has ended already
                }
            }
            Event::Foreign => {
                self.sequencer.gone(id);
                counters.foreign();
                stream.stop(H3_STREAM_CREATION_ERROR.into());
            }
            Event::TooLarge => return Err(ReadError::TooLarge(stream.limit())),
        }
        Ok(())
    }

    /// Gives up a stream that is waited for too long, unless more of it has come: it may be this side that did not look.
    fn reconsider(&mut self, id: u64) -> Result<(), ReadError> {
        if let Some(stream) = self.take(id) {
            self.go_on(stream)?;
        }
        if let Some((still, why)) = self.sequencer.overdue(Instant::now())
            && still == id
        {
            self.sequencer.gone(id);
            let stream = self.take(id);
            match stream {
                // Set aside by HTTP/3, it seems: no longer waited for, but never stopped, since that would end a browser's
                // connection. What it is shows when something comes on it.
                Some(stream) if Sequencer::<Gathered>::may_be_set_aside(id) && stream.is_silent() => {
                    self.streams.push(Reading::new(stream));
                }
                stream => {
                    self.shared.counters.abandoned(why);
                    if let Some(stream) = stream {
                        stream.stop(stream_code(STOP_ABANDONED));
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, id: u64) -> Option<Stream> {
        self.streams.iter_mut().find_map(|reading| reading.take(id))
    }

    /// Whether QUIC received anything since the last time, be it an acknowledgement of its own keep-alive.
    fn hears(&mut self) -> bool {
        let before = std::mem::replace(&mut self.heard, self.shared.heard().0);
        before != self.heard
    }

    /// What the end was. The library, which watches the CONNECT stream, closes QUIC in its own name whatever ended that
    /// stream, so a silent death is told by the silence.
    fn end(&mut self) -> Result<Incoming, ReadError> {
        use quinn::ConnectionError as Quic;
        let session = &self.shared.session;
        let told = match session.close_reason() {
            Some(SessionError::WebTransportError(WebTransportError::Closed(code, _))) => u16::try_from(code).ok(),
            _ => None,
        };
        match quinn::Connection::close_reason(session) {
            Some(Quic::ApplicationClosed(close)) => {
                let code = proto::error_from_http3(close.error_code.into_inner());
                Ok(Incoming::Closed(told.or(code.and_then(|code| u16::try_from(code).ok()))))
            }
            Some(Quic::LocallyClosed) => {
                let spoke = self.shared.is_closed()
                    || told.is_some()
                    || quinn::Connection::stats(session).frame_rx.connection_close > 0;
                if !spoke && self.shared.heard().1.elapsed() >= self.silence {
                    return Err(ReadError::Gone(Quic::TimedOut.to_string()));
                }
                Ok(Incoming::Closed(told))
            }
            Some(Quic::ConnectionClosed(close)) if close.error_code == quinn::TransportErrorCode::NO_ERROR => {
                Ok(Incoming::Closed(None))
            }
            Some(error) => Err(ReadError::Gone(error.to_string())),
            None => Err(ReadError::Gone("the session ended".to_owned())),
        }
    }
}

impl PacketReader for Reader {
    fn pulse(&self) -> Option<Pulse> {
        let shared: Arc<dyn Sample> = Arc::<Shared>::clone(&self.shared);
        Some(Pulse::sampled(shared))
    }

    /// Keeps the peer's open streams until it is gone: telling a browser to stop sending on one of them now would break the
    /// connection for it, and it would never look at the code it is closed with.
    async fn linger(&mut self) {
        let _ = tokio::time::timeout(LINGER, self.shared.session.closed()).await;
    }

    async fn read(&mut self, buffer: &mut PacketBuffer) -> Result<Incoming, ReadError> {
        buffer.clear();
        loop {
            self.sequencer.rebound(self.intake.bounds());
            if !self.account.holds(self.sequencer.held(), &*self.intake) {
                return Err(ReadError::NoMemory);
            }
            if let Some(packet) = self.sequencer.release() {
                packet.write_to(buffer);
                return Ok(Incoming::Packet);
            }
            if let Some((id, _)) = self.sequencer.overdue(Instant::now()) {
                self.reconsider(id)?;
                continue;
            }
            if !self.accepting && !self.datagrams && self.streams.is_empty() {
                return self.end();
            }
            // A packet under way has a deadline, by bounds that may change.
            let deadline = self.sequencer.deadline().map(|deadline| deadline.min(Instant::now() + LOOK));
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                accepted = quinn::Connection::accept_uni(&shared.session), if self.accepting => match accepted {
                    Ok(recv) => self.begin(recv)?,
                    Err(_) => self.accepting = false,
                },
                Some(next) = self.streams.next(), if !self.streams.is_empty() => if let Some((stream, event)) = next {
                    self.on_event(stream, event)?;
                },
                datagram = shared.session.read_datagram(), if self.datagrams => match datagram {
                    Ok(bytes) if bytes == PING => return Ok(Incoming::Alive),
                    Ok(bytes) => {
                        buffer.extend(&bytes);
                        return Ok(Incoming::Packet);
                    }
                    Err(SessionError::WebTransportError(WebTransportError::UnknownSession)) => shared.counters.foreign(),
                    Err(_) => self.datagrams = false,
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => {}
                _ = self.alive.tick() => {
                    if self.hears() {
                        return Ok(Incoming::Alive);
                    }
                }
            }
        }
    }
}
