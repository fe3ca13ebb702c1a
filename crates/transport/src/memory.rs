//! A connection without sockets, over bounded channels: for tests, also under paused time.
//!
//! What does not live here: framing and handshakes. A full channel is a slow peer: writes wait.

use std::io;
use std::time::Duration;

use roomcast_protocol::{CloseCode, MAX_PACKET_BYTES, Packet, PacketBuffer};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::{Incoming, PacketReader, PacketWriter, ReadError, Tried};

/// As on the other transports.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Makes a connection: the server's two halves and the client's end. Each direction holds `capacity` messages (at least
/// one) before its sender waits.
#[must_use]
pub fn pair(capacity: usize) -> (Reader, Writer, Client) {
    let capacity = capacity.max(1);
    let (up, from_client) = mpsc::channel(capacity);
    let (down, from_server) = mpsc::channel(capacity);
    let client = Client { sender: ClientSender { to_server: up }, receiver: ClientReceiver { from_server } };
    (Reader { from_client }, Writer { to_client: Some(down) }, client)
}

#[derive(Debug)]
enum Sent {
    Packet(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

/// What the client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A packet's bytes.
    Packet(Vec<u8>),
    /// The server asks for a pong; a client that does not answer plays dead.
    Ping,
    /// The answer to the client's ping.
    Pong(Vec<u8>),
    /// The server closed; nothing follows.
    Closed {
        /// The number of the close code.
        code: u16,
        /// The words with it.
        reason: String,
    },
}

/// The connection is gone: the server dropped its half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is gone")]
pub struct Gone;

/// The server's receiving half.
#[derive(Debug)]
pub struct Reader {
    from_client: mpsc::Receiver<Sent>,
}

impl PacketReader for Reader {
    async fn read(&mut self, buffer: &mut PacketBuffer) -> Result<Incoming, ReadError> {
        buffer.clear();
        match self.from_client.recv().await {
            Some(Sent::Packet(packet)) if packet.len() > MAX_PACKET_BYTES => Err(ReadError::TooLarge(MAX_PACKET_BYTES)),
            Some(Sent::Packet(packet)) => {
                buffer.extend(&packet);
                Ok(Incoming::Packet)
            }
            Some(Sent::Ping(payload)) => Ok(Incoming::Ping(payload)),
            Some(Sent::Pong) => Ok(Incoming::Alive),
            Some(Sent::Close(code)) => {
                self.from_client.close();
                Ok(Incoming::Closed(code))
            }
            None => Err(ReadError::Gone("the client dropped its end".into())),
        }
    }
}

/// The server's sending half.
#[derive(Debug)]
pub struct Writer {
    to_client: Option<mpsc::Sender<Received>>,
}

impl Writer {
    async fn send(&self, message: Received) -> io::Result<()> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.to_client.as_ref().ok_or_else(broken)?.send(message).await.map_err(|_| broken())
    }
}

impl PacketWriter for Writer {
    fn try_write(&mut self, batch: &[Packet]) -> Option<io::Result<Tried>> {
        let Some(to_client) = &self.to_client else { return Some(Err(io::ErrorKind::BrokenPipe.into())) };
        let mut packets = 0;
        for packet in batch {
            match to_client.try_reserve() {
                Ok(permit) => permit.send(Received::Packet(packet.payload().to_vec())),
                Err(TrySendError::Full(())) => break,
                Err(TrySendError::Closed(())) => return Some(Err(io::ErrorKind::BrokenPipe.into())),
            }
            packets += 1;
        }
        Some(Ok(Tried { packets, blocked: packets < batch.len() }))
    }

    async fn write(&mut self, batch: &[Packet]) -> io::Result<()> {
        for packet in batch {
            self.send(Received::Packet(packet.payload().to_vec())).await?;
        }
        Ok(())
    }

    async fn ping(&mut self) -> io::Result<()> {
        self.send(Received::Ping).await
    }

    async fn pong(&mut self, payload: &[u8]) -> io::Result<()> {
        self.send(Received::Pong(payload.to_vec())).await
    }

    async fn close(&mut self, code: CloseCode, reason: &str) {
        let closed = Received::Closed { code: code.number(), reason: reason.to_owned() };
        let _ = tokio::time::timeout(CLOSE_TIME, self.send(closed)).await; // a client that reads nothing hears nothing
        self.to_client = None;
    }
}

/// The client's end.
#[derive(Debug)]
pub struct Client {
    sender: ClientSender,
    receiver: ClientReceiver,
}

impl Client {
    /// See [`ClientSender::send`].
    ///
    /// # Errors
    /// The server has dropped its reader.
    pub async fn send(&self, packet: impl Into<Vec<u8>>) -> Result<(), Gone> {
        self.sender.send(packet).await
    }

    /// See [`ClientReceiver::recv`].
    pub async fn recv(&mut self) -> Option<Received> {
        self.receiver.recv().await
    }

    /// See [`ClientSender::ping`].
    ///
    /// # Errors
    /// The server has dropped its reader.
    pub async fn ping(&self, payload: &[u8]) -> Result<(), Gone> {
        self.sender.ping(payload).await
    }

    /// See [`ClientSender::pong`].
    ///
    /// # Errors
    /// The server has dropped its reader.
    pub async fn pong(&self) -> Result<(), Gone> {
        self.sender.pong().await
    }

