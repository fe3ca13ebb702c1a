//! The sending half: one unidirectional stream per packet, one after the other.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use roomcast_protocol::{CloseCode, Packet};
use web_transport_quinn::Session;

use super::{Shared, header, stream_code};
use crate::{PacketWriter, Tried};

/// How long closing waits for the peer to have what was written, whatever it does.
const CONFIRM: Duration = Duration::from_secs(1);

/// How long the peer may take to go after that.
const CLOSE: Duration = Duration::from_millis(500);

/// How many streams are remembered before it is asked which of them the peer has: an idle connection keeps no more.
const UNASKED: usize = 16;

/// The most streams that are remembered. A peer lets this side have fewer open at once.
const MOST_UNCONFIRMED: usize = 1024;

/// The code of a stream that this side breaks off.
const BROKEN_OFF: u32 = 2;

/// The sending half of a WebTransport connection.
pub struct Writer {
    shared: Arc<Shared>,
    header: Bytes,
    /// Finished streams of which the peer's QUIC may not have all, the oldest first.
    unconfirmed: VecDeque<quinn::SendStream>,
    /// How many of them there may be before they are looked through.
    look: usize,
    /// The packet of which QUIC has taken a part, or nothing yet, where `try_write` would have had to wait.
    begun: Option<Begun>,
}

/// A packet on its way to QUIC.
struct Begun {
    stream: Unfinished,
    /// What QUIC has not taken; empty where it has.
    chunks: [Bytes; 2],
}

/// A packet's payload, shared with its other recipients until this one's QUIC has no more use for it.
struct Payload(Packet);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.0.payload()
    }
}

/// A stream that is reset unless it was finished: one that is dropped half-written must not look whole to the peer.
struct Unfinished(Option<quinn::SendStream>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            // An error means that it has ended already.
            let _ = stream.reset(stream_code(BROKEN_OFF));
        }
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, header: header::encoded(), unconfirmed: VecDeque::new(), look: UNASKED, begun: None }
    }

    /// The session below, for what packets cannot express.
    pub(super) fn session(&self) -> &Session {
        &self.shared.session
    }

    /// Writes one packet on a stream of its own, and waits only for QUIC to take it. Where this is dropped, the stream is reset.
    pub(super) async fn send(&mut self, payload: Bytes) -> io::Result<()> {
        let mut begun = self.begin(payload).await?;
        self.finish(&mut begun).await
    }

    async fn begin(&self, payload: Bytes) -> io::Result<Begun> {
        let gone = |_| io::Error::new(io::ErrorKind::ConnectionAborted, self.shared.reason());
        let stream = quinn::Connection::open_uni(&self.shared.session).await.map_err(gone)?;
        Ok(Begun { stream: Unfinished(Some(stream)), chunks: [self.header.clone(), payload] })
    }

    /// Writes what is left of a packet. May be dropped and called again.
    async fn finish(&mut self, begun: &mut Begun) -> io::Result<()> {
        let Begun { stream, chunks } = begun;
        let written = loop {
            let left = chunks.iter().position(|chunk| !chunk.is_empty());
            let (Some(left), Some(stream)) = (left, &mut stream.0) else { break Ok(()) };
            if let Err(error) = stream.write_chunks(&mut chunks[left..]).await {
                break Err(error);
            }
        };
        match written {
            Ok(()) => {
                if let Some(mut finished) = stream.0.take() {
                    // An error means that the peer has stopped it, after all of it was taken.
                    let _ = finished.finish();
                    self.remember(finished);
                }
                Ok(())
            }
            Err(quinn::WriteError::Stopped(_)) => {
                self.shared.counters.refused();
                Ok(())
            }
            Err(error) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, format!("{error}: {}", self.shared.reason())))
            }
        }
    }

    /// Writes what is left of the packet that `try_write` could not finish.
    async fn finish_begun(&mut self) -> io::Result<()> {
        match self.begun.take() {
            Some(mut begun) => self.finish(&mut begun).await,
            None => Ok(()),
        }
    }

    /// Remembers a stream until the peer has it. Looked through only when twice as many have gathered as were left the last
    /// time, so that each costs one look.
    fn remember(&mut self, stream: quinn::SendStream) {
        self.unconfirmed.push_back(stream);
        if self.unconfirmed.len() < self.look {
            return;
        }
        while let Some(oldest) = self.unconfirmed.front() {
            if self.unconfirmed.len() <= MOST_UNCONFIRMED && oldest.stopped().now_or_never().is_none() {
                break;
            }
            self.unconfirmed.pop_front();
        }
        self.unconfirmed.shrink_to(UNASKED);
        self.look = (2 * self.unconfirmed.len()).max(UNASKED);
    }

    /// Waits until the peer's QUIC has everything that was sent, or the connection is gone. Cancel-safe.
    pub(super) async fn confirmed(&mut self) {
        while let Some(oldest) = self.unconfirmed.front() {
            // However it ended: nothing of it is under way any more.
            let _ = oldest.stopped().await;
            self.unconfirmed.pop_front();
        }
    }
}

impl PacketWriter for Writer {
    fn try_write(&mut self, batch: &[Packet]) -> Option<io::Result<Tried>> {
        let mut packets = 0;
        if let Some(mut begun) = self.begun.take() {
            match self.finish(&mut begun).now_or_never() {
                Some(Ok(())) => {}
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.begun = Some(begun);
                    return Some(Ok(Tried { packets, blocked: true }));
                }
            }
        }
        for packet in batch {
            let begun = self.begin(Bytes::from_owner(Payload(packet.clone()))).now_or_never();
            let mut begun = match begun {
                Some(Ok(begun)) => begun,
                Some(Err(error)) => return Some(Err(error)),
                None => return Some(Ok(Tried { packets, blocked: true })),
            };
            packets += 1;
            match self.finish(&mut begun).now_or_never() {
                Some(Ok(())) => {}
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.begun = Some(begun);
                    return Some(Ok(Tried { packets, blocked: true }));
                }
            }
        }
        Some(Ok(Tried { packets, blocked: false }))
    }

    async fn write(&mut self, batch: &[Packet]) -> io::Result<()> {
        self.finish_begun().await?;
        for packet in batch {
            self.send(Bytes::from_owner(Payload(packet.clone()))).await?;
        }
        Ok(())
    }

    async fn ping(&mut self) -> io::Result<()> {
        self.shared.ping();
        Ok(())
    }

    async fn pong(&mut self, _payload: &[u8]) -> io::Result<()> {
        Ok(())
    }

    async fn close(&mut self, code: CloseCode, reason: &str) {
        // Closing abandons what is still under way, and what the peer has is read before the close is.
        if !self.shared.is_closed() {
            let confirm = async {
                let _ = self.finish_begun().await;
                self.confirmed().await;
            };
            let _ = tokio::time::timeout(CONFIRM, confirm).await;
        }
        self.shared.close(code.number(), reason);
        let _ = tokio::time::timeout(CLOSE, self.shared.session.closed()).await;
    }
}
