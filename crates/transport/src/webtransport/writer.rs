//! The sending half: one unidirectional stream per packet, one after the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::{CloseCode, Packet};
use web_transport_quinn::Session;

use super::{Shared, header, stream_code};
use crate::PacketWriter;

/// How long closing may take, whatever the peer does.
const CLOSE: Duration = Duration::from_secs(1);

/// The code of a stream that this side breaks off.
const BROKEN_OFF: u32 = 2;

/// The sending half of a WebTransport connection.
pub struct Writer {
    shared: Arc<Shared>,
    header: Bytes,
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
        Self { shared, header: header::encoded() }
    }

    /// The session below, for what packets cannot express.
    pub(super) fn session(&self) -> &Session {
        &self.shared.session
    }

    /// Writes one packet on a stream of its own, and waits only for QUIC to take it. Gives back the finished stream, unless
    /// the peer refused it.
    pub(super) async fn send(&mut self, payload: Bytes) -> io::Result<Option<quinn::SendStream>> {
        let gone = |_| io::Error::new(io::ErrorKind::ConnectionAborted, self.shared.reason());
        let stream = quinn::Connection::open_uni(&self.shared.session).await.map_err(gone)?;
        let mut stream = Unfinished(Some(stream));
        let written = match &mut stream.0 {
            Some(stream) => stream.write_all_chunks(&mut [self.header.clone(), payload]).await,
            None => Ok(()),
        };
        match written {
            Ok(()) => {
                let mut finished = stream.0.take();
                if let Some(stream) = &mut finished {
                    // An error means that the peer has stopped it, after all of it was taken.
                    let _ = stream.finish();
                }
                Ok(finished)
            }
            Err(quinn::WriteError::Stopped(_)) => {
                self.shared.counters.refused();
                Ok(None)
            }
            Err(error) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, format!("{error}: {}", self.shared.reason())))
            }
        }
    }
}

impl PacketWriter for Writer {
    async fn write(&mut self, batch: &[Packet]) -> io::Result<()> {
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
        self.shared.close(code.number(), reason);
        let _ = tokio::time::timeout(CLOSE, self.shared.session.closed()).await;
    }
}
