//! What the tests share: buses, packets, and waiting for what must come.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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

/// Publishes as a server that is not of this project would.
pub(crate) async fn publish_foreign(url: &str, subject: &str, payload: Bytes) {
    let client = within("a client", async_nats::connect(url)).await.unwrap();
    client.publish(subject.to_owned(), payload).await.unwrap();
    within("a flush", client.flush()).await.unwrap();
}
