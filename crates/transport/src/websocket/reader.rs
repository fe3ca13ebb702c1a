//! The receiving half: frames to packets, with every bound checked before a payload is read.
//!
//! What lives here: the byte stream, unmasking, reassembly. What does not: what is allowed (`frame`), and what follows from it.
//!
//! One read takes what has arrived onto the stack; payloads go from there to the packet under way, unmasked as they are copied. What
//! lies behind a packet's end is kept for the next call, mostly nothing: an idle connection keeps no read buffer at all, and one
//! that once sent a large packet does not keep its size.
//!
//! The frames are read here and not by the library that made the handshake: it would take a buffer of 8 KiB for each frame, copy
//! it twice more, and reserve whatever length a frame announces.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use roomcast_protocol::PacketBuffer;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::frame::{Header, Kind, Rules, Side, close_code, unmask};
use super::stream::ReadSide;
use crate::intake::{Account, Intake};
use crate::pulse::{Mark, Pulse};
use crate::{Incoming, PacketReader, ReadError};

/// Bytes asked of the stream at once: a dozen packets of sound, or one of video at 1.5 Mbit/s, and it fits on the stack.
const FILL: usize = 16 * 1024;

/// How long [`Reader::linger`] waits for the peer to close its side.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// How much [`Reader::linger`] reads and throws away: a message of twice the size limit that was cut off, and then some.
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// The receiving half of a WebSocket. Not cancel-safe: drop it after dropping a pending `read`.
#[derive(Debug)]
pub struct Reader<R = ReadSide> {
    inner: R,
    rules: Rules,
    /// Read from the stream and not yet looked at, from `at` on.
    ahead: Vec<u8>,
    at: usize,
    /// The frame whose header was taken last, until all of it is here.
    frame: Option<Frame>,
    /// The beginning of a fragmented packet while a control frame between its fragments is being reported.
    partial: PacketBuffer,
    intake: Arc<dyn Intake>,
    mark: Arc<Mark>,
    /// `None` also for a packet that was all there as its header was read: the common case, which costs no look at the clock.
    arriving: Option<Arriving>,
}

/// A frame of which `left` bytes of payload are still to come.
#[derive(Debug)]
struct Frame {
    kind: Kind,
    mask: [u8; 4],
    left: u64,
    /// A control frame's payload so far.
    control: Vec<u8>,
}

/// A packet of which something is still to come.
#[derive(Debug)]
struct Arriving {
    since: Instant,
    /// Its bytes so far, without those of control frames between its fragments.
    bytes: usize,
    account: Account,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// `ahead` is what was read together with the handshake.
    pub(super) fn new(inner: R, side: Side, ahead: &[u8], intake: Arc<dyn Intake>) -> Self {
        Self {
            inner,
            rules: Rules::new(side),
            ahead: ahead.to_vec(),
            at: 0,
            frame: None,
            partial: PacketBuffer::new(),
            intake,
            mark: Mark::new(),
            arriving: None,
        }
    }

