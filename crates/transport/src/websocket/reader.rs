//! The receiving half: frames to packets, with every bound checked before a payload is read.
//!
//! What lives here: the byte stream, reassembly. What does not: what is allowed (`frame`), and what follows from it.
//!
//! The library is shown one frame at a time, so that between frames it holds nothing and can be dropped with its 8 KiB
//! buffer: an idle connection keeps no read buffer at all, and one that once sent a large packet does not keep its size.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fastwebsockets::{Role, WebSocketError, after_handshake_split};
use roomcast_protocol::PacketBuffer;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf, Take};
use tokio::time::Instant;

use super::frame::{Header, Kind, MAX_CONTROL, Rules, Side, close_code};
use super::stream::ReadSide;
use crate::intake::{Account, Intake};
use crate::pulse::{Mark, Pulse};
use crate::{Incoming, PacketReader, ReadError};

/// Bytes asked of the stream at once while no frame is under way: several video packets, and it fits on the stack.
const FILL: usize = 8 * 1024;

/// How long [`Reader::linger`] waits for the peer to close its side.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// How much [`Reader::linger`] reads and throws away: a message of twice the size limit that was cut off, and then some.
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// The receiving half of a WebSocket. Not cancel-safe: drop it after dropping a pending `read`.
#[derive(Debug)]
pub struct Reader<R = ReadSide> {
    gate: Gate<R>,
    rules: Rules,
    /// The beginning of a fragmented packet while a control frame between its fragments is being reported.
    partial: PacketBuffer,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// `ahead` is what was read together with the handshake.
    pub(super) fn new(inner: R, side: Side, ahead: &[u8], intake: Arc<dyn Intake>) -> Self {
        Self {
            gate: Gate {
                inner: inner.take(0),
                ahead: ahead.to_vec(),
                at: 0,
                left: 0,
                intake,
                mark: Mark::new(),
                data: false,
                arriving: None,
            },
            rules: Rules::new(side),
            partial: PacketBuffer::new(),
        }
    }

    /// Reads one frame; a data frame's payload goes to `buffer`.
    async fn frame(&mut self, side: Side, buffer: &mut PacketBuffer) -> Result<Frame, ReadError> {
        let header = self.gate.header().await.map_err(|error| ended(&error))?;
        let max_bytes = self.gate.intake.bounds().max_packet_bytes;
        let kind = self.rules.announce(&header, max_bytes)?;
        self.gate.admit(kind);
        let role = if side == Side::Server { Role::Server } else { Role::Client };
        let (mut library, _) = after_handshake_split(&mut self.gate, tokio::io::sink(), role);
        library.set_auto_close(false);
        library.set_auto_pong(false);
        library.set_max_message_size(max_bytes.max(MAX_CONTROL) + 1); // exclusive; `rules` has the say
        let frame =
            library.read_frame(&mut |_| async { Ok::<(), io::Error>(()) }).await.map_err(|error| match error {
                WebSocketError::IoError(error) => ended(&error),
                WebSocketError::UnexpectedEOF => ReadError::Gone("closed in the middle of a frame".into()),
                error => ReadError::Protocol(error.to_string()),
            })?;
        Ok(match kind {
            Kind::Data(last) => {
                buffer.extend(&frame.payload);
                if last {
                    self.gate.arriving = None;
                    Frame::Last
                } else {
                    Frame::Fragment
                }
            }
            Kind::Ping => Frame::Control(Incoming::Ping(frame.payload.to_vec())),
            Kind::Pong => Frame::Control(Incoming::Alive),
            Kind::Close => Frame::Control(Incoming::Closed(close_code(&frame.payload)?)),
        })
    }

