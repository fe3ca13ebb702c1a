//! What nodes know of each other: two of them in this process, on one bus.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use roomcast_bus::local::{Hub, LocalBus};
use roomcast_bus::{Bus, BusState, Published};
use roomcast_protocol::cluster::{NodeState, Presence};
use roomcast_protocol::{Class, Dialect, PacketBuffer, RoomId, SessionId, Subject, Tag, UserId};
use roomcast_relay::Time;
use roomcast_relay::cluster::{Cluster, OwnNode, OwnStatus, PresenceSettings, RosterEntry};
use roomcast_testkit::{Member, NodeBox, SOON, Via, control, eventually};
use serde_json::Value;
use tokio::time::timeout;

const QUICK: [&str; 3] = ["presence.heartbeat=100ms", "presence.lost_after=1s", "timers.drain=1s"];

async fn node(hub: &Hub, name: &str) -> NodeBox {
    let name = format!("node.name={name}");
    let settings = [&QUICK[..], &[name.as_str()]].concat();
    NodeBox::start_on(&settings, Some(Arc::new(hub.join()))).await
}

async fn cluster(node: &NodeBox) -> Value {
    let (status, body) = node.admin("GET", "/cluster").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Who is in a room as a node sees it: `user@node`.
async fn who(node: &NodeBox, room: &str) -> Vec<String> {
    let (status, body) = node.admin("GET", &format!("/cluster?room={room}")).await;
    assert_eq!(status, 200, "{body}");
    let view: Value = serde_json::from_str(&body).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    view["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| format!("{}@{}", text(&member["user"]), text(&member["node"])))
        .collect()
}

async fn sees(node: &NodeBox, room: &str, whom: &[&str]) {
    eventually(&format!("{} sees {whom:?}", node.node().name()), SOON, async || who(node, room).await == whom).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_see_each_other_and_who_is_in_whose_rooms() {
    let hub = Hub::new();
    let (a, b) = (node(&hub, "a").await, node(&hub, "b").await);
    let ann = Member::join(&a, Via::WebSocket, "ann", "standup").await;
    let bob = Member::join(&b, Via::WebTransport, "bob", "standup").await;
    for node in [&a, &b] {
        sees(node, "standup", &["ann@a", "bob@b"]).await;
    }
    eventually("both know the same", SOON, async || {
        let (a, b) = (cluster(&a).await, cluster(&b).await);
        let complete = |view: &Value| view["nodes"].as_array().unwrap().iter().all(|node| node["complete"] == true);
        a["digest"] == b["digest"] && complete(&a) && complete(&b)
    })
    .await;
    let view = cluster(&a).await;
    assert_eq!((&view["seen_by"], &view["bus"], &view["settled"]), (&"a".into(), &"up".into(), &true.into()));
    assert_eq!((view["rooms"].as_u64(), view["members"].as_u64()), (Some(1), Some(2)));
    let nodes = view["nodes"].as_array().unwrap();
    assert_eq!((&nodes[0]["name"], &nodes[0]["own"]), (&"a".into(), &true.into()));
    assert_eq!((&nodes[1]["name"], &nodes[1]["state"], &nodes[1]["own"]), (&"b".into(), &"up".into(), &false.into()));
    assert_eq!(nodes[1]["listeners"][1], b.base(Via::WebTransport));
    assert_eq!(a.metric("roomcast_nodes", &[]).await, 2.0);
    assert_eq!(a.metric("roomcast_cluster_members", &[]).await, 2.0);
    bob.leave().await;
    sees(&a, "standup", &["ann@a"]).await;
    ann.leave().await;
    sees(&b, "standup", &[]).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_says_so_and_one_that_falls_silent_is_lost() {
    let hub = Hub::new();
    let (a, b, c) = (node(&hub, "a").await, node(&hub, "b").await, node(&hub, "c").await);
    let _bob = Member::join(&b, Via::WebSocket, "bob", "standup").await;
    let _cat = Member::join(&c, Via::WebSocket, "cat", "standup").await;
    sees(&a, "standup", &["bob@b", "cat@c"]).await;
    b.stop().await;
    sees(&a, "standup", &["cat@c"]).await;
    assert_eq!(a.metric("roomcast_nodes_lost_total", &[]).await, 0.0);
    // Whoever is not heard any more: its bus is closed under it.
    c.node().store().bus.close().await;
    sees(&a, "standup", &[]).await;
    assert_eq!(a.metric("roomcast_nodes_lost_total", &[]).await, 1.0);
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_bus_what_was_known_stays_and_a_crash_of_presence_loses_nothing() {
    let hub = Hub::new();
    let (a, b) = (node(&hub, "a").await, node(&hub, "b").await);
    let _bob = Member::join(&b, Via::WebSocket, "bob", "standup").await;
    sees(&a, "standup", &["bob@b"]).await;
    hub.set_state(BusState::Down);
    eventually("it is seen", SOON, async || cluster(&a).await["bus"] == "down").await;
    // Joins that nobody can be told of now.
    let _cat = Member::join(&b, Via::WebTransport, "cat", "standup").await;
    // Silence means nothing now, however long it lasts.
    eventually("b is silent for longer than a lost node is waited for", SOON, async || {
        cluster(&a).await["nodes"][1]["heard_ms"].as_u64().unwrap() > 1_200
    })
    .await;
    assert_eq!(who(&a, "standup").await, ["bob@b"]);
    hub.set_state(BusState::Up);
    sees(&a, "standup", &["bob@b", "cat@b"]).await;
    for _ in 0..5 {
        for node in [&a, &b] {
            assert_eq!(node.admin("POST", "/actors/bus/presence/kill").await.0, 200);
        }
        let dan = Member::join(&b, Via::WebSocket, "dan", "standup").await;
        sees(&a, "standup", &["bob@b", "cat@b", "dan@b"]).await;
        dan.leave().await;
        sees(&a, "standup", &["bob@b", "cat@b"]).await;
        eventually("presence runs", SOON, async || {
            let tree = a.admin("GET", "/tree?under=bus/presence").await.1
                + &b.admin("GET", "/tree?under=bus/presence").await.1;
            tree.matches("\"running\"").count() == 2
        })
        .await;
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_presence_while_the_node_drains_is_not_its_end() {
    let hub = Hub::new();
    let a = node(&hub, "a").await;
    let settings = [&QUICK[..2], &["node.name=b", "timers.drain=1h", "supervision.bus.strategy=one_for_all"]].concat();
    let b = NodeBox::start_on(&settings, Some(Arc::new(hub.join()))).await;
    let _bob = Member::join(&b, Via::WebSocket, "bob", "standup").await;
    let _cat = Member::join(&b, Via::WebSocket, "cat", "standup").await;
    sees(&a, "standup", &["bob@b", "cat@b"]).await;
    b.node().drain();
    eventually("it drains", SOON, async || cluster(&a).await["nodes"][1]["state"] == "draining").await;
    let ear = hub.join();
    let mut inbox = ear.receive(vec![Subject::presence("b")]).await.unwrap();
    // The supervisor stops presence in order, and starts it again.
    assert_eq!(b.admin("POST", "/actors/bus/link/kill").await.0, 200);
    eventually("both are restarted", SOON, async || {
        b.metric("roomcast_actor_restarts_total", &["supervisor=\"bus\""]).await >= 1.0
    })
    .await;
    // More than there can be from before the restart.
    for _ in 0..30 {
        let letter = timeout(SOON, inbox.next()).await.expect("it goes on").unwrap();
        let said = Presence::decode(letter.payload).unwrap();
        assert_ne!(said.state(), NodeState::Leaving);
    }
    assert_eq!(a.metric("roomcast_nodes_lost_total", &[]).await, 0.0);
    a.stop().await;
    b.node().hurry();
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_one_name_are_seen_by_all_and_by_themselves() {
    let hub = Hub::new();
    let (a, b, twin) = (node(&hub, "a").await, node(&hub, "b").await, node(&hub, "b").await);
    for (node, count) in [(&a, 2.0), (&b, 2.0), (&twin, 2.0)] {
        eventually("the name is taken", SOON, async || node.metric("roomcast_nodes_conflicting", &[]).await == count)
            .await;
    }
    let view = cluster(&a).await;
    let problems: Vec<_> = view["nodes"].as_array().unwrap().iter().map(|node| node["problem"].is_string()).collect();
    assert_eq!(problems, [false, true, true]);
    // Both carry their members all the same.
    let _bob = Member::join(&b, Via::WebSocket, "bob", "standup").await;
    let _cat = Member::join(&twin, Via::WebSocket, "cat", "standup").await;
    eventually("both are known", SOON, async || who(&a, "standup").await.len() == 2).await;
    twin.stop().await;
    eventually("it is over", SOON, async || a.metric("roomcast_nodes_conflicting", &[]).await == 0.0).await;
    a.stop().await;
    b.stop().await;
}

/// A node of the other dialect, as far as its word on the bus goes.
struct Stranger {
    bus: LocalBus,
    cluster: Cluster,
}

impl Stranger {
    const SESSIONS: std::ops::Range<u64> = 7_000..7_010;

    fn come(hub: &Hub) -> Self {
        let own = OwnNode {
            name: "stranger".into(),
            instance: 99,
            version: "9".into(),
            region: "elsewhere".into(),
            dialect: Dialect::Sessions,
            started_ms: 1,
            listeners: vec![],
        };
        let mut cluster = Cluster::new(own, 1);
        cluster.bus_is_up(Time::ZERO);
        Self { bus: hub.join(), cluster }
    }

    fn say(&mut self, now: Time) {
        let settings = PresenceSettings { heartbeat: Duration::from_millis(100), lost_after: Duration::from_secs(1) };
        let status = OwnStatus { sessions: vec![Self::SESSIONS], ..OwnStatus::default() };
        let mut out = Vec::new();
        self.cluster.tick(now, &settings, &status, &mut out);
        for send in out {
            assert_eq!(self.bus.send(&send.subject, send.payload), Published::Sent);
        }
    }

    fn publish(&self, room: &str, session: u64, packet: &[u8]) {
        let mut buffer = PacketBuffer::new();
        buffer.extend(packet);
        let tag = Tag { sender: SessionId(session), class: Class::Control, flow: 0 };
        self.bus.publish(&RoomId::parse(room).unwrap(), &buffer.seal(tag, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_the_other_dialect_is_seen_and_its_packets_are_not_passed_on() {
    let hub = Hub::new();
    let a = node(&hub, "a").await;
    let mut ann = Member::join(&a, Via::WebSocket, "ann", "standup").await;
    let mut stranger = Stranger::come(&hub);
    stranger.cluster.joined(RosterEntry {
        session: SessionId(7_000),
        user: UserId::parse("eve").unwrap(),
        room: RoomId::parse("standup").unwrap(),
        via: roomcast_relay::cluster::Via::WebSocket,
        joined_ms: 1,
    });
    stranger.say(Time::ZERO);
    eventually("it is seen", SOON, async || a.metric("roomcast_nodes_refused", &[]).await == 1.0).await;
    // A session of nobody that is known, as on a server of another kind, and one of the stranger's before it.
    stranger.publish("standup", 7_000, &control("eve", "unreadable"));
    stranger.publish("standup", 8_000, &control("bob", "readable"));
    assert_eq!(ann.hear_content().await, "readable");
    assert_eq!(a.metric("roomcast_drops_total", &["reason=\"dialect\""]).await, 1.0);
    assert_eq!(who(&a, "standup").await, ["ann@a"], "its members are not ours");
    let view = cluster(&a).await;
    assert_eq!((&view["nodes"][1]["name"], &view["nodes"][1]["state"]), (&"stranger".into(), &"refused".into()));
    assert!(view["nodes"][1]["problem"].as_str().unwrap().contains("node.dialect"));
    // Gone, it is nobody any more, and its numbers are free.
    eventually("it is lost", SOON, async || a.metric("roomcast_nodes_lost_total", &[]).await == 1.0).await;
    stranger.publish("standup", 7_000, &control("bob", "again"));
    assert_eq!(ann.hear_content().await, "again");
    a.stop().await;
}
