//! A client that is asked to leave goes over to another node without a gap, whatever happens on the way.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use roomcast_client::{Client, ClosedReason, State};
use roomcast_protocol::CloseCode;
use roomcast_protocol::notice::Notice;
use roomcast_transport::Incoming;
use support::{Accepted, KINDS, Kind, Reader, Server, Writer, state, within};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

const LEAVE: &[u8] = b"\0roomcast leave";
const DONE: &[u8] = b"\0roomcast done";

fn numbered(sender: &str, number: usize) -> Bytes {
    // As long as some packets are, and unlike every other.
    let mut packet = format!("{sender} {number} ").into_bytes();
    packet.resize(packet.len() + number % 7 * 200, b'.');
    packet.into()
}

/// What a scripted room tells its connections to write; `None`: close with 1000 after all that.
type Down = mpsc::UnboundedSender<Option<Bytes>>;

/// A room on two scripted nodes: what is said in it goes to every connection, in order, each at its own pace (and at
/// once what waits for a client that is done).
#[derive(Clone, Default)]
struct Room(Arc<Mutex<RoomState>>);

#[derive(Default)]
struct RoomState {
    members: Vec<Down>,
    /// What the client said, on whichever connection.
    heard: Vec<Bytes>,
}

impl Room {
    fn say(&self, packet: &Bytes) {
        self.0.lock().unwrap().members.retain(|member| member.send(Some(packet.clone())).is_ok());
    }

    /// Runs a connection until the client is done with it, or closes it. Writing takes up to `slow` a packet.
    fn join(&self, accepted: Accepted, slow: Duration) -> (Down, JoinHandle<bool>) {
        let (down, orders) = mpsc::unbounded_channel();
        self.0.lock().unwrap().members.push(down.clone());
        let Accepted { reader, writer, .. } = accepted;
        let hurry = Arc::new(AtomicBool::new(false));
        let writing = tokio::spawn(write(writer, orders, slow, Arc::clone(&hurry)));
        let reading = tokio::spawn(self.clone().read(reader, down.clone(), writing, hurry));
        (down, reading)
    }

    /// Whether the client said that it is done.
    async fn read(self, mut reader: Reader, down: Down, writing: JoinHandle<()>, hurry: Arc<AtomicBool>) -> bool {
        let mut done = false;
        loop {
            match reader.read().await {
                Ok(Ok(packet)) if packet == DONE => {
                    // The seat is free: nothing more of the room goes there.
                    self.0.lock().unwrap().members.retain(|member| !member.same_channel(&down));
                    down.send(None).unwrap();
                    hurry.store(true, Ordering::Relaxed);
                    done = true;
                }
                Ok(Ok(packet)) => {
                    assert!(!done, "more after the last packet");
                    let mut room = self.0.lock().unwrap();
                    room.heard.push(packet.clone());
                    // It is another session that hears it: the client's own packets come back there.
                    room.members
                        .retain(|member| member.same_channel(&down) || member.send(Some(packet.clone())).is_ok());
                }
                Ok(Err(Incoming::Ping(_) | Incoming::Alive)) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        writing.abort();
        done
    }
}

async fn write(
    mut writer: Writer,
    mut orders: mpsc::UnboundedReceiver<Option<Bytes>>,
    slow: Duration,
    hurry: Arc<AtomicBool>,
) {
    let mut dice = fastrand::Rng::new();
    loop {
        match orders.recv().await {
            Some(Some(packet)) => {
                if !slow.is_zero() && !hurry.load(Ordering::Relaxed) {
                    sleep(slow.mul_f64(dice.f64())).await;
                }
                writer.write(&[&packet]).await;
            }
            Some(None) => return writer.close(CloseCode::Done).await,
            None => return,
        }
    }
}

/// All states of a client from now on.
fn states(client: &Client) -> Arc<Mutex<Vec<State>>> {
    let mut states = client.state();
    let seen = Arc::new(Mutex::new(vec![states.borrow_and_update().clone()]));
    tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            while states.changed().await.is_ok() {
                let state = states.borrow_and_update().clone();
                seen.lock().unwrap().push(state);
            }
        }
    });
    seen
}

async fn number(client: &Client, wanted: u64) {
    state(client, |state| matches!(state, State::Connected { number, .. } if *number == wanted)).await;
}

