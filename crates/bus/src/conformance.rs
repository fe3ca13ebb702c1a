//! What every bus must do, whatever carries it: one suite, run against each implementation. What lives here: the cases. What does not:
//! any broker; a [`Broker`] makes the buses.
//!
//! A test crate of an implementation calls [`crate::bus_conformance!`] with an expression that makes a [`Broker`]; that makes
//! one test of each case; [`messages`] holds those of `send` and `receive`. No case depends on time passing: what must not arrive is shown by something that was
//! sent after it and does.

pub mod messages;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::{Class, Packet, PacketBuffer, RoomId, SessionId, Subject, Tag};

use crate::{Bus, BusState, Delivery, Published, SubscribeError, Subscription};

/// The longest that anything here takes on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(20);

/// How a suite's packets begin that only show that a way is open.
const PROBE: &[u8] = b"probe";

/// What the buses of one test meet on.
pub trait Broker: Send + Sync {
    /// One more node's bus.
    fn join(&self) -> impl Future<Output = Arc<dyn Bus>> + Send;

    /// Publishes on any subject, as a server that is not of this project would.
    fn publish_foreign(&self, subject: &str, payload: Bytes) -> impl Future<Output = ()> + Send;

    /// Packets that a subscription of these buses can hold unread, in all buffers of the way together; a case sends eight
    /// times as many, so make it small.
    fn buffer_packets(&self) -> usize;
}

/// Makes a test of every conformance case. The expression makes a [`Broker`](crate::conformance::Broker); it may `await`.
#[macro_export]
macro_rules! bus_conformance {
    ($broker:expr) => {
        $crate::bus_conformance!(
            $broker,
            is_up_once_joined,
            delivers_to_every_other_node_with_its_sender,
            accepts_what_nobody_subscribes_to,
            flushes_what_was_published_and_never_hangs,
            does_not_echo,
            keeps_each_publishers_order,
            keeps_rooms_apart_whatever_their_names,
            bounds_the_buffer_and_counts_the_loss,
            loses_nothing_when_a_wait_is_given_up,
            unsubscribes_when_dropped,
            subscribes_once_per_room,
            ends_its_subscriptions_when_closed,
            takes_foreign_sender_tokens,
            sends_messages_to_the_inboxes_of_all_other_nodes,
            receives_by_wildcard_and_keeps_subjects_apart,
            sends_a_rooms_events_to_its_subscriptions,
            keeps_rooms_out_of_inboxes,
            bounds_an_inbox_and_counts_the_loss,
            ends_inboxes_when_dropped_and_when_closed
        );
    };
    ($broker:expr, $($case:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                #[allow(unused_imports)]
                use $crate::conformance::{messages::*, *};
                $case(&$broker).await;
            }
        )+
    };
}

/// A bus says that it is up, so that a node can become ready.
pub async fn is_up_once_joined(broker: &impl Broker) {
    up(broker).await;
}

/// Every node but the publisher's gets a packet, byte for byte, with the session that sent it.
pub async fn delivers_to_every_other_node_with_its_sender(broker: &impl Broker) {
    let (from, left, right) = (up(broker).await, up(broker).await, up(broker).await);
    let room = room("delivers");
    let (mut left, mut right) = (subscribed(&left, &room).await, subscribed(&right, &room).await);
    open(&from, &room, &mut left).await;
    open(&from, &room, &mut right).await;
    for (sender, payload) in [(7, vec![1, 2, 3]), (9_007_199_254_740_991, vec![0; 100_000]), (8, vec![0])] {
        publish(&from, &room, &packet(sender, &payload)).await;
        for subscription in [&mut left, &mut right] {
            let delivery = next(subscription).await;
            assert_eq!(delivery.sender, Some(SessionId(sender)));
            assert!(delivery.payload == payload, "the payload of {sender} arrived changed");
        }
    }
}

/// A flush ends once all before it has passed, also among many, and where nothing can pass.
pub async fn flushes_what_was_published_and_never_hangs(broker: &impl Broker) {
    let (from, to) = (up(broker).await, up(broker).await);
    let room = room("flush");
    let mut subscription = subscribed(&to, &room).await;
    open(&from, &room, &mut subscription).await;
    for number in 0..8_u8 {
        publish(&from, &room, &packet(1, &[number])).await;
        within("a flush", async { tokio::join!(from.flush(), from.flush()) }).await;
        assert_eq!(next(&mut subscription).await.payload, [number].as_slice());
    }
    within("closing", from.close()).await;
    within("a flush of a closed bus", from.flush()).await;
}

