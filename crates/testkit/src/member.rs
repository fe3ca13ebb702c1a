//! A scripted member of a room: one connection of either transport, without reconnecting, that keeps all it receives.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use roomcast_protocol::seed::PacketWrapper;
use roomcast_protocol::seed::packet_wrapper::PacketType;
use roomcast_protocol::{CloseCode, PacketBuffer};
use roomcast_transport::{Incoming, PacketReader, websocket, webtransport};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use url::Url;

use crate::node_box::{NodeBox, Via};

/// How long a test waits for anything that should come at once.
pub const SOON: Duration = Duration::from_secs(10);

/// What a member may find on its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A packet's bytes.
    Packet(Bytes),
    /// The end, with the code that the node gave.
    Closed(Option<u16>),
}

/// A member.
pub struct Member {
    user: String,
    heard: mpsc::Receiver<Heard>,
    early: VecDeque<Heard>,
    writer: ClientWriter,
    reading: JoinHandle<()>,
}

enum ClientWriter {
    WebSocket(websocket::ClientWriter),
    WebTransport(webtransport::ClientWriter),
}

impl Member {
    /// Joins a room of a boxed node.
    ///
    /// # Errors
    /// Whatever the transport's client says.
    pub async fn try_join(node: &NodeBox, via: Via, user: &str, room: &str) -> anyhow::Result<Self> {
        Self::connect(&node.url(via, user, room), via, node, user).await
    }

    /// Joins a room of a boxed node.
    ///
    /// # Panics
    /// When that fails.
    pub async fn join(node: &NodeBox, via: Via, user: &str, room: &str) -> Self {
        Self::try_join(node, via, user, room).await.expect("the node takes the member in")
    }

    async fn connect(url: &str, via: Via, node: &NodeBox, user: &str) -> anyhow::Result<Self> {
        // Enough for any test to be slow at reading, and a bound all the same.
        let (sender, heard) = mpsc::channel(1 << 17);
        let (writer, reading) = match via {
            Via::WebSocket => {
                let (reader, writer) = websocket::connect(&Url::parse(url)?, &node.trust(), SOON).await?;
                (ClientWriter::WebSocket(writer), tokio::spawn(listen(reader, sender)))
            }
            Via::WebTransport => {
                let (reader, writer) = webtransport::connect(url, &node.trust(), SOON).await?;
                (ClientWriter::WebTransport(writer), tokio::spawn(listen(reader, sender)))
            }
        };
        Ok(Self { user: user.to_owned(), heard, early: VecDeque::new(), writer, reading })
    }

    /// Who it is.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Sends bytes as one packet.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, packet: impl Into<Bytes>) -> std::io::Result<()> {
        match &mut self.writer {
            ClientWriter::WebSocket(writer) => writer.send(&[packet.into()]).await,
            ClientWriter::WebTransport(writer) => writer.send(&[packet.into()]).await,
        }
    }

    /// Sends a control packet of its own with this content.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn say(&mut self, content: &str) {
        let packet = control(&self.user, content);
        self.send(packet).await.expect("the connection takes a packet");
    }

    /// The next thing heard.
    ///
    /// # Panics
    /// When nothing comes soon.
    pub async fn hear(&mut self) -> Heard {
        if let Some(heard) = self.early.pop_front() {
            return heard;
        }
        timeout(SOON, self.heard.recv()).await.expect("something is heard soon").unwrap_or(Heard::Closed(None))
    }

    /// The next packet's bytes.
    ///
    /// # Panics
    /// When the connection ends instead, or nothing comes soon.
    pub async fn hear_packet(&mut self) -> Bytes {
        match self.hear().await {
            Heard::Packet(packet) => packet,
            Heard::Closed(code) => panic!("{} was closed with {code:?} instead of hearing a packet", self.user),
        }
    }

    /// The next packet's content, for packets made by [`Member::say`].
    ///
    /// # Panics
    /// As [`Member::hear_packet`].
    pub async fn hear_content(&mut self) -> String {
        content(&self.hear_packet().await)
    }

    /// The code of the close that comes, packets before it left out.
    ///
    /// # Panics
    /// When it does not come soon.
    pub async fn hear_close(&mut self) -> Option<u16> {
        loop {
            if let Heard::Closed(code) = self.hear().await {
                return code;
            }
        }
    }

    /// The code of the close, however long it takes to come within a minute; packets before it are left out.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn hear_until_close(&mut self) -> Option<u16> {
        let close = async {
            loop {
                match self.heard.recv().await {
                    Some(Heard::Closed(code)) => return code,
                    Some(Heard::Packet(_)) => {}
                    None => return None,
                }
            }
        };
        timeout(6 * SOON, close).await.expect("the close comes within a minute")
    }

    /// What has been heard by now and not been taken, without waiting.
    pub fn heard_by_now(&mut self) -> Vec<Heard> {
        let mut all: Vec<Heard> = self.early.drain(..).collect();
        while let Ok(heard) = self.heard.try_recv() {
            all.push(heard);
        }
        all
    }

    /// Leaves in order.
    pub async fn leave(mut self) {
        match &mut self.writer {
            ClientWriter::WebSocket(writer) => writer.close(CloseCode::Done, "").await,
            ClientWriter::WebTransport(writer) => writer.close(CloseCode::Done, "").await,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn listen<R: PacketReader>(mut reader: R, heard: mpsc::Sender<Heard>) {
    let mut buffer = PacketBuffer::new();
    loop {
        let next = match reader.read(&mut buffer).await {
            Ok(Incoming::Packet) => Heard::Packet(Bytes::copy_from_slice(buffer.payload())),
            Ok(Incoming::Ping(_) | Incoming::Alive) => continue,
            Ok(Incoming::Closed(code)) => Heard::Closed(code),
            Err(_) => Heard::Closed(None),
        };
        let over = matches!(next, Heard::Closed(_));
        if heard.send(next).await.is_err() || over {
            return;
        }
    }
}

/// A CONNECTION packet, which is control and never dropped for media: `content` is its data.
#[must_use]
pub fn control(user: &str, content: &str) -> Bytes {
    let packet = PacketWrapper {
        packet_type: PacketType::Connection.into(),
        email: user.to_owned(),
        data: content.as_bytes().to_vec(),
        ..PacketWrapper::default()
    };
    packet.encode_to_vec().into()
}

/// The data of a packet, as text.
///
/// # Panics
/// When it is not a packet of the seed dialect with text in it.
#[must_use]
pub fn content(packet: &[u8]) -> String {
    let packet = PacketWrapper::decode(packet).expect("what a node relays is a packet");
    String::from_utf8(packet.data).expect("the content is text")
}