/// Goes over while packets flow both ways, with whichever of the two nodes behind.
async fn misses_nothing_and_hears_nothing_twice(from: Kind, to: Kind) {
    for (slow_old, slow_new) in [(0, 0), (4, 0), (0, 4)] {
        move_under_load(from, to, Duration::from_millis(slow_old), Duration::from_millis(slow_new)).await;
    }
}

#[tokio::test]
async fn from_websocket_to_websocket_it_misses_nothing_and_hears_nothing_twice() {
    misses_nothing_and_hears_nothing_twice(Kind::Ws, Kind::Ws).await;
}

#[tokio::test]
async fn from_websocket_to_webtransport_it_misses_nothing_and_hears_nothing_twice() {
    misses_nothing_and_hears_nothing_twice(Kind::Ws, Kind::Wt).await;
}

#[tokio::test]
async fn from_webtransport_to_secure_websocket_it_misses_nothing_and_hears_nothing_twice() {
    misses_nothing_and_hears_nothing_twice(Kind::Wt, Kind::Wss).await;
}

#[tokio::test]
async fn from_webtransport_to_webtransport_it_misses_nothing_and_hears_nothing_twice() {
    misses_nothing_and_hears_nothing_twice(Kind::Wt, Kind::Wt).await;
}

async fn move_under_load(from: Kind, to: Kind, slow_old: Duration, slow_new: Duration) {
    let (mut old, mut new) = (Server::start(from).await, Server::start(to).await);
    let mut client = Client::connect(old.options_with(&[&new])).unwrap();
    let first = old.accept().await;
    assert!(first.notices, "the client says that it understands notices");
    within(client.joined()).await.unwrap();
    let seen = states(&client);
    let room = Room::default();
    let (down, reading) = room.join(first, slow_old);

    // How many packets there are is known when the client has moved and some more were said.
    let total = Arc::new(AtomicUsize::new(usize::MAX));
    let talking = tokio::spawn({
        let (room, sender, states, total) = (room.clone(), client.sender().clone(), client.state(), Arc::clone(&total));
        async move {
            let mut pace = interval(Duration::from_millis(5));
            let (mut number, mut left) = (0, 50);
            while left > 0 {
                pace.tick().await;
                room.say(&numbered("ann", number));
                sender.send(numbered("me", number)).await.unwrap();
                number += 1;
                if number == 50 {
                    down.send(Some(Bytes::from_static(LEAVE))).unwrap();
                }
                if matches!(*states.borrow(), State::Connected { number: 2, .. }) {
                    left -= 1;
                }
            }
            total.store(number, Ordering::Relaxed);
            room.say(&numbered("ann", number));
        }
    });
    let (_, second) = room.join(new.accept().await, slow_new);
    let mut number = 0;
    while number <= total.load(Ordering::Relaxed) {
        let received = within(client.recv()).await.unwrap();
        let text = String::from_utf8_lossy(&received.bytes[..received.bytes.len().min(12)]).into_owned();
        assert!(received.bytes == numbered("ann", number), "{from:?} to {to:?}: {text} instead of {number}");
        number += 1;
    }
    within(talking).await.unwrap();
    assert!(within(reading).await.unwrap(), "the client says that it is done");
    let total = total.load(Ordering::Relaxed);
    let (reason, stats) = within(client.close()).await;
    assert_eq!(reason, ClosedReason::Local);
    within(second).await.unwrap();

    let heard = room.0.lock().unwrap().heard.clone();
    assert_eq!(heard, (0..total).map(|number| numbered("me", number)).collect::<Vec<_>>());
    let all = total as u64;
    assert_eq!((stats.received, stats.sent), (all + 1, all), "{stats:?}");
    assert_eq!((stats.connections, stats.handovers), (2, 1), "{stats:?}");
    assert!(stats.matched > 0 && stats.echoes > 0, "they were beside each other: {stats:?}");
    assert_eq!((stats.unconfirmed, stats.dropped, stats.forgotten), (0, 0, 0));
    // From one to the other without anything in between.
    let seen = seen.lock().unwrap();
    let [State::Connected { number: 1, .. }, State::Connected { number: 2, endpoint, .. }, ..] = &seen[..] else {
        panic!("{seen:?}")
    };
    assert_eq!(*endpoint, new.url());
}