/// A room without a subscriber takes packets all the same, and nobody hears them later.
pub async fn accepts_what_nobody_subscribes_to(broker: &impl Broker) {
    let (from, to) = (up(broker).await, up(broker).await);
    let (empty, other) = (room("nobody"), room("somebody"));
    let mut witness = subscribed(&to, &other).await;
    open(&from, &other, &mut witness).await;
    publish(&from, &empty, &packet(1, b"unheard")).await;
    publish(&from, &other, &packet(1, b"heard")).await;
    assert_eq!(next(&mut witness).await.payload, "heard");
    let mut late = subscribed(&to, &empty).await;
    open(&from, &empty, &mut late).await;
    publish(&from, &empty, &packet(1, b"now")).await;
    assert_eq!(next(&mut late).await.payload, "now");
}

/// A node that subscribes to a room does not hear what it publishes there itself.
pub async fn does_not_echo(broker: &impl Broker) {
    let (node, other) = (up(broker).await, up(broker).await);
    let room = room("echo");
    let (mut own, mut others) = (subscribed(&node, &room).await, subscribed(&other, &room).await);
    open(&node, &room, &mut others).await;
    open(&other, &room, &mut own).await;
    publish(&node, &room, &packet(1, b"mine")).await;
    // Once the other node has heard it, an echo would be on its way before the answer.
    assert_eq!(next(&mut others).await.payload, "mine");
    publish(&other, &room, &packet(2, b"answer")).await;
    assert_eq!(next(&mut own).await.payload, "answer");
}

/// What one node publishes arrives in the order it was published, also while others publish.
pub async fn keeps_each_publishers_order(broker: &impl Broker) {
    const PUBLISHERS: u64 = 2;
    let each = (broker.buffer_packets() / 4).clamp(2, 500) as u64;
    let (to, room) = (up(broker).await, room("order"));
    let mut subscription = subscribed(&to, &room).await;
    let mut publishers = Vec::new();
    for _ in 0..PUBLISHERS {
        let publisher = up(broker).await;
        open(&publisher, &room, &mut subscription).await;
        publishers.push(publisher);
    }
    for (sender, publisher) in (0..).zip(publishers) {
        let room = room.clone();
        tokio::spawn(async move {
            for number in 0..each {
                publish(&publisher, &room, &packet(sender, &number.to_be_bytes())).await;
                if number % 7 == sender {
                    tokio::task::yield_now().await;
                }
            }
            // Stays until the test is over: leaving must not cut off what it published.
            std::future::pending::<()>().await;
        });
    }
    let mut expected = [0_u64; PUBLISHERS as usize];
    for _ in 0..each * PUBLISHERS {
        let delivery = next(&mut subscription).await;
        let expected = &mut expected[delivery.sender.expect("each publisher names its session").0 as usize];
        assert_eq!(delivery.payload, expected.to_be_bytes().as_slice());
        *expected += 1;
    }
    assert_eq!(subscription.take_lost(), 0);
}

/// A name that holds dots, or looks like a part of another, is a room of its own. Wildcards are no names at all.
pub async fn keeps_rooms_apart_whatever_their_names(broker: &impl Broker) {
    for wildcard in ["*", ">", "a.*", "a.>", ""] {
        assert!(RoomId::parse(wildcard).is_err(), "{wildcard:?} must not be a room");
    }
    let (from, to) = (up(broker).await, up(broker).await);
    let names = ["a", "a.b", "a.b.c", "b", "A", ".a", "a.", "a..b", "a-b", "a_b", "system", "room", "a.system", "7"];
    let rooms = names.map(room);
    let mut subscriptions = Vec::new();
    for room in &rooms {
        let mut subscription = subscribed(&to, room).await;
        open(&from, room, &mut subscription).await;
        subscriptions.push(subscription);
    }
    for round in [&b"first"[..], b"second"] {
        for room in &rooms {
            publish(&from, room, &packet(1, &[room.as_str().as_bytes(), round].concat())).await;
        }
    }
    for (room, subscription) in rooms.iter().zip(&mut subscriptions) {
        for round in [&b"first"[..], b"second"] {
            let heard = next(subscription).await.payload;
            assert_eq!(heard, [room.as_str().as_bytes(), round].concat(), "in room {room}");
        }
    }
}