    /// See [`ClientSender::close`].
    ///
    /// # Errors
    /// The server has dropped its reader.
    pub async fn close(&self, code: Option<u16>) -> Result<(), Gone> {
        self.sender.close(code).await
    }

    /// The two directions, for two tasks. Dropping the sender is a connection that breaks.
    #[must_use]
    pub fn split(self) -> (ClientSender, ClientReceiver) {
        (self.sender, self.receiver)
    }
}

/// The client's sending direction.
#[derive(Clone, Debug)]
pub struct ClientSender {
    to_server: mpsc::Sender<Sent>,
}

impl ClientSender {
    /// Sends one packet; waits while the server does not read.
    ///
    /// # Errors
    /// The server has dropped its reader.
    pub async fn send(&self, packet: impl Into<Vec<u8>>) -> Result<(), Gone> {
        self.say(Sent::Packet(packet.into())).await
    }

    /// Asks for a pong.
    ///
    /// # Errors
    /// The server has dropped its reader.
    pub async fn ping(&self, payload: &[u8]) -> Result<(), Gone> {
        self.say(Sent::Ping(payload.to_vec())).await
    }

    /// Answers a ping.
    ///
    /// # Errors
    /// The server has dropped its reader.
    pub async fn pong(&self) -> Result<(), Gone> {
        self.say(Sent::Pong).await
    }

    /// Closes in order. To break the connection instead, drop the client's end.
    ///
    /// # Errors
    /// The server has dropped its reader.
    pub async fn close(&self, code: Option<u16>) -> Result<(), Gone> {
        self.say(Sent::Close(code)).await
    }

    async fn say(&self, message: Sent) -> Result<(), Gone> {
        self.to_server.send(message).await.map_err(|_| Gone)
    }
}

/// The client's receiving direction.
#[derive(Debug)]
pub struct ClientReceiver {
    from_server: mpsc::Receiver<Received>,
}

impl ClientReceiver {
    /// The next message; `None` once the server's writer is gone.
    pub async fn recv(&mut self) -> Option<Received> {
        self.from_server.recv().await
    }
}

#[cfg(test)]
mod tests {
    use roomcast_protocol::{Class, SessionId, Tag};

    use super::*;

    fn packet(payload: &[u8]) -> Packet {
        let mut buffer = PacketBuffer::new();
        buffer.extend(payload);
        buffer.seal(Tag { sender: SessionId(1), class: Class::Control, flow: 0 }, None)
    }

    #[tokio::test]
    async fn what_the_client_sends_is_read_in_order_and_the_close_ends_it() {
        let (mut reader, _writer, client) = pair(8);
        let mut buffer = PacketBuffer::new();
        client.send(*b"one").await.unwrap();
        client.ping(b"?").await.unwrap();
        client.pong().await.unwrap();
        client.close(Some(1000)).await.unwrap();
        assert_eq!(reader.read(&mut buffer).await.unwrap(), Incoming::Packet);
        assert_eq!(buffer.payload(), b"one");
        assert_eq!(reader.read(&mut buffer).await.unwrap(), Incoming::Ping(b"?".to_vec()));
        assert!(buffer.payload().is_empty());
        assert_eq!(reader.read(&mut buffer).await.unwrap(), Incoming::Alive);
        assert_eq!(reader.read(&mut buffer).await.unwrap(), Incoming::Closed(Some(1000)));
        assert_eq!(client.send(*b"late").await, Err(Gone));
    }

    #[tokio::test]
    async fn a_dropped_client_is_gone_and_a_huge_packet_is_refused() {
        let (mut reader, _writer, client) = pair(1);
        let mut buffer = PacketBuffer::new();
        client.send(vec![0; MAX_PACKET_BYTES + 1]).await.unwrap();
        assert!(matches!(reader.read(&mut buffer).await, Err(ReadError::TooLarge(MAX_PACKET_BYTES))));
        drop(client);
        assert!(matches!(reader.read(&mut buffer).await, Err(ReadError::Gone(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_holds_writes_up_but_not_the_close() {
        let (_reader, mut writer, mut client) = pair(2);
        let batch = [packet(b"1"), packet(b"2"), packet(b"3")];
        let stuck = tokio::time::timeout(Duration::from_secs(60), writer.write(&batch)).await;
        assert!(stuck.is_err());
        let started = tokio::time::Instant::now();
        writer.close(CloseCode::Policy, "too slow").await;
        assert!(started.elapsed() <= Duration::from_secs(2));
        assert!(writer.ping().await.is_err());
        assert_eq!(client.recv().await, Some(Received::Packet(b"1".to_vec())));
        assert_eq!(client.recv().await, Some(Received::Packet(b"2".to_vec())));
        assert_eq!(client.recv().await, None);
    }

    #[tokio::test]
    async fn a_close_reaches_a_client_that_reads() {
        let (_reader, mut writer, client) = pair(4);
        let (_sender, mut receiver) = client.split();
        writer.write(&[packet(b"last")]).await.unwrap();
        writer.close(CloseCode::Draining, "bye").await;
        assert_eq!(receiver.recv().await, Some(Received::Packet(b"last".to_vec())));
        assert_eq!(receiver.recv().await, Some(Received::Closed { code: 1001, reason: "bye".into() }));
        assert_eq!(receiver.recv().await, None);
    }
}