#[tokio::test]
async fn a_client_that_wants_no_notices_gets_none_and_takes_none() {
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        let mut options = server.options();
        options.notices = false;
        let mut client = Client::connect(options).unwrap();
        let mut accepted = server.accept().await;
        assert!(!accepted.notices);
        accepted.write(&[LEAVE]).await;
        assert_eq!(within(client.recv()).await.unwrap().bytes, LEAVE, "a packet like any other");
    }
}

#[tokio::test]
async fn while_nobody_lets_it_in_the_old_connection_goes_on_both_ways() {
    for kind in KINDS {
        let (mut old, mut new) = (Server::start(kind).await, Server::start(Kind::Ws).await);
        let gone = Server::start(Kind::Ws).await;
        let mut options = old.options_with(&[&gone, &new]);
        options.reconnect.avoid = Duration::from_millis(10);
        drop(gone);
        for _ in 0..3 {
            new.refuse_next(503, "full");
        }
        let mut client = Client::connect(options).unwrap();
        let mut first = old.accept().await;
        within(client.joined()).await.unwrap();
        let seen = states(&client);
        first.write(&[LEAVE, b"still here"]).await;
        assert_eq!(within(client.recv()).await.unwrap().bytes, "still here");
        client.send("so am I".into()).await.unwrap();
        assert_eq!(first.packet().await, "so am I");
        let _second = new.accept().await;
        assert!(new.refusals.lock().unwrap().is_empty(), "it was asked again and again");
        assert_eq!(first.packet().await, DONE);
        first.close(CloseCode::Done).await;
        number(&client, 2).await;
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|state| matches!(state, State::Connected { .. })), "{seen:?}");
    }
}

#[tokio::test]
async fn a_node_that_turns_it_away_is_left_for_the_next() {
    for kind in [Kind::Ws, Kind::Wt] {
        let (mut old, mut full) = (Server::start(kind).await, Server::start(kind).await);
        let mut options = old.options_with(&[&full]);
        options.reconnect.avoid = Duration::from_millis(1);
        let mut client = Client::connect(options).unwrap();
        let mut first = old.accept().await;
        within(client.joined()).await.unwrap();
        first.write(&[LEAVE]).await;
        let mut turned = full.accept().await;
        turned.close(CloseCode::TryAgainLater).await;
        // The old one goes on meanwhile.
        client.send("1".into()).await.unwrap();
        assert_eq!(first.packet().await, "1");
        let mut second = full.accept().await;
        assert_eq!(first.packet().await, DONE);
        first.close(CloseCode::Done).await;
        number(&client, 3).await;
        second.write(&[b"2"]).await;
        assert_eq!(within(client.recv()).await.unwrap().connection, 3);
        assert_eq!(client.stats().handovers, 1);
    }
}