/// A subscription that is not read holds a bounded number of packets, in order; each one that it lost is counted.
pub async fn bounds_the_buffer_and_counts_the_loss(broker: &impl Broker) {
    let (from, to, witness) = (up(broker).await, up(broker).await, up(broker).await);
    let room = room("bounded");
    let mut read = subscribed(&witness, &room).await;
    open(&from, &room, &mut read).await;
    let mut unread = subscribed(&to, &room).await;
    open(&from, &room, &mut unread).await;
    assert_eq!(unread.take_lost(), 0);
    let sent = broker.buffer_packets() as u64 * 8;
    for number in 0..sent {
        publish(&from, &room, &packet(1, &number.to_be_bytes())).await;
        // The witness has it, so it is the unread buffer that fills up and nothing on the way.
        assert_eq!(next(&mut read).await.payload, number.to_be_bytes().as_slice());
    }
    // Read only once no more can be on its way than may be buffered: what was lost before that is counted without a reader.
    let (mut received, mut lost, mut last) = (0, unread.take_lost(), None);
    within("the loss to be counted", async {
        while lost + (broker.buffer_packets() as u64) < sent {
            tokio::time::sleep(Duration::from_millis(1)).await;
            lost += unread.take_lost();
        }
    })
    .await;
    while received + lost < sent {
        if let Ok(delivery) = tokio::time::timeout(Duration::from_millis(100), unread.next()).await {
            let payload = delivery.expect("the bus is open").payload;
            let number = u64::from_be_bytes(payload[..].try_into().expect("a number"));
            assert!(last < Some(number), "{number} came after {last:?}");
            last = Some(number);
            received += 1;
            assert!(received <= broker.buffer_packets() as u64, "more was buffered than allowed");
        } else {
            // Nothing left unread: what is missing must be counted.
            let counted = lost;
            lost += unread.take_lost();
            assert!(lost > counted, "of {sent}, {received} were received and only {lost} counted as lost");
        }
    }
    assert_eq!(received + lost, sent, "each packet is either received or counted");
    assert!(received > 0, "a full buffer still delivers what it holds");
    assert!(lost > 0, "eight times what fits cannot have fitted");
}

/// A wait for the next delivery that is given up half way takes none with it.
pub async fn loses_nothing_when_a_wait_is_given_up(broker: &impl Broker) {
    let (from, to) = (up(broker).await, up(broker).await);
    let room = room("cancelled");
    let mut subscription = subscribed(&to, &room).await;
    open(&from, &room, &mut subscription).await;
    let each = (broker.buffer_packets() / 2).clamp(2, 100) as u64;
    let (mut sent, mut expected) = (0, 0_u64);
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while expected < each {
        assert!(tokio::time::Instant::now() < deadline, "only {expected} of {each} arrived");
        tokio::select! {
            biased;
            // Pending once, so the wait below begins and is then given up, unless a delivery is there already.
            () = tokio::task::yield_now() => {}
            delivery = subscription.next() => {
                let payload = delivery.expect("the bus is open").payload;
                assert_eq!(payload, expected.to_be_bytes().as_slice());
                expected += 1;
            }
        }
        if sent < each {
            publish(&from, &room, &packet(1, &sent.to_be_bytes())).await;
            sent += 1;
        }
    }
}

/// A dropped subscription hears nothing more, nor does its successor hear what was published in between.
pub async fn unsubscribes_when_dropped(broker: &impl Broker) {
    let (from, to, witness) = (up(broker).await, up(broker).await, up(broker).await);
    let room = room("dropped");
    let mut others = subscribed(&witness, &room).await;
    open(&from, &room, &mut others).await;
    let mut first = subscribed(&to, &room).await;
    open(&from, &room, &mut first).await;
    drop(first);
    publish(&from, &room, &packet(1, b"between")).await;
    assert_eq!(next(&mut others).await.payload, "between");
    let mut second = subscribed(&to, &room).await;
    open(&from, &room, &mut second).await;
    publish(&from, &room, &packet(1, b"after")).await;
    assert_eq!(next(&mut second).await.payload, "after");
    assert_eq!(next(&mut others).await.payload, "after", "the other node's subscription is its own");
}

/// A second subscription of a room is refused while the node has one, and other nodes are free to make theirs.
pub async fn subscribes_once_per_room(broker: &impl Broker) {
    let (node, other) = (up(broker).await, up(broker).await);
    let room = room("once");
    let mut first = subscribed(&node, &room).await;
    assert!(matches!(node.subscribe(&room).await, Err(SubscribeError::AlreadySubscribed)));
    let _others = subscribed(&other, &room).await;
    open(&other, &room, &mut first).await;
    publish(&other, &room, &packet(1, b"still")).await;
    assert_eq!(next(&mut first).await.payload, "still");
}

