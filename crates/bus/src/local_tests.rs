//! The local bus: the conformance suite, and what is its own: zero copies, the states, which packets a full buffer loses.

use super::*;
use crate::conformance::Broker;
use roomcast_protocol::{Class, PacketBuffer, SessionId, Tag};

impl Broker for Hub {
    async fn join(&self) -> Arc<dyn Bus> {
        Arc::new(Hub::join(self))
    }

    async fn publish_foreign(&self, subject: &str, payload: Bytes) {
        Hub::publish_foreign(self, subject, &payload).unwrap();
    }

    fn buffer_packets(&self) -> usize {
        self.0.limits.packets
    }
}

fn small(packets: usize, bytes: usize) -> Hub {
    Hub::with_limits(BufferLimits { packets, bytes })
}

mod conformance {
    use super::small;

    crate::bus_conformance!(small(128, 1 << 20));
}

fn packet(payload: &[u8]) -> Packet {
    let mut buffer = PacketBuffer::new();
    buffer.extend(payload);
    buffer.seal(Tag { sender: SessionId(5), class: Class::Control, flow: 0 }, None)
}

fn room() -> RoomId {
    RoomId::parse("standup").unwrap()
}

#[tokio::test]
async fn all_subscribers_share_the_packets_own_bytes() {
    let hub = Hub::new();
    let (from, one, two) = (hub.join(), hub.join(), hub.join());
    let (mut one, mut two) = (one.subscribe(&room()).await.unwrap(), two.subscribe(&room()).await.unwrap());
    let packet = packet(b"shared");
    assert_eq!(from.publish(&room(), &packet), Published::Sent);
    for subscription in [&mut one, &mut two] {
        assert_eq!(subscription.next().await.unwrap().payload.as_ptr(), packet.payload().as_ptr());
    }
}

#[tokio::test]
async fn a_full_buffer_loses_the_oldest_by_packets_and_by_bytes() {
    let hub = small(3, 10);
    let (from, to) = (hub.join(), hub.join());
    let mut subscription = to.subscribe(&room()).await.unwrap();
    for payload in ["1", "2", "3", "4"] {
        from.publish(&room(), &packet(payload.as_bytes()));
    }
    assert_eq!(subscription.take_lost(), 1);
    assert_eq!(subscription.next().await.unwrap().payload, "2");
    from.publish(&room(), &packet(b"123456789"));
    assert_eq!(subscription.take_lost(), 1, "3 went, 4 and the newcomer are ten bytes");
    from.publish(&room(), &packet(b"more than ten"));
    assert_eq!(subscription.take_lost(), 1, "what never fits pushes nothing out");
    assert_eq!(subscription.next().await.unwrap().payload, "4");
    assert_eq!(subscription.next().await.unwrap().payload, "123456789");
    assert_eq!(subscription.take_lost(), 0);
}

#[tokio::test]
async fn a_bus_that_is_down_drops_and_one_that_is_back_carries_through_the_same_subscription() {
    let hub = Hub::new();
    let (from, to) = (hub.join(), hub.join());
    let mut subscription = to.subscribe(&room()).await.unwrap();
    let mut state = from.state();
    assert_eq!(*state.borrow_and_update(), BusState::Up);
    hub.set_state(BusState::Down);
    assert!(state.has_changed().unwrap());
    assert_eq!(from.publish(&room(), &packet(b"dropped")), Published::Down);
    hub.set_state(BusState::Up);
    assert_eq!(from.publish(&room(), &packet(b"carried")), Published::Sent);
    assert_eq!(subscription.next().await.unwrap().payload, "carried");
    hub.set_state(BusState::Connecting);
    assert_eq!(*hub.join().state().borrow(), BusState::Connecting, "also who joins later");
}

#[tokio::test]
async fn a_hub_forgets_rooms_and_nodes_that_left() {
    let hub = Hub::new();
    let (one, two) = (hub.join(), hub.join());
    let kept = one.subscribe(&room()).await.unwrap();
    let other = two.subscribe(&room()).await.unwrap();
    drop(two);
    drop(other);
    assert_eq!(hub.rooms().values().map(Vec::len).sum::<usize>(), 1);
    drop(kept);
    assert_eq!(hub.rooms().len(), 0);
    drop(one);
    assert_eq!(hub.nodes().states.len(), 0);
}

#[tokio::test]
async fn a_closed_hub_closes_every_node_after_what_was_buffered() {
    let hub = Hub::new();
    let (from, to) = (hub.join(), hub.join());
    let mut subscription = to.subscribe(&room()).await.unwrap();
    from.publish(&room(), &packet(b"last"));
    hub.set_state(BusState::Closed);
    assert_eq!(subscription.next().await.unwrap().payload, "last");
    assert!(subscription.next().await.is_none());
    assert_eq!(*to.state().borrow(), BusState::Closed);
}

#[test]
fn a_foreign_publication_needs_a_rooms_subject() {
    for subject in ["", "room", "room.a", "room.*.1", "room.a.b.c", "other.a.b", "room.a%2f.1"] {
        assert!(Hub::new().publish_foreign(subject, &Bytes::new()).is_err(), "{subject}");
    }
}