    /// Takes frames from the front of `bytes` until one has something to report; gives that, and how many bytes it used. Uses all
    /// of them, but for a header cut short, where there is nothing to report.
    fn take(&mut self, bytes: &[u8], buffer: &mut PacketBuffer) -> Result<(Option<Incoming>, usize), ReadError> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let Some(frame) = &mut self.frame else {
                let Some(header) = Header::parse(rest) else { return Ok((None, used)) };
                let kind = self.rules.announce(&header, self.intake.bounds().max_packet_bytes)?;
                let here = (rest.len() - header.size) as u64;
                if matches!(kind, Kind::Data(_)) && self.arriving.is_none() {
                    let whole = kind == Kind::Data(true) && header.length <= here;
                    let begun = || Arriving { since: Instant::now(), bytes: 0, account: Account::new() };
                    self.arriving = (!whole).then(begun);
                }
                self.frame = Some(Frame { kind, mask: header.mask, left: header.length, control: Vec::new() });
                used += header.size;
                continue;
            };
            let count = usize::try_from(frame.left).unwrap_or(usize::MAX).min(rest.len());
            let masked = self.rules.side() == Side::Server;
            let copied = |payload: &mut [u8]| {
                if masked {
                    unmask(payload, frame.mask);
                }
            };
            if let Kind::Data(_) = frame.kind {
                buffer.extend_with(&rest[..count], copied);
            } else {
                let before = frame.control.len();
                frame.control.extend_from_slice(&rest[..count]);
                copied(&mut frame.control[before..]);
            }
            frame.mask.rotate_left(count % 4);
            frame.left -= count as u64; // at most `left`, see above
            used += count;
            let (kind, whole) = (frame.kind, frame.left == 0);
            self.took(if matches!(kind, Kind::Data(_)) { count } else { 0 })?;
            if !whole {
                return Ok((None, used));
            }
            let Some(frame) = self.frame.take() else { continue };
            let incoming = match kind {
                Kind::Data(false) => continue,
                Kind::Data(true) => {
                    self.arriving = None;
                    Incoming::Packet
                }
                Kind::Ping => Incoming::Ping(frame.control),
                Kind::Pong => Incoming::Alive,
                Kind::Close => Incoming::Closed(close_code(&frame.control)?),
            };
            return Ok((Some(incoming), used));
        }
    }

    /// More of the packet under way is here, or something else while it is under way.
    fn took(&mut self, bytes: usize) -> Result<(), ReadError> {
        let Some(arriving) = &mut self.arriving else { return Ok(()) };
        arriving.bytes += bytes;
        if arriving.since.elapsed() > self.intake.bounds().time_for(arriving.bytes) {
            return Err(ReadError::Slow);
        }
        if !arriving.account.holds(arriving.bytes, &*self.intake) {
            return Err(ReadError::NoMemory);
        }
        Ok(())
    }

    /// What was read ahead, to its first report. Forgets what it used.
    fn take_ahead(&mut self, buffer: &mut PacketBuffer) -> Result<Option<Incoming>, ReadError> {
        if self.at == self.ahead.len() {
            return Ok(None);
        }
        let ahead = std::mem::take(&mut self.ahead);
        let (incoming, used) = self.take(&ahead[self.at..], buffer)?;
        self.at += used;
        if self.at == ahead.len() {
            self.at = 0;
        } else {
            self.ahead = ahead;
        }
        Ok(incoming)
    }

    /// Reads once and takes what is there, to its first report; holds no memory while it waits.
    async fn fill(&mut self, buffer: &mut PacketBuffer) -> Result<Option<Incoming>, ReadError> {
        poll_fn(|cx| {
            let mut space = [const { MaybeUninit::uninit() }; FILL];
            let mut read = ReadBuf::uninit(&mut space);
            // A header cut short goes first, so that what is taken is in one piece.
            let cut = &self.ahead[self.at..];
            read.put_slice(cut);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read)).map_err(|error| ended(&error))?;
            let bytes = read.filled();
            if bytes.len() == cut.len() {
                let amid = self.frame.is_some() || !cut.is_empty();
                let how = if amid { "in the middle of a frame" } else { "without a close frame" };
                return Poll::Ready(Err(ReadError::Gone(format!("closed {how}"))));
            }
            (self.ahead, self.at) = (Vec::new(), 0);
            self.mark.beat();
            let (incoming, used) = self.take(bytes, buffer)?;
            self.took(0)?; // also where all that came was a piece of a header
            if used < bytes.len() {
                self.ahead = bytes[used..].to_vec();
            }
            Poll::Ready(Ok(incoming))
        })
        .await
    }

    /// Throws away what there is; zero at the end of the stream.
    async fn skip(&mut self) -> io::Result<usize> {
        (self.ahead, self.at) = (Vec::new(), 0);
        poll_fn(|cx| {
            let mut space = [const { MaybeUninit::uninit() }; FILL];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
            Poll::Ready(Ok(read.filled().len()))
        })
        .await
    }

    async fn throw_away(&mut self) {
        let mut left = LINGER_BYTES;
        while left > 0 {
            match self.skip().await {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    }
}

impl<R: AsyncRead + Unpin + Send + 'static> PacketReader for Reader<R> {
    async fn read(&mut self, buffer: &mut PacketBuffer) -> Result<Incoming, ReadError> {
        buffer.clear();
        if self.rules.amid_message() {
            *buffer = std::mem::take(&mut self.partial);
        }
        let incoming = loop {
            if let Some(incoming) = self.take_ahead(buffer)? {
                break incoming;
            }
            if let Some(incoming) = self.fill(buffer).await? {
                break incoming;
            }
        };
        if incoming != Incoming::Packet && self.rules.amid_message() {
            self.partial = std::mem::take(buffer);
        }
        Ok(incoming)
    }

    fn pulse(&self) -> Option<Pulse> {
        Some(self.mark.pulse())
    }

    async fn linger(&mut self) {
        self.arriving = None;
        let _ = tokio::time::timeout(LINGER_TIME, self.throw_away()).await;
    }
}

/// Why no more is read.
fn ended(error: &io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::Gone("closed without a close frame".into()),
        _ => ReadError::Gone(error.to_string()),
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
