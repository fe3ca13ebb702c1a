//! A client's connection, as light as can be: what comes is handed to a function and kept nowhere.

use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::{CloseCode, PacketBuffer};
use roomcast_transport::{Incoming, PacketReader, websocket, webtransport};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use url::Url;

use crate::member::SOON;
use crate::node_box::{NodeBox, Via};

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The node closed it with this code.
    Closed(Option<u16>),
    /// It broke.
    Broken(String),
}

/// One open connection.
pub struct Line {
    writer: Writer,
    reading: JoinHandle<Ended>,
}

enum Writer {
    WebSocket(websocket::ClientWriter),
    WebTransport(webtransport::ClientWriter),
}

impl Line {
    /// Joins a room; `hear` is called with each packet's bytes from then on.
    ///
    /// # Errors
    /// Whatever the transport's client says.
    pub async fn open(
        node: &NodeBox,
        via: Via,
        user: &str,
        room: &str,
        hear: impl FnMut(&[u8]) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let url = node.url(via, user, room);
        let (writer, reading) = match via {
            Via::WebSocket => {
                let (reader, writer) = websocket::connect(&Url::parse(&url)?, &node.trust(), SOON).await?;
                (Writer::WebSocket(writer), tokio::spawn(listen(reader, hear)))
            }
            Via::WebTransport => {
                let (reader, writer) = webtransport::connect(&url, &node.trust(), SOON).await?;
                (Writer::WebTransport(writer), tokio::spawn(listen(reader, hear)))
            }
        };
        Ok(Self { writer, reading })
    }

    /// Sends bytes as one packet.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, packet: Bytes) -> std::io::Result<()> {
        match &mut self.writer {
            Writer::WebSocket(writer) => writer.send(&[packet]).await,
            Writer::WebTransport(writer) => writer.send(&[packet]).await,
        }
    }

    /// Whether the connection has ended already.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.reading.is_finished()
    }

    /// Leaves in order.
    ///
    /// # Errors
    /// How it ended, where the node ended it before, or not in order.
    pub async fn leave(mut self) -> Result<(), Ended> {
        if self.is_over() {
            return Err(self.end(SOON).await);
        }
        match &mut self.writer {
            Writer::WebSocket(writer) => writer.close(CloseCode::Done, "").await,
            Writer::WebTransport(writer) => writer.close(CloseCode::Done, "").await,
        }
        match self.end(SOON).await {
            // Without a code where this side's own close of a QUIC connection was seen first.
            Ended::Closed(Some(1000) | None) => Ok(()),
            ended => Err(ended),
        }
    }

    /// Waits for the node to end it.
    pub async fn end(mut self, within: Duration) -> Ended {
        match timeout(within, &mut self.reading).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => Ended::Broken(error.to_string()),
            Err(_) => Ended::Broken(format!("no end within {within:?}")),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn listen<R: PacketReader>(mut reader: R, mut hear: impl FnMut(&[u8])) -> Ended {
    let mut buffer = PacketBuffer::new();
    loop {
        match reader.read(&mut buffer).await {
            Ok(Incoming::Packet) => hear(buffer.payload()),
            Ok(Incoming::Ping(_) | Incoming::Alive) => {}
            Ok(Incoming::Closed(code)) => return Ended::Closed(code),
            Err(error) => return Ended::Broken(error.to_string()),
        }
    }
}
