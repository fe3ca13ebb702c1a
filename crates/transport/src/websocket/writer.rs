//! The sending half of the server: batches of packets, framed once for everybody, to the socket.
//!
//! What lives here: vectored writes, partial writes, control frames, the close. What does not: which packets, and when.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use roomcast_protocol::{CloseCode, Packet};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::frame::{self, Opcode};
use super::stream::WriteSide;
use crate::{PacketWriter, Tried};

/// Slices of one vectored write. At sixteen the system call's cost has already fallen to a tenth per packet; this is
/// what a dense connection gathers within `egress.coalesce`, and the slices fit on the stack (2 KiB).
const MAX_SLICES: usize = 128;
/// Slices of most writes: less to set up, and as many as the kernel takes without memory of its own.
const FEW_SLICES: usize = 8;

/// The most that closing takes, whatever the peer does.
pub(super) const CLOSE_TIME: Duration = Duration::from_secs(1);

/// The sending half of a WebSocket on the server's side.
///
/// A frame cut short by a dropped future is finished before the next one, so that a close frame can still be said
/// after a `write` was abandoned. The packets behind the cut frame are not sent.
#[derive(Debug)]
pub struct Writer<W = WriteSide> {
    io: W,
    /// The frame that is partly written, or about to be.
    rest: Option<Rest>,
    closed: bool,
}

/// A frame of which `sent` bytes are written.
#[derive(Debug)]
struct Rest {
    frame: Held,
    sent: usize,
}

#[derive(Debug)]
enum Held {
    Packet(Packet),
    Control(Vec<u8>),
}

impl Held {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Packet(packet) => packet.websocket_frame(),
            Self::Control(frame) => frame,
        }
    }
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(super) const fn new(io: W) -> Self {
        Self { io, rest: None, closed: false }
    }

    /// Writes what is left of a frame that was begun.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = &mut self.rest {
            let bytes = &rest.frame.bytes()[rest.sent..];
            if bytes.is_empty() {
                self.rest = None;
                break;
            }
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            rest.sent += count;
        }
        Poll::Ready(Ok(()))
    }

    async fn finish(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_finish(cx)).await
    }

    async fn control(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        self.open()?;
        self.finish().await?;
        let mut frame = Vec::new();
        frame::encode(&mut frame, opcode, payload, None);
        self.rest = Some(Rest { frame: Held::Control(frame), sent: 0 });
        self.finish().await?;
        self.io.flush().await
    }

    fn open(&self) -> io::Result<()> {
        if self.closed { Err(io::Error::new(io::ErrorKind::BrokenPipe, "already closed")) } else { Ok(()) }
    }

    /// One vectored write of `batch`, of whose first packet `sent` bytes are written already. Gives how many packets it
    /// completed and how much of the next one it wrote.
    fn poll_some(&mut self, cx: &mut Context<'_>, batch: &[Packet], sent: usize) -> Poll<io::Result<(usize, usize)>> {
        let written = match batch {
            // Cheaper than a vectored write of one.
            [packet] => Pin::new(&mut self.io).poll_write(cx, &packet.websocket_frame()[sent..]),
            _ if batch.len() <= FEW_SLICES => self.poll_slices::<FEW_SLICES>(cx, batch, sent),
            _ => self.poll_slices::<MAX_SLICES>(cx, batch, sent),
        };
        let mut count = sent + ready!(written)?;
        if count == sent {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        for (index, packet) in batch.iter().enumerate() {
            let length = packet.websocket_frame().len();
            if count < length {
                self.rest = (count > 0).then(|| Rest { frame: Held::Packet(packet.clone()), sent: count });
                return Poll::Ready(Ok((index, count)));
            }
            count -= length;
        }
        self.rest = None;
        Poll::Ready(Ok((batch.len(), 0)))
    }

    /// One vectored write of the first `MOST` packets.
    fn poll_slices<const MOST: usize>(
        &mut self,
        cx: &mut Context<'_>,
        batch: &[Packet],
        sent: usize,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); MOST];
        let mut skip = sent;
        let mut used = 0;
        for (slice, packet) in slices.iter_mut().zip(batch) {
            *slice = IoSlice::new(&packet.websocket_frame()[skip..]);
            skip = 0;
            used += 1;
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..used])
    }

    /// Writes `batch`, counting in `done` the packets that are done with, one that was begun included.
    fn poll_batch(&mut self, cx: &mut Context<'_>, batch: &[Packet], done: &mut usize) -> Poll<io::Result<()>> {
        ready!(self.poll_finish(cx))?;
        let mut sent = 0;
        let mut whole = 0;
        while whole < batch.len() {
            let more;
            (more, sent) = ready!(self.poll_some(cx, &batch[whole..], sent))?;
            whole += more;
            *done = whole + usize::from(sent > 0);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> PacketWriter for Writer<W> {
    fn try_write(&mut self, batch: &[Packet]) -> Option<io::Result<Tried>> {
        if let Err(error) = self.open() {
            return Some(Err(error));
        }
        let mut packets = 0;
        // Nobody is woken: whoever is told that this is blocked calls `write`, which asks again.
        let written = self.poll_batch(&mut Context::from_waker(Waker::noop()), batch, &mut packets);
        Some(match written {
            Poll::Ready(Ok(())) => Ok(Tried { packets, blocked: false }),
            Poll::Pending => Ok(Tried { packets, blocked: true }),
            Poll::Ready(Err(error)) => Err(error),
        })
    }

    async fn write(&mut self, batch: &[Packet]) -> io::Result<()> {
        self.open()?;
        self.finish().await?;
        let (mut whole, mut sent) = (0, 0);
        while whole < batch.len() {
            let more;
            (more, sent) = poll_fn(|cx| self.poll_some(cx, &batch[whole..], sent)).await?;
            whole += more;
        }
        self.io.flush().await
    }

    async fn ping(&mut self) -> io::Result<()> {
        self.control(Opcode::Ping, &[]).await
    }

    async fn pong(&mut self, payload: &[u8]) -> io::Result<()> {
        self.control(Opcode::Pong, payload).await
    }

    async fn close(&mut self, code: CloseCode, reason: &str) {
        let payload = frame::close_payload(code.number(), reason);
        let closing = async {
            self.control(Opcode::Close, &payload).await?;
            self.closed = true;
            self.io.shutdown().await
        };
        // Whether the peer heard it or not, this end is done with it.
        let _ = tokio::time::timeout(CLOSE_TIME, closing).await;
        self.closed = true;
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
