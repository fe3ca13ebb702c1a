//! A member on a WebTransport session: each packet on a unidirectional stream of its own, in both directions. Streams are
//! read in the order in which the router opened them, without keeping more than the beginning of each.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use web_transport_quinn::Session;

use crate::frames::HEAD;
use crate::ledger::Ledger;
use crate::member::{End, Member, Next, Sender};
use crate::packet::STREAM_HEADER;
use crate::thread::{Scratch, Thread};

/// How many pieces of a stream are taken at once.
const PIECES: usize = 16;
/// Opening a stream that takes longer was held up by the router's limit of them, in microseconds.
const HELD: u64 = 100;

/// Sends and receives until one side leaves. The endpoint is the session's socket.
pub(crate) async fn run(endpoint: quinn::Endpoint, session: &Session, member: &mut Member) -> End {
    let connection: quinn::Connection = (**session).clone();
    let Member { thread, ledger, sender } = member;
    let owed = sender.stays();
    let end = tokio::select! {
        end = send(&connection, sender) => end,
        end = receive(&connection, thread, ledger, owed) => end,
    };
    if end == End::Left {
        session.close(1000, b"");
    }
    drop(endpoint);
    end
}

/// Counts what comes until the connection is gone.
async fn receive(connection: &quinn::Connection, thread: &Thread, ledger: &mut Ledger, owed: bool) -> End {
    let mut pieces: [Bytes; PIECES] = Default::default();
    loop {
        let mut stream = match connection.accept_uni().await {
            Ok(stream) => stream,
            Err(error) => return End::Gone(error.to_string()),
        };
        let mut head = [0; STREAM_HEADER.len() + HEAD];
        let mut filled = 0;
        let whole = loop {
            match stream.read_chunks(&mut pieces).await {
                Ok(Some(count)) => {
                    for piece in &mut pieces[..count] {
                        let piece = std::mem::take(piece);
                        let more = piece.len().min(head.len() - filled);
                        head[filled..filled + more].copy_from_slice(&piece[..more]);
                        filled += more;
                    }
                }
                Ok(None) => break true,
                // Reset by the router: a packet that it gave up half-way, and so one that did not come.
                Err(_) => break false,
            }
        };
        if whole {
            let packet = head[..filled].strip_prefix(&STREAM_HEADER);
            let mut scratch = thread.scratch();
            let Scratch { counts, finder, .. } = &mut *scratch;
            let stamp = packet.and_then(|packet| finder.find(packet));
            counts.got(thread.timeline.get(), ledger, owed, stamp, thread.now());
        }
    }
}

/// Sends what is due until it is time to leave, or the connection is gone.
async fn send(connection: &quinn::Connection, sender: &mut Sender) -> End {
    let thread = Arc::clone(&sender.thread);
    loop {
        let now = thread.now();
        match sender.next(thread.timeline.get(), now) {
            Next::Leave => return End::Left,
            Next::Wait(until) => match thread.moment(until) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            },
            Next::Send => {
                if send_one(connection, sender, &thread).await.is_none() {
                    let why = connection
                        .close_reason()
                        .map_or_else(|| "a stream broke".to_owned(), |error| error.to_string());
                    return End::Gone(why);
                }
            }
        }
    }
}

/// Sends one packet on a stream of its own; `None` where the connection is gone.
async fn send_one(connection: &quinn::Connection, sender: &mut Sender, thread: &Thread) -> Option<()> {
    let begun = thread.now();
    let mut stream = connection.open_uni().await.ok()?;
    let now = thread.now();
    if now - begun > HELD {
        sender.free_at = now;
    }
    let timeline = thread.timeline.get()?;
    let rest = poll_fn(|cx| {
        let mut scratch = thread.scratch();
        let Scratch { counts, webtransport, .. } = &mut *scratch;
        let packet = sender.packet(webtransport, counts, timeline, now);
        Poll::Ready(match Pin::new(&mut stream).poll_write(cx, packet) {
            Poll::Ready(Ok(taken)) => Ok(packet[taken..].to_vec()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(packet.to_vec()),
        })
    })
    .await
    .ok()?;
    if !rest.is_empty() {
        stream.write_all(&rest).await.ok()?;
        sender.free_at = thread.now();
    }
    // An error means that the router has stopped reading it, after all of it was taken.
    let _ = stream.finish();
    Some(())
}
