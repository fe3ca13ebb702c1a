//! A connection between in-memory halves, on paused time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use roomcast_protocol::Dialect;
use tokio::sync::mpsc;

use super::*;
use crate::handover::Marker;
use crate::inbox::{InboxReader, Received, inbox};
use crate::outbox::{Outgoing, QueueBounds};

const KEEP_ALIVE: KeepAlive = KeepAlive { every: Duration::from_secs(5), dead_after: Duration::from_secs(15) };
const BOUNDS: QueueBounds = QueueBounds { packets: 4, bytes: 1000 };

/// What the fake server hears.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Packets(Vec<Bytes>),
    Unreliable(Bytes),
    Ping,
    Pong(Vec<u8>),
    Close(u16),
}

type Said = Result<(Incoming, &'static [u8]), ReadError>;

struct FakeReader(mpsc::UnboundedReceiver<Said>);

impl PacketReader for FakeReader {
    async fn read(&mut self, buffer: &mut PacketBuffer) -> Result<Incoming, ReadError> {
        buffer.clear();
        let Some(said) = self.0.recv().await else { return pending().await };
        let (incoming, payload) = said?;
        buffer.extend(payload);
        Ok(incoming)
    }
}

struct FakeWriter {
    heard: mpsc::UnboundedSender<Heard>,
    /// Writes that succeed before one waits for ever.
    writes: usize,
    fail: bool,
}

impl ClientSink for FakeWriter {
    const ANSWERED: bool = true;

    async fn send(&mut self, packets: &[Bytes]) -> io::Result<()> {
        if self.fail {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.writes == 0 {
            return pending().await;
        }
        self.writes -= 1;
        let _ = self.heard.send(Heard::Packets(packets.to_vec()));
        Ok(())
    }

    async fn send_unreliable(&mut self, packet: Bytes) -> io::Result<()> {
        let _ = self.heard.send(Heard::Unreliable(packet));
        Ok(())
    }

    async fn ping(&mut self) -> io::Result<()> {
        let _ = self.heard.send(Heard::Ping);
        Ok(())
    }

    async fn pong(&mut self, payload: Vec<u8>) -> io::Result<()> {
        let _ = self.heard.send(Heard::Pong(payload));
        Ok(())
    }

    async fn confirmed(&mut self) {}

    async fn close(&mut self, code: CloseCode, _reason: &'static str) {
        let _ = self.heard.send(Heard::Close(code.number()));
    }
}

/// A running connection, and the server's end of it.
struct Bench {
    shared: Arc<Shared>,
    inbox: InboxReader,
    say: mpsc::UnboundedSender<Said>,
    heard: mpsc::UnboundedReceiver<Heard>,
    gate: Arc<Gate>,
    inbox_writer: Arc<InboxWriter>,
    end: tokio::task::JoinHandle<End>,
}

fn start(writes: usize, fail: bool) -> Bench {
    start_at(Gate::open(7), writes, fail)
}

fn start_at(gate: Gate, writes: usize, fail: bool) -> Bench {
    let gate = Arc::new(gate);
    let shared = Arc::new(Shared::new(QueueBounds { packets: 100, bytes: 1 << 20 }, Some(Marker::new(Dialect::Seed))));
    shared.connected();
    let (say, said) = mpsc::unbounded_channel();
    let (hear, heard) = mpsc::unbounded_channel();
    let (inbox_writer, inbox) = inbox(BOUNDS);
    let inbox_writer = Arc::new(inbox_writer);
    let halves = (FakeReader(said), FakeWriter { heard: hear, writes, fail });
    let settings = Settings { keep_alive: KEEP_ALIVE, flush: Duration::from_secs(2) };
    let end = tokio::spawn({
        let (shared, gate, inbox_writer) = (Arc::clone(&shared), Arc::clone(&gate), Arc::clone(&inbox_writer));
        async move { run(halves, &gate, &shared, &inbox_writer, settings).await }
    });
    Bench { shared, inbox, say, heard, gate, inbox_writer, end }
}

impl Bench {
    fn push(&self, bytes: &'static [u8], unreliable: bool) {
        self.shared.push(Outgoing { bytes: Bytes::from_static(bytes), media: true, unreliable }).unwrap();
    }

    fn say(&self, incoming: Incoming, payload: &'static [u8]) {
        self.say.send(Ok((incoming, payload))).unwrap();
    }

    fn unconfirmed(&self) -> u64 {
        self.shared.counters.unconfirmed.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn packets_go_both_ways_in_order() {
    let mut bench = start(usize::MAX, false);
    for packet in [b"a", b"b"] {
        bench.say(Incoming::Packet, packet);
    }
    for packet in [&b"a"[..], b"b"] {
        assert_eq!(bench.inbox.take().await, Some(Received { bytes: packet.into(), connection: 7 }));
    }
    for (packet, unreliable) in [(b"1", false), (b"2", false), (b"3", true)] {
        bench.push(packet, unreliable);
    }
    assert_eq!(bench.heard.recv().await, Some(Heard::Packets(vec!["1".into(), "2".into()])));
    assert_eq!(bench.heard.recv().await, Some(Heard::Unreliable("3".into())));
    let stats = bench.shared.stats();
    assert_eq!((stats.received, stats.received_bytes, stats.sent, stats.sent_bytes), (2, 2, 3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_close_is_answered_and_reported() {
    let mut bench = start(usize::MAX, false);
    bench.say(Incoming::Closed(Some(1001)), b"");
    assert_eq!(bench.end.await.unwrap(), End::Remote(Ended::Closed(Some(1001))));
    assert_eq!(bench.heard.recv().await, Some(Heard::Close(1000)));
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered() {
    let mut bench = start(usize::MAX, false);
    bench.say(Incoming::Ping(b"hi".to_vec()), b"");
    assert_eq!(bench.heard.recv().await, Some(Heard::Pong(b"hi".to_vec())));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_pinged_and_then_given_up() {
    let mut bench = start(usize::MAX, false);
    let began = Instant::now();
    let end = (&mut bench.end).await.unwrap();
    assert_eq!(end, End::Remote(Ended::Lost("nothing heard for 15s".into())));
    assert_eq!(began.elapsed().as_secs(), 15);
    assert_eq!(bench.heard.recv().await, Some(Heard::Ping));
    assert_eq!(bench.heard.recv().await, Some(Heard::Ping));
}

#[tokio::test(start_paused = true)]
async fn pongs_keep_it_alive() {
    let mut bench = start(usize::MAX, false);
    for _ in 0..20 {
        assert_eq!(bench.heard.recv().await, Some(Heard::Ping));
        bench.say(Incoming::Alive, b"");
    }
    assert!(!bench.end.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_application_that_does_not_read_loses_nothing_and_the_server_is_not_blamed() {
    let mut bench = start(usize::MAX, false);
    for _ in 0..20 {
        bench.say(Incoming::Packet, b"x");
    }
    for _ in 0..12 {
        assert_eq!(bench.heard.recv().await, Some(Heard::Ping)); // a minute goes by
    }
    assert!(!bench.end.is_finished());
    for _ in 0..20 {
        assert!(bench.inbox.take().await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_nothing_is_given_up() {
    let bench = start(0, false);
    bench.push(b"1", false);
    let keep_talking = bench.say.clone();
    let talk = tokio::spawn(async move {
        while keep_talking.send(Ok((Incoming::Alive, b""))).is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    let Bench { shared, end, .. } = bench;
    assert_eq!(end.await.unwrap(), End::Remote(Ended::Lost("the server takes nothing".into())));
    assert_eq!(shared.counters.unconfirmed.load(Ordering::Relaxed), 1);
    talk.abort();
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_leaves_time_to_read_why() {
    let mut bench = start(0, true);
    bench.push(b"1", false);
    // Long enough for the write to have failed: time moves on only when everything else waits.
    sleep(Duration::from_millis(100)).await;
    bench.say(Incoming::Closed(Some(1008)), b"");
    assert_eq!((&mut bench.end).await.unwrap(), End::Remote(Ended::Closed(Some(1008))));
    assert_eq!(bench.unconfirmed(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_local_close_sends_what_waits_first() {
    let mut bench = start(usize::MAX, false);
    bench.push(b"1", false);
    bench.shared.closing.cancel();
    assert_eq!((&mut bench.end).await.unwrap(), End::Local);
    assert_eq!(bench.heard.recv().await, Some(Heard::Packets(vec!["1".into()])));
    assert_eq!(bench.heard.recv().await, Some(Heard::Close(1000)));
}

#[tokio::test(start_paused = true)]
async fn a_local_close_does_not_wait_for_ever() {
    let mut bench = start(0, false);
    bench.push(b"1", false);
    bench.shared.closing.cancel();
    let began = Instant::now();
    assert_eq!((&mut bench.end).await.unwrap(), End::Local);
    assert_eq!(began.elapsed().as_secs(), 2);
    assert_eq!(bench.heard.recv().await, Some(Heard::Close(1000)));
    assert_eq!(bench.unconfirmed(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_never_accepted_ends_it_with_a_reason() {
    let mut bench = start(usize::MAX, false);
    bench.say.send(Err(ReadError::Unsupported("a text message"))).unwrap();
    let ended = (&mut bench.end).await.unwrap();
    assert_eq!(ended, End::Remote(Ended::Misbehaved("a text message".into())));
    assert_eq!(bench.heard.recv().await, Some(Heard::Close(1002)));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_held_keeps_what_comes_and_sends_nothing_but_signs_of_life() {
    let mut bench = start_at(Gate::closed(8, BOUNDS), usize::MAX, false);
    bench.push(b"1", false);
    for _ in 0..6 {
        bench.say(Incoming::Packet, b"x"); // two more than it holds
    }
    bench.say(Incoming::Ping(b"hi".to_vec()), b"");
    assert_eq!(bench.heard.recv().await, Some(Heard::Ping), "a server that waits is not asked for more");
    assert_eq!(bench.heard.recv().await, Some(Heard::Ping), "and is not taken for dead");
    let stats = bench.shared.stats();
    assert_eq!((stats.received, stats.sent, stats.held_full), (0, 0, 1));

    bench.gate.set_mode(Mode::Send);
    let Bench { gate, shared, inbox_writer, inbox, .. } = &mut bench;
    let hand_on = gate.hand_on(shared, inbox_writer, now);
    let take = async {
        for _ in 0..6 {
            assert!(inbox.take().await.is_some());
        }
    };
    tokio::join!(hand_on, take);
    let heard = [bench.heard.recv().await.unwrap(), bench.heard.recv().await.unwrap()];
    assert!(heard.contains(&Heard::Packets(vec!["1".into()])), "{heard:?}");
    assert!(heard.contains(&Heard::Pong(b"hi".to_vec())), "what waited behind the packets is read: {heard:?}");
    assert_eq!(bench.shared.stats().received, 6);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_done_with_says_so_once_and_last() {
    let mut bench = start(usize::MAX, false);
    bench.say(Incoming::Packet, Notice::Leave.bytes());
    bench.gate.leave.cancelled().await;
    bench.push(b"1", false);
    assert_eq!(bench.heard.recv().await, Some(Heard::Packets(vec!["1".into()])));
    bench.gate.set_mode(Mode::Finish);
    bench.push(b"2", false);
    let done = Bytes::from_static(Notice::Done.bytes());
    assert_eq!(bench.heard.recv().await, Some(Heard::Packets(vec![done])));
    bench.say(Incoming::Packet, b"x");
    assert!(bench.inbox.take().await.is_some(), "it is read to its end");
    assert_eq!(bench.heard.recv().await, Some(Heard::Ping));
    bench.gate.set_mode(Mode::Abandon);
    assert_eq!((&mut bench.end).await.unwrap(), End::Local);
    assert_eq!(bench.heard.recv().await, Some(Heard::Close(1000)));
    let stats = bench.shared.stats();
    assert_eq!((stats.received, stats.sent), (1, 1), "notices are no packets");
}
