//! WebTransport over HTTP/3 and QUIC: a packet per unidirectional stream or datagram.
//!
//! What lives here: the handshake with its HTTP answers, the order and bounds of streams, closing. What does not: who may
//! join, and what is done with a packet.
//!
//! The library makes the session (SETTINGS, CONNECT, the closing capsule). Packets' streams are read and written on its
//! QUIC connection, because order needs each stream's number from the moment it is opened, and bounds need a hand on
//! streams that never even send their header.

mod client;
mod header;
mod options;
mod reader;
mod sequencer;
mod server;
mod stats;
mod stream;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use roomcast_protocol::CloseCode;
use web_transport_quinn::{Session, proto};

use crate::pulse::Sample;

pub use client::{ClientReader, ClientWriter, ConnectError, connect, connect_with};
pub use options::Options;
pub use reader::Reader;
pub use server::{HandshakeError, accept, accept_then, endpoint, server_config};
pub use stats::{Counters, Stats};
pub use writer::Writer;

/// What both halves of a connection share. When the last one is gone and nobody has closed, the peer is told that this
/// side crashed: a connection that ends in order says so.
#[derive(Debug)]
struct Shared {
    session: Session,
    counters: Arc<Counters>,
    closed: AtomicBool,
    receive_window: u32,
    /// How many datagrams had come when it last looked, and since when there have been no more.
    heard: Mutex<(u64, Instant)>,
    /// The peer's other streams of HTTP/3, which stay open as long as the connection: a browser takes the end of one for a
    /// broken connection, and then never looks at the code it is closed with.
    critical: Mutex<Vec<quinn::RecvStream>>,
}

impl Shared {
    fn new(session: Session, options: &Options) -> Self {
        Self {
            session,
            counters: Arc::clone(&options.counters),
            closed: AtomicBool::new(false),
            receive_window: options.receive_window,
            heard: Mutex::new((0, Instant::now())),
            critical: Mutex::default(),
        }
    }

    /// How many datagrams QUIC has received by now, be they acknowledgements only, and since when there have been no more,
    /// as far as it was asked.
    fn heard(&self) -> (u64, Instant) {
        let count = quinn::Connection::stats(&self.session).udp_rx.datagrams;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if count != heard.0 {
            *heard = (count, Instant::now());
        }
        *heard
    }

    /// Has the peer acknowledge something now. The library has no ping of its own; opening the window by a byte, and taking
    /// the byte back, sends a frame that must be acknowledged and means nothing else.
    fn ping(&self) {
        for window in [self.receive_window.saturating_add(1), self.receive_window] {
            self.session.set_receive_window(quinn::VarInt::from_u32(window));
        }
    }

    /// Keeps a stream open to the end; gives it back when there are enough.
    fn keep(&self, stream: quinn::RecvStream) -> Option<quinn::RecvStream> {
        /// QPACK's two; the third, of settings, is the library's.
        const MOST: usize = 2;
        let mut critical = self.critical.lock().unwrap_or_else(PoisonError::into_inner);
        if critical.len() >= MOST {
            return Some(stream);
        }
        critical.push(stream);
        None
    }

    /// Starts to close, once; the library sends the code to the peer and waits a little for it to go.
    fn close(&self, code: u16, reason: &str) {
        /// The closing capsule holds no longer reason.
        const LONGEST: usize = 1024;
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.session.close(u32::from(code), &reason.as_bytes()[..reason.len().min(LONGEST)]);
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Why the connection is over, in words.
    fn reason(&self) -> String {
        // QUIC's own reason: the library's may only say that the CONNECT stream ended.
        quinn::Connection::close_reason(&self.session).map_or_else(|| "closed".to_owned(), |reason| reason.to_string())
    }
}

impl Sample for Shared {
    fn sample(&self) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.heard().1)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close(CloseCode::Crashed.number(), "");
    }
}

/// An application's code in the range that HTTP/3 leaves to WebTransport: for resetting and stopping streams.
fn stream_code(code: u32) -> quinn::VarInt {
    quinn::VarInt::from_u64(proto::error_to_http3(code)).expect("the range of WebTransport's codes is below 2^62")
}
