//! What the tests share: buses, packets, and waiting for what must come.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use roomcast_bus::nats::{NatsBus, NatsOptions};
use roomcast_bus::{Bus, BusState, Delivery, Published, Subscription};
use roomcast_protocol::{Class, Packet, PacketBuffer, RoomId, SessionId, Tag};

/// The longest that anything here takes on a machine that is busy with other things.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A bus that has reached a broker.
pub(crate) async fn up(options: NatsOptions) -> Arc<NatsBus> {
    let bus = NatsBus::start(options).unwrap();
    reaches(&bus, BusState::Up).await;
    bus
}

pub(crate) async fn reaches(bus: &NatsBus, wanted: BusState) {
    within(&format!("state {wanted:?}"), bus.state().wait_for(|state| *state == wanted)).await.unwrap();
}

/// Does what costs a bus its connection, and waits until it has another. It may be down for less time than anybody takes to look.
pub(crate) async fn reconnects(bus: &NatsBus, because: impl AsyncFnOnce()) {
    let mut state = bus.state();
    assert_eq!(*state.borrow_and_update(), BusState::Up);
    because().await;
    within("the loss of a connection", state.changed()).await.unwrap();
    reaches(bus, BusState::Up).await;
}

/// A ping so rare that a broker which says nothing is not given up.
pub(crate) const PATIENT: Duration = Duration::from_secs(600);

pub(crate) fn options(urls: &[String]) -> NatsOptions {
    NatsOptions::new(urls.to_vec())
}

pub(crate) fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

pub(crate) fn packet_of(class: Class, sender: u64, payload: &[u8]) -> Packet {
    let mut buffer = PacketBuffer::new();
    buffer.extend(payload);
    buffer.seal(Tag { sender: SessionId(sender), class, flow: 0 }, None)
}

pub(crate) fn packet(sender: u64, payload: &[u8]) -> Packet {
    packet_of(Class::Control, sender, payload)
}

pub(crate) fn sent(bus: &NatsBus, room: &RoomId, packet: &Packet) {
    assert_eq!(bus.publish(room, packet), Published::Sent);
}

/// A subscription that hears the bus that publishes: the broker may need a moment.
pub(crate) async fn hearing(from: &NatsBus, to: &NatsBus, room: &RoomId) -> Box<dyn Subscription> {
    let mut subscription = to.subscribe(room).await.unwrap();
    hears(from, room, &mut subscription).await;
    subscription
}

/// Waits until a subscription hears the bus, with nothing of that left unread.
pub(crate) async fn hears(from: &NatsBus, room: &RoomId, subscription: &mut Box<dyn Subscription>) {
    let number = fastrand::u64(..).to_be_bytes();
    let (probe, fence) = ([b"probe?", &number[..]].concat(), [b"probe!", &number[..]].concat());
    within("the way to open", async {
        loop {
            from.publish(room, &packet(0, &probe));
            let heard = async { while subscription.next().await.unwrap().payload != probe {} };
            if tokio::time::timeout(Duration::from_millis(50), heard).await.is_ok() {
                break;
            }
        }
        while from.publish(room, &packet(0, &fence)) != Published::Sent {
            tokio::task::yield_now().await;
        }
        while subscription.next().await.unwrap().payload != fence {}
    })
    .await;
}

/// The next delivery that is no probe.
pub(crate) async fn next(subscription: &mut Box<dyn Subscription>) -> Delivery {
    within("a delivery", async {
        loop {
            let delivery = subscription.next().await.unwrap();
            if !delivery.payload.starts_with(b"probe") {
                return delivery;
            }
        }
    })
    .await
}

/// Waits for what a look finds.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("no {what} within {DEADLINE:?}"))
}

/// A plain client's subscription, which stands when this returns.
pub(crate) async fn overhear(url: &str, subject: &str) -> (async_nats::Client, async_nats::Subscriber) {
    let client = within("a client", async_nats::connect(url)).await.unwrap();
    let subscriber = client.subscribe(subject.to_owned()).await.unwrap();
    // Answered only after the subscription was taken.
    let (inbox, mut answer) = (client.new_inbox(), client.subscribe("overhear.ready.>").await.unwrap());
    let ready = format!("overhear.ready.{inbox}");
    client.publish(ready, Bytes::new()).await.unwrap();
    within("the subscription", answer.next()).await.unwrap();
    (client, subscriber)
}

/// Publishes as a server that is not of this project would.
pub(crate) async fn publish_foreign(url: &str, subject: &str, payload: Bytes) {
    let client = within("a client", async_nats::connect(url)).await.unwrap();
    client.publish(subject.to_owned(), payload).await.unwrap();
    within("a flush", client.flush()).await.unwrap();
}

/// What the operator is told while this lives, on this thread: for tests on a runtime of one thread.
pub(crate) struct Told {
    text: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Told {
    pub(crate) fn listen() -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer(Arc::clone(&text));
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("roomcast_bus=debug")
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        Self { text, _guard: tracing::subscriber::set_default(subscriber) }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }

    /// How many lines hold all of these.
    pub(crate) fn lines(&self, parts: &[&str]) -> usize {
        self.text().lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    /// Waits for such a line.
    pub(crate) async fn hears(&self, parts: &[&str]) {
        until(&format!("line with {parts:?}"), async || (self.lines(parts) > 0).then_some(())).await;
    }
}

#[derive(Clone)]
struct Writer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
