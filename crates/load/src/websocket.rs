//! A member on a WebSocket, plain or over TLS: one task, without locks of its own or halves. What waits is read at once into
//! the thread's buffer and walked over; packets are written from the thread's templates.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::counts::Counts;
use crate::frames::{BINARY, CLOSE, Frames, PING};
use crate::member::{End, Member, Next};
use crate::packet::Finder;

/// Reads before other members have their turn.
const READS: usize = 4;
/// A close frame: 1000, under a mask of zeros.
const FAREWELL: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 3, 232];
/// While more than this waits to be written, pings are not answered: those bytes are sign of life enough.
const MOST_PONGS: usize = 4096;

struct Connection<S> {
    io: S,
    frames: Frames,
    /// What the socket has not taken: the rest of one packet at most, and pongs.
    backlog: Vec<u8>,
    written: usize,
    /// TLS may hold bytes that it has taken.
    unflushed: bool,
    closed: Option<String>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Sends and receives until one side leaves. `early` is what came right behind the handshake.
pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(io: S, early: &[u8], member: &mut Member) -> End {
    let sleep = member.sender.has_times().then(|| Box::pin(tokio::time::sleep(Duration::ZERO)));
    let mut connection = Connection {
        io,
        frames: Frames::default(),
        backlog: Vec::new(),
        written: 0,
        unflushed: false,
        closed: None,
        sleep,
    };
    {
        let thread = Arc::clone(&member.thread);
        let mut scratch = thread.scratch();
        let scratch = &mut *scratch;
        connection.take(early, &mut scratch.counts, &scratch.finder, member);
    }
    let end = poll_fn(|cx| connection.poll(cx, member)).await;
    if end == End::Left {
        // As far as it goes at once: whoever leaves in a hurry may also just be gone.
        poll_fn(|cx| {
            let _ = connection.start(cx, &FAREWELL);
            let _ = connection.poll_flush(cx);
            Poll::Ready(())
        })
        .await;
    }
    end
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn poll(&mut self, cx: &mut Context<'_>, member: &mut Member) -> Poll<End> {
        if let Some(why) = self.closed.take() {
            // The close came right behind the handshake.
            return Poll::Ready(End::Gone(why));
        }
        if let Poll::Ready(end) = self.poll_send(cx, member) {
            return Poll::Ready(end);
        }
        for _ in 0..READS {
            match self.poll_read(cx, member) {
                Poll::Ready(Ok(true)) => {
                    if let Some(why) = self.closed.take() {
                        return Poll::Ready(End::Gone(why));
                    }
                }
                Poll::Ready(Ok(false)) => return Poll::Ready(End::Gone("it hung up".to_owned())),
                Poll::Ready(Err(error)) => return Poll::Ready(gone(&error)),
                Poll::Pending => {
                    // Pongs are written here: nobody else wakes this task for them.
                    return match self.poll_flush(cx) {
                        Poll::Ready(Err(error)) => Poll::Ready(gone(&error)),
                        _ => Poll::Pending,
                    };
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends all that is due and can be sent, then waits for the next time or for the socket.
    fn poll_send(&mut self, cx: &mut Context<'_>, member: &mut Member) -> Poll<End> {
        loop {
            if self.unflushed || !self.backlog.is_empty() {
                if let Err(error) = ready!(self.poll_flush(cx)) {
                    return Poll::Ready(gone(&error));
                }
                member.sender.free_at = member.thread.now();
            }
            let Some(sleep) = &mut self.sleep else { return Poll::Pending };
            let thread = Arc::clone(&member.thread);
            let timeline = thread.timeline.get();
            let now = thread.now();
            match (member.sender.next(timeline, now), timeline) {
                (Next::Leave, _) => return Poll::Ready(End::Left),
                (Next::Send, Some(timeline)) => {
                    let mut scratch = thread.scratch();
                    let scratch = &mut *scratch;
                    let packet = member.sender.packet(&mut scratch.websocket, &mut scratch.counts, timeline, now);
                    if let Err(error) = self.start(cx, packet) {
                        return Poll::Ready(gone(&error));
                    }
                }
                (Next::Wait(until), _) => {
                    let Some(until) = thread.moment(until) else { return Poll::Pending };
                    if sleep.deadline() != until {
                        sleep.as_mut().reset(until);
                    }
                    ready!(sleep.as_mut().poll(cx));
                }
                (Next::Send, None) => return Poll::Pending, // nothing is due before there is a timeline
            }
        }
    }

    /// Writes a frame; keeps what the socket does not take now. Only while nothing waits.
    fn start(&mut self, cx: &mut Context<'_>, frame: &[u8]) -> io::Result<()> {
        let taken = match self.backlog.is_empty() {
            true => match Pin::new(&mut self.io).poll_write(cx, frame) {
                Poll::Ready(taken) => taken?,
                Poll::Pending => 0,
            },
            false => 0,
        };
        self.backlog.extend_from_slice(&frame[taken..]);
        self.unflushed = match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(flushed) => {
                flushed?;
                false
            }
            Poll::Pending => true,
        };
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.backlog.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.backlog[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
            self.unflushed = true;
        }
        if !self.backlog.is_empty() {
            self.backlog = Vec::new();
            self.written = 0;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// One read of all that waits; whether the connection goes on.
    fn poll_read(&mut self, cx: &mut Context<'_>, member: &mut Member) -> Poll<io::Result<bool>> {
        let thread = Arc::clone(&member.thread);
        let mut scratch = thread.scratch();
        let scratch = &mut *scratch;
        let mut buffer = ReadBuf::new(&mut scratch.buffer);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let filled = buffer.filled();
        if filled.is_empty() {
            return Poll::Ready(Ok(false));
        }
        self.take(filled, &mut scratch.counts, &scratch.finder, member);
        Poll::Ready(Ok(true))
    }

    /// Counts what came, and answers pings.
    fn take(&mut self, bytes: &[u8], counts: &mut Counts, finder: &Finder, member: &mut Member) {
        let thread = &member.thread;
        let (now, timeline, owed) = (thread.now(), thread.timeline.get(), member.sender.stays());
        let Self { frames, backlog, written, closed, .. } = self;
        frames.feed(bytes, |frame| match frame.first {
            BINARY => counts.got(timeline, &mut member.ledger, owed, finder.find(frame.head), now),
            PING if backlog.len() - *written <= MOST_PONGS => pong(backlog, frame.head),
            CLOSE => *closed = Some(reason(frame.head)),
            _ => {}
        });
    }
}

fn gone(error: &io::Error) -> End {
    End::Gone(error.to_string())
}

/// What a close frame says: its code and reason, if any.
fn reason(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            format!("closed with {code}: {}", String::from_utf8_lossy(reason))
        }
        _ => "closed without a reason".to_owned(),
    }
}

/// A pong with a ping's payload (at most 125 bytes), under a mask of zeros.
fn pong(out: &mut Vec<u8>, payload: &[u8]) {
    let payload = &payload[..payload.len().min(125)];
    out.extend([0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
    out.extend(payload);
}
