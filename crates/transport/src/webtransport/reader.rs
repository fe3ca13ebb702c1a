//! The receiving half: streams and datagrams to packets, in order.
//!
//! What does not live here: the order itself (`sequencer.rs`) and the reading of one stream (`stream.rs`). No task of its
//! own: a connection that is not read holds QUIC's windows and no more.

use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use roomcast_protocol::PacketBuffer;
use tokio::time::{Interval, MissedTickBehavior, sleep_until};
use web_transport_quinn::{SessionError, WebTransportError};

use super::sequencer::{Abandoned, Sequencer};
use super::stats::Counters;
use super::stream::{Event, Gathered, Reading, Stream};
use super::{Options, Shared, Stats, explain, stream_code};
use crate::{Incoming, PacketReader, ReadError};

/// The datagram that only says that its sender is alive.
const PING: &[u8] = b"ping";

/// The code to stop a stream with that is not waited for any more. WebTransport leaves the numbers to the application.
const STOP_ABANDONED: u32 = 1;

/// RFC 9114: the stream's kind is not known or not wanted.
const H3_STREAM_CREATION_ERROR: u32 = 0x103;

/// HTTP/3 has two streams besides the control stream that must stay open: QPACK's encoder and decoder.
const CRITICAL_STREAMS: usize = 2;

/// The receiving half of a WebTransport connection.
pub struct Reader {
    shared: Arc<Shared>,
    max_packet_bytes: usize,
    sequencer: Sequencer<Gathered>,
    /// The streams that are being read, at most as many as the peer may open.
    streams: FuturesUnordered<Reading>,
    /// Kept open, never read: with no dynamic table there is nothing to say on them.
    critical: Vec<quinn::RecvStream>,
    accepting: bool,
    datagrams: bool,
    /// When to look whether QUIC heard of the peer.
    alive: Interval,
    heard: u64,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, options: &Options) -> Self {
        let mut alive = tokio::time::interval(options.keep_alive());
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        alive.reset();
        Self {
            shared,
            max_packet_bytes: options.max_packet_bytes,
            sequencer: Sequencer::new(options.limits()),
            streams: FuturesUnordered::new(),
            critical: Vec::new(),
            accepting: true,
            datagrams: true,
            alive,
            heard: 0,
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
        let stream = Stream::new(recv, self.max_packet_bytes);
        self.sequencer.opened(stream.id(), Instant::now());
        self.go_on(stream)
    }

    /// Takes what there is of a stream at once, since most packets are whole by now; keeps the rest for later.
    fn go_on(&mut self, stream: Stream) -> Result<(), ReadError> {
        let mut reading = Reading::new(stream);
        match (&mut reading).now_or_never() {
            None => {
                self.streams.push(reading);
                Ok(())
            }
            Some((stream, Event::Progress)) => {
                if self.sequencer.progressed(stream.id(), stream.len(), Instant::now()) {
                    self.streams.push(Reading::new(stream));
                }
                Ok(())
            }
            Some((stream, event)) => self.ended(stream, event),
        }
    }

    fn on_event(&mut self, stream: Stream, event: Event) -> Result<(), ReadError> {
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

    fn ended(&mut self, mut stream: Stream, event: Event) -> Result<(), ReadError> {
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
            Event::Critical if self.critical.len() < CRITICAL_STREAMS => {
                self.sequencer.gone(id);
                self.critical.push(stream.into_inner());
            }
            Event::Critical | Event::Foreign => {
                self.sequencer.gone(id);
                counters.foreign();
                stream.stop(H3_STREAM_CREATION_ERROR.into());
            }
            Event::TooLarge => return Err(ReadError::TooLarge(self.max_packet_bytes)),
        }
        Ok(())
    }

    /// Handles what streams have ready, before one is blamed for being late: it may be this side that did not look.
    fn catch_up(&mut self) -> Result<bool, ReadError> {
        let mut any = false;
        for _ in 0..self.streams.len() {
            let Some(Some((stream, event))) = self.streams.next().now_or_never() else { break };
            any = true;
            self.on_event(stream, event)?;
        }
        Ok(any)
    }

    fn abandon(&mut self, id: u64, why: Abandoned) {
        self.sequencer.gone(id);
        self.shared.counters.abandoned(why);
        for reading in self.streams.iter_mut() {
            if let Some(stream) = reading.stream().filter(|stream| stream.id() == id) {
                stream.stop(stream_code(STOP_ABANDONED));
                break;
            }
        }
    }

    /// Whether QUIC received anything since the last time, be it an acknowledgement of its own keep-alive.
    fn heard_of(&mut self) -> bool {
        let heard = quinn::Connection::stats(&self.shared.session).udp_rx.datagrams;
        std::mem::replace(&mut self.heard, heard) != heard
    }

    fn end(&self) -> Result<Incoming, ReadError> {
        use quinn::ConnectionError as Quic;
        match self.shared.session.close_reason() {
            Some(SessionError::WebTransportError(WebTransportError::Closed(code, _))) => {
                Ok(Incoming::Closed(u16::try_from(code).ok()))
            }
            // Closed by this side, or by the peer's ending the CONNECT stream; or the peer's application went away.
            Some(SessionError::ConnectionError(Quic::LocallyClosed | Quic::ApplicationClosed(_))) => {
                Ok(Incoming::Closed(None))
            }
            Some(SessionError::ConnectionError(Quic::ConnectionClosed(close)))
                if close.error_code == quinn::TransportErrorCode::NO_ERROR =>
            {
                Ok(Incoming::Closed(None))
            }
            Some(error) => Err(ReadError::Gone(explain(&error))),
            None => Err(ReadError::Gone("the session ended".to_owned())),
        }
    }
}

impl PacketReader for Reader {
    async fn read(&mut self, buffer: &mut PacketBuffer) -> Result<Incoming, ReadError> {
        buffer.clear();
        loop {
            if let Some(packet) = self.sequencer.release() {
                packet.write_to(buffer);
                return Ok(Incoming::Packet);
            }
            if let Some((id, why)) = self.sequencer.overdue(Instant::now()) {
                if why == Abandoned::Memory || !self.catch_up()? {
                    self.abandon(id, why);
                }
                continue;
            }
            if !self.accepting && !self.datagrams && self.streams.is_empty() {
                return self.end();
            }
            let deadline = self.sequencer.deadline();
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                accepted = quinn::Connection::accept_uni(&shared.session), if self.accepting => match accepted {
                    Ok(recv) => self.begin(recv)?,
                    Err(_) => self.accepting = false,
                },
                Some((stream, event)) = self.streams.next(), if !self.streams.is_empty() => self.on_event(stream, event)?,
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
                    if self.heard_of() {
                        return Ok(Incoming::Alive);
                    }
                }
            }
        }
    }
}