    async fn throw_away(&mut self) {
        let mut left = LINGER_BYTES;
        while left > 0 {
            match self.gate.skip().await {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    }
}

/// What one frame was.
enum Frame {
    Fragment,
    Last,
    Control(Incoming),
}

impl<R: AsyncRead + Unpin + Send + 'static> PacketReader for Reader<R> {
    async fn read(&mut self, buffer: &mut PacketBuffer) -> Result<Incoming, ReadError> {
        buffer.clear();
        let side = self.rules.side();
        if self.rules.amid_message() {
            *buffer = std::mem::take(&mut self.partial);
        }
        loop {
            match self.frame(side, buffer).await? {
                Frame::Fragment => {}
                Frame::Last => return Ok(Incoming::Packet),
                Frame::Control(incoming) => {
                    if self.rules.amid_message() {
                        self.partial = std::mem::take(buffer);
                    }
                    return Ok(incoming);
                }
            }
        }
    }

    fn pulse(&self) -> Option<Pulse> {
        Some(self.gate.mark.pulse())
    }

    async fn linger(&mut self) {
        self.gate.arriving = None;
        let _ = tokio::time::timeout(LINGER_TIME, self.throw_away()).await;
    }
}

/// Why no more is read: the stream's error, or a bound that travelled through the library as one.
fn ended(error: &io::Error) -> ReadError {
    match (error.get_ref().and_then(|inner| inner.downcast_ref()), error.kind()) {
        (Some(Passed::Time), _) => ReadError::Slow,
        (Some(Passed::Memory), _) => ReadError::NoMemory,
        (None, io::ErrorKind::UnexpectedEof) => ReadError::Gone("closed without a close frame".into()),
        (None, _) => ReadError::Gone(error.to_string()),
    }
}

/// A bound that a packet under way has passed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a packet under way passed a bound: {self:?}")]
enum Passed {
    Time,
    Memory,
}

/// A packet of which something is still to come.
#[derive(Debug)]
struct Arriving {
    since: Instant,
    /// Its bytes so far, without those of control frames between its fragments.
    bytes: usize,
    account: Account,
}

/// Shows the library one frame at a time: reads never reach past the end of the frame whose header was taken last.
#[derive(Debug)]
struct Gate<R> {
    /// Limited before every read.
    inner: Take<R>,
    /// Read from the stream and not yet handed on, from `at` on.
    ahead: Vec<u8>,
    at: usize,
    /// Bytes of the current frame, header included, that the library has not yet seen.
    left: u64,
    intake: Arc<dyn Intake>,
    mark: Arc<Mark>,
    /// Whether the current frame is a packet's.
    data: bool,
    /// `None` also for a packet that was all there as its header was read: the common case, which costs no look at the clock.
    arriving: Option<Arriving>,
}

impl<R: AsyncRead + Unpin> Gate<R> {
    /// Waits for the next frame's header, leaves it in place for the library, and opens the gate for that frame.
    async fn header(&mut self) -> io::Result<Header> {
        loop {
            if let Some(header) = Header::parse(&self.ahead[self.at..]) {
                self.left = header.size as u64 + header.length;
                return Ok(header);
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// What the current frame is, now that its header is known.
    fn admit(&mut self, kind: Kind) {
        let Kind::Data(last) = kind else {
            self.data = false;
            return;
        };
        self.data = true;
        let all_here = last && self.left <= (self.ahead.len() - self.at) as u64;
        if self.arriving.is_none() && !all_here {
            self.arriving = Some(Arriving { since: Instant::now(), bytes: 0, account: Account::new() });
        }
    }

    /// More of the packet under way is here, or something else while it is under way.
    fn took(&mut self, bytes: usize) -> io::Result<()> {
        let Some(arriving) = &mut self.arriving else { return Ok(()) };
        arriving.bytes += bytes;
        if arriving.since.elapsed() > self.intake.bounds().time_for(arriving.bytes) {
            return Err(io::Error::other(Passed::Time));
        }
        if !arriving.account.holds(arriving.bytes, &*self.intake) {
            return Err(io::Error::other(Passed::Memory));
        }
        Ok(())
    }

    /// Reads what there is behind what is unread, at most [`FILL`] bytes; holds no memory while it waits.
    async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut space = [const { MaybeUninit::uninit() }; FILL];
            let mut read = ReadBuf::uninit(&mut space);
            self.inner.set_limit(FILL as u64);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
            self.mark.beat();
            self.took(0)?;
            let mut ahead = Vec::with_capacity(self.ahead.len() - self.at + read.filled().len());
            ahead.extend_from_slice(&self.ahead[self.at..]);
            ahead.extend_from_slice(read.filled());
            (self.ahead, self.at) = (ahead, 0);
            Poll::Ready(Ok(read.filled().len()))
        })
        .await
    }

    /// Throws away what there is; zero at the end of the stream.
    async fn skip(&mut self) -> io::Result<usize> {
        self.forget_ahead();
        let count = self.fill().await?;
        self.forget_ahead();
        Ok(count)
    }

    fn forget_ahead(&mut self) {
        (self.ahead, self.at) = (Vec::new(), 0);
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Gate<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        let unread = &gate.ahead[gate.at..];
        let before = buf.filled().len();
        if unread.is_empty() {
            gate.inner.set_limit(gate.left);
            ready!(Pin::new(&mut gate.inner).poll_read(cx, buf))?;
            gate.mark.beat();
        } else {
            let most = usize::try_from(gate.left).unwrap_or(usize::MAX);
            let count = unread.len().min(buf.remaining()).min(most);
            buf.put_slice(&unread[..count]);
            gate.at += count;
            if gate.at == gate.ahead.len() {
                gate.forget_ahead();
            }
        }
        let count = buf.filled().len() - before;
        gate.left -= count as u64; // both branches are limited to `left`
        Poll::Ready(gate.took(if gate.data { count } else { 0 }))
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