/// A closed bus ends its own subscriptions, publishes and subscribes no more, and does nothing to the others'.
pub async fn ends_its_subscriptions_when_closed(broker: &impl Broker) {
    let (node, from, other) = (up(broker).await, up(broker).await, up(broker).await);
    let room = room("closed");
    let (mut own, mut others) = (subscribed(&node, &room).await, subscribed(&other, &room).await);
    open(&from, &room, &mut own).await;
    open(&from, &room, &mut others).await;
    // The end reaches who waits already.
    let ended = async { while own.next().await.is_some() {} };
    within("the end of a subscription", async { tokio::join!(ended, node.close()) }).await;
    assert_eq!(*node.state().borrow(), BusState::Closed);
    tokio::select! {
        biased;
        delivery = others.next() => panic!("another node's subscription gave {delivery:?}"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(node.publish(&room, &packet(1, b"lost")), Published::Down);
    assert!(matches!(node.subscribe(&room).await, Err(SubscribeError::Closed)));
    within("closing again", node.close()).await;
    publish(&from, &room, &packet(2, b"on")).await;
    assert_eq!(next(&mut others).await.payload, "on");
}

/// A foreign server may name its sender otherwise than by a session's number; the packet arrives all the same.
pub async fn takes_foreign_sender_tokens(broker: &impl Broker) {
    let (from, to) = (up(broker).await, up(broker).await);
    let room = room("foreign.room");
    let mut subscription = subscribed(&to, &room).await;
    open(&from, &room, &mut subscription).await;
    let session = Subject::session(&room, SessionId(77)).into_string();
    let named = |token: &str| session.replace(".77", &format!(".{token}"));
    for (subject, sender) in [
        (session.clone(), Some(SessionId(77))),
        (named("alice%40example%2Ecom"), None),
        (Subject::system(&room).into_string(), None),
        (named("not_7"), None),
    ] {
        broker.publish_foreign(&subject, Bytes::from(subject.clone())).await;
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.payload, subject);
        assert_eq!(delivery.sender, sender, "{subject}");
    }
}

async fn up(broker: &impl Broker) -> Arc<dyn Bus> {
    let bus = within("joining", broker.join()).await;
    let mut state = bus.state();
    let reached = within("the bus", state.wait_for(|state| *state == BusState::Up)).await;
    reached.expect("a bus tells its state while it lives");
    bus
}

fn room(name: &str) -> RoomId {
    RoomId::parse(name).expect("a valid name")
}

fn packet(sender: u64, payload: &[u8]) -> Packet {
    let mut buffer = PacketBuffer::new();
    buffer.extend(payload);
    buffer.seal(Tag { sender: SessionId(sender), class: Class::Control, flow: 0 }, None)
}

async fn subscribed(bus: &Arc<dyn Bus>, room: &RoomId) -> Box<dyn Subscription> {
    within("subscribing", bus.subscribe(room)).await.expect("a subscription")
}

/// Publishes, waiting while the outgoing buffer is full.
async fn publish(bus: &Arc<dyn Bus>, room: &RoomId, packet: &Packet) {
    within("publishing", async {
        loop {
            match bus.publish(room, packet) {
                Published::Sent => break,
                Published::Full => tokio::task::yield_now().await,
                Published::Down => panic!("the bus is down"),
            }
        }
    })
    .await;
}

/// Waits until a subscription hears a bus (a broker may take a moment to know of a subscription everywhere), and has nothing
/// of that bus left unread.
async fn open(from: &Arc<dyn Bus>, room: &RoomId, subscription: &mut Box<dyn Subscription>) {
    let number = probe_number().to_be_bytes();
    let (probe, fence) = ([PROBE, b"?", &number].concat(), [PROBE, b"!", &number].concat());
    within("the way to open", async {
        loop {
            publish(from, room, &packet(0, &probe)).await;
            if tokio::time::timeout(Duration::from_millis(50), hear(subscription, &probe)).await.is_ok() {
                break;
            }
        }
        publish(from, room, &packet(0, &fence)).await;
        hear(subscription, &fence).await;
    })
    .await;
}

/// Waits for one probe, past others.
async fn hear(subscription: &mut Box<dyn Subscription>, probe: &[u8]) {
    loop {
        let payload = subscription.next().await.expect("the bus is open").payload;
        if payload == probe {
            return;
        }
        assert!(payload.starts_with(PROBE), "unexpected {payload:?}");
    }
}

/// A number that no other probe of the process has.
fn probe_number() -> u64 {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// The next delivery that is not a probe.
async fn next(subscription: &mut Box<dyn Subscription>) -> Delivery {
    within("a delivery", async {
        loop {
            let delivery = subscription.next().await.expect("the bus is open");
            if !delivery.payload.starts_with(PROBE) {
                return delivery;
            }
        }
    })
    .await
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("no {what} within {DEADLINE:?}"))
}
