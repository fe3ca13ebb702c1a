//! Reading one incoming stream to its end.
//!
//! What does not live here: in which order packets are released, and how long one is waited for.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes};
use roomcast_protocol::PacketBuffer;

use super::header::{self, Header};

/// How many pieces are taken from the connection under one lock.
const PIECES: usize = 8;

/// What has become of a stream.
pub(super) enum Event {
    /// More bytes came, and the stream goes on.
    Progress,
    /// The packet is whole.
    Finished(Gathered),
    /// The peer reset it, or ended it within its header.
    Reset,
    /// HTTP/3 wants it kept open.
    Critical,
    /// Not a packet's stream.
    Foreign,
    /// Longer than a packet may be.
    TooLarge,
    /// The connection is gone.
    Lost,
}

/// A packet's bytes as they came: one piece without copying, more of them joined.
pub(super) enum Gathered {
    One(Bytes),
    Many(Vec<u8>),
}

impl Gathered {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(bytes) => bytes.len(),
            Self::Many(bytes) => bytes.len(),
        }
    }

    /// Appends the packet to `buffer`.
    pub(super) fn write_to(&self, buffer: &mut PacketBuffer) {
        match self {
            Self::One(bytes) => buffer.extend(bytes),
            Self::Many(bytes) => buffer.extend(bytes),
        }
    }

    /// The same, holding no more memory than it has bytes: a piece keeps the whole datagram alive that it came in, and with
    /// it up to 64 KiB that were received together.
    pub(super) fn parked(self) -> Self {
        match self {
            Self::One(bytes) => Self::Many(bytes.to_vec()),
            Self::Many(mut bytes) => {
                bytes.shrink_to_fit();
                Self::Many(bytes)
            }
        }
    }

    fn push(&mut self, piece: Bytes) {
        match self {
            _ if piece.is_empty() => {}
            Self::One(first) if first.is_empty() => *first = piece,
            Self::One(first) => {
                let mut joined = Vec::with_capacity((first.len() + piece.len()).next_power_of_two());
                joined.extend_from_slice(first);
                joined.extend_from_slice(&piece);
                *self = Self::Many(joined);
            }
            Self::Many(joined) => joined.extend_from_slice(&piece),
        }
    }
}

/// One incoming stream, being read.
pub(super) struct Stream {
    recv: quinn::RecvStream,
    limit: usize,
    /// The first bytes, until they are a whole header.
    head: Vec<u8>,
    known: bool,
    gathered: Gathered,
    /// Who waits for it.
    waker: Option<Waker>,
}

impl Stream {
    pub(super) fn new(recv: quinn::RecvStream, limit: usize) -> Self {
        let gathered = Gathered::One(Bytes::new());
        Self { recv, limit, head: Vec::new(), known: false, gathered, waker: None }
    }

    /// The stream's number among those of its direction: they grow in the order of opening.
    pub(super) fn id(&self) -> u64 {
        self.recv.id().index()
    }

    pub(super) fn len(&self) -> usize {
        self.gathered.len()
    }

    /// The largest packet that it may be.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Whether nothing came on it yet.
    pub(super) fn is_silent(&self) -> bool {
        !self.known && self.head.is_empty()
    }

    pub(super) fn into_inner(self) -> quinn::RecvStream {
        self.recv
    }

    /// Tells the peer to send no more of it.
    pub(super) fn stop(mut self, code: quinn::VarInt) {
        // An error means that it has ended already.
        let _ = self.recv.stop(code);
    }

    /// `None`: nothing of note, read on.
    fn take(&mut self, mut piece: Bytes) -> Option<Event> {
        if !self.known {
            let verdict = if self.head.is_empty() {
                let verdict = header::parse(&piece);
                if verdict == Header::Incomplete {
                    self.head.extend_from_slice(&piece);
                }
                verdict
            } else {
                let before = self.head.len();
                let more = piece.len().min(header::MAX_BYTES - before);
                self.head.extend_from_slice(&piece[..more]);
                match header::parse(&self.head) {
                    // The header was not whole before, so it reaches into this piece.
                    Header::Packet(length) => Header::Packet(length - before),
                    other => other,
                }
            };
            match verdict {
                Header::Incomplete => return None,
                Header::Critical => return Some(Event::Critical),
                Header::Foreign => return Some(Event::Foreign),
                Header::Packet(length) => {
                    self.known = true;
                    self.head = Vec::new();
                    piece.advance(length);
                }
            }
        }
        if self.gathered.len() + piece.len() > self.limit {
            return Some(Event::TooLarge);
        }
        self.gathered.push(piece);
        None
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut progress = false;
        loop {
            let mut pieces = [const { Bytes::new() }; PIECES];
            // The future keeps nothing between polls: the connection knows by the stream's id whom to wake.
            let poll = pin!(self.recv.read_chunks(&mut pieces)).poll(cx);
            let count = match poll {
                Poll::Ready(Ok(Some(count))) => count,
                Poll::Ready(Ok(None)) if self.known => {
                    let gathered = std::mem::replace(&mut self.gathered, Gathered::One(Bytes::new()));
                    return Poll::Ready(Event::Finished(gathered));
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(Event::Reset),
                Poll::Ready(Err(quinn::ReadError::ConnectionLost(_))) => return Poll::Ready(Event::Lost),
                Poll::Ready(Err(_)) => return Poll::Ready(Event::Reset),
                Poll::Pending if progress => return Poll::Ready(Event::Progress),
                Poll::Pending => {
                    self.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            };
            progress = true;
            for piece in pieces.iter_mut().take(count) {
                if let Some(event) = self.take(std::mem::take(piece)) {
                    return Poll::Ready(event);
                }
            }
        }
    }
}

/// The future of a stream's next event, which hands the stream back; of nothing, once the stream was taken.
pub(super) struct Reading(Option<Stream>);

impl Reading {
    pub(super) fn new(stream: Stream) -> Self {
        Self(Some(stream))
    }

    /// Takes the stream, if it is this one. The future ends then.
    pub(super) fn take(&mut self, id: u64) -> Option<Stream> {
        let mut stream = self.0.take_if(|stream| stream.id() == id)?;
        if let Some(waker) = stream.waker.take() {
            waker.wake();
        }
        Some(stream)
    }
}

impl Future for Reading {
    type Output = Option<(Stream, Event)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(mut stream) = self.0.take() else { return Poll::Ready(None) };
        match stream.poll_event(cx) {
            Poll::Ready(event) => Poll::Ready(Some((stream, event))),
            Poll::Pending => {
                self.0 = Some(stream);
                Poll::Pending
            }
        }
    }
}