#[tokio::test]
async fn a_draining_node_that_loses_patience_is_come_back_from() {
    for kind in KINDS {
        let mut old = Server::start(kind).await;
        let mut options = old.options();
        // Nobody to go to: the only endpoint refuses, as a draining node does.
        options.reconnect.max = Duration::from_millis(1);
        let client = Client::connect(options).unwrap();
        let mut first = old.accept().await;
        within(client.joined()).await.unwrap();
        old.refuse_next(503, "draining");
        first.write(&[LEAVE]).await;
        within(async {
            while !old.refusals.lock().unwrap().is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        for _ in 0..1000 {
            old.refuse_next(503, "draining");
        }
        first.close(CloseCode::Draining).await;
        old.refusals.lock().unwrap().clear();
        let _second = old.accept().await;
        state(&client, |state| matches!(state, State::Connected { number, .. } if *number > 1)).await;
    }
}

#[tokio::test]
async fn a_node_that_never_ends_is_left_all_the_same() {
    for kind in KINDS {
        let (mut old, mut new) = (Server::start(kind).await, Server::start(Kind::Ws).await);
        let mut client = Client::connect(old.options_with(&[&new])).unwrap();
        let mut first = old.accept().await;
        within(client.joined()).await.unwrap();
        first.write(&[LEAVE]).await;
        let mut second = new.accept().await;
        assert_eq!(first.packet().await, DONE);
        // What is sent meanwhile waits, and is sent on the new one.
        client.send("later".into()).await.unwrap();
        second.write(&[b"meanwhile"]).await;
        assert_eq!(within(client.recv()).await.unwrap().bytes, "meanwhile");
        assert_eq!(second.packet().await, "later");
        assert_eq!(first.closed().await, Some(1000));
        assert_eq!(client.stats().handovers, 1);
    }
}

#[tokio::test]
async fn an_old_connection_that_breaks_while_the_new_one_is_held_is_taken_over_from() {
    for kind in KINDS {
        let (mut old, mut new) = (Server::start(kind).await, Server::start(Kind::Wt).await);
        let mut client = Client::connect(old.options_with(&[&new])).unwrap();
        let mut first = old.accept().await;
        within(client.joined()).await.unwrap();
        let seen = states(&client);
        first.write(&[b"1", LEAVE]).await;
        assert_eq!(within(client.recv()).await.unwrap().bytes, "1");
        let mut second = new.accept().await;
        second.write(&[b"1", b"2"]).await;
        drop(first);
        assert_eq!(within(client.recv()).await.unwrap().bytes, "2");
        number(&client, 2).await;
        assert!(seen.lock().unwrap().iter().all(|state| matches!(state, State::Connected { .. })), "{seen:?}");
        client.send("3".into()).await.unwrap();
        assert_eq!(second.packet().await, "3");
    }
}

#[tokio::test]
async fn a_call_that_is_over_on_the_old_node_is_over() {
    let (mut old, mut new) = (Server::start(Kind::Ws).await, Server::start(Kind::Ws).await);
    let client = Client::connect(old.options_with(&[&new])).unwrap();
    let mut first = old.accept().await;
    within(client.joined()).await.unwrap();
    first.write(&[LEAVE]).await;
    let mut second = new.accept().await;
    first.close(CloseCode::Done).await;
    let closed = state(&client, |state| matches!(state, State::Closed(_))).await;
    assert_eq!(closed, State::Closed(ClosedReason::Done));
    assert_eq!(second.closed().await, Some(1000));
}

#[tokio::test]
async fn a_close_in_the_middle_of_a_move_closes_both() {
    for kind in KINDS {
        for after_done in [false, true] {
            let (mut old, mut new) = (Server::start(kind).await, Server::start(kind).await);
            let client = Client::connect(old.options_with(&[&new])).unwrap();
            let mut first = old.accept().await;
            within(client.joined()).await.unwrap();
            first.write(&[LEAVE]).await;
            let mut second = new.accept().await;
            if after_done {
                assert_eq!(first.packet().await, DONE);
                client.send("last".into()).await.unwrap();
            }
            // The server lets it in before it knows.
            within(async {
                while client.stats().connections < 2 {
                    sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
            let closing = tokio::spawn(client.close());
            if after_done {
                assert_eq!(second.packet().await, "last");
            }
            assert_eq!(first.closed().await, Some(1000));
            assert_eq!(second.closed().await, Some(1000));
            let (reason, stats) = within(closing).await.unwrap();
            assert_eq!(reason, ClosedReason::Local);
            assert_eq!((stats.dropped, stats.unconfirmed), (0, 0));
        }
    }
}

#[tokio::test]
async fn more_than_can_be_held_waits_on_the_way() {
    for kind in KINDS {
        let (mut old, mut new) = (Server::start(Kind::Ws).await, Server::start(kind).await);
        let mut options = old.options_with(&[&new]);
        options.receive_queue.packets = 8;
        let mut client = Client::connect(options).unwrap();
        let mut first = old.accept().await;
        within(client.joined()).await.unwrap();
        first.write(&[LEAVE]).await;
        let Accepted { mut writer, .. } = new.accept().await;
        let writing = tokio::spawn(async move {
            for number in 0..100 {
                writer.write(&[&numbered("ann", number)]).await;
            }
            writer
        });
        assert_eq!(first.packet().await, DONE);
        first.close(CloseCode::Done).await;
        for number in 0..100 {
            assert_eq!(within(client.recv()).await.unwrap().bytes, numbered("ann", number));
        }
        within(writing).await.unwrap();
        assert_eq!(client.stats().held_full, 1);
    }
}

#[test]
fn the_notices_of_these_tests_are_what_they_say() {
    assert_eq!(Notice::parse(LEAVE), Some(Notice::Leave));
    assert_eq!(Notice::parse(DONE), Some(Notice::Done));
}
