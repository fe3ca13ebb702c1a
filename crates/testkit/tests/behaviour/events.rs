//! What happens on a node, as its followers hear it.

use std::collections::HashSet;

use roomcast_node::store::{EVENTS_KEPT, NodeEvent, Text};
use roomcast_supervision::{ActorPath, ActorState, Fault};
use roomcast_testkit::{Member, NodeBox, SOON, Via, eventually};
use serde_json::json;

use super::asking::{Follower, ask};

#[tokio::test(flavor = "multi_thread")]
async fn members_and_rooms_are_heard_as_they_come_and_go() {
    let node = NodeBox::start().await;
    let mut follower = Follower::begin(&node, "").await;
    assert!(follower.head.contains("content-type: text/event-stream"), "{}", follower.head);
    let ann = Member::join(&node, Via::WebTransport, "ann", "a").await;
    let begun = follower.next().await.unwrap();
    assert_eq!((&begun["type"], &begun["room"], &begun["sequence"]), (&json!("room_begun"), &json!("a"), &json!(1)));
    assert!(begun["at"].as_str().unwrap().ends_with('Z'));
    let join = follower.next().await.unwrap();
    assert_eq!((&join["type"], &join["room"], &join["user"]), (&json!("join"), &json!("a"), &json!("ann")));
    assert_eq!((&join["transport"], &join["sequence"]), (&json!("webtransport"), &json!(2)));
    let bob = Member::join(&node, Via::WebSocket, "bob", "a").await;
    let second = follower.next().await.unwrap();
    assert_eq!((&second["user"], &second["transport"]), (&json!("bob"), &json!("websocket")));
    ann.leave().await;
    let leave = follower.next().await.unwrap();
    assert_eq!((&leave["type"], &leave["user"], &leave["session"]), (&json!("leave"), &json!("ann"), &join["session"]));
    bob.leave().await;
    assert_eq!(follower.next().await.unwrap()["session"], second["session"]);
    let ended = follower.next().await.unwrap();
    assert_eq!((&ended["type"], &ended["room"], &ended["why"]), (&json!("room_ended"), &json!("a"), &json!("empty")));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_is_heard_as_a_crash_and_a_restart_and_counted_by_reason() {
    let node = NodeBox::start_with(&["supervision.defaults.intensity=100"]).await;
    let _ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut follower = Follower::begin(&node, "?type=crashed,restarted").await;
    for (fault, reason, counted) in [(Fault::Kill, "killed", "killed"), (Fault::Panic, "injected", "panicked")] {
        assert_eq!(node.node().tree().inject("rooms/*/room", fault), Ok(1));
        let crashed = follower.next().await.unwrap();
        assert_eq!((&crashed["type"], &crashed["path"]), (&json!("crashed"), &json!("rooms/a/room")));
        assert!(crashed["reason"].as_str().unwrap().contains(reason), "{crashed}");
        let restarted = follower.next().await.unwrap();
        assert_eq!((&restarted["type"], &restarted["path"]), (&json!("restarted"), &json!("rooms/a/room")));
        let after = restarted["after_ms"].as_f64().unwrap();
        assert!((0.0..10_000.0).contains(&after), "{restarted}");
        let labels = ["supervisor=\"rooms/*\"", &format!("reason=\"{counted}\"")];
        assert_eq!(node.metric("roomcast_actor_restarts_total", &labels).await, 1.0, "{labels:?}");
    }
    assert_eq!(node.metric("roomcast_actor_recovery_seconds_count", &[]).await, 2.0);
    assert!(node.metric("roomcast_actors", &["state=\"running\""]).await >= 14.0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_whose_supervisor_gives_up_is_heard() {
    let node = NodeBox::start_with(&["supervision.\"rooms/*\".intensity=0"]).await;
    let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut follower = Follower::begin(&node, "?type=gave_up,room_ended,leave").await;
    assert_eq!(node.node().tree().inject("rooms/a/room", Fault::Kill), Ok(1));
    assert_eq!(follower.next().await.unwrap()["path"], "rooms/a");
    let ended = follower.next_of("room_ended").await;
    assert_eq!((&ended["room"], &ended["why"]), (&json!("a"), &json!("failed")));
    assert_eq!(follower.next_of("leave").await["user"], "ann");
    assert_eq!(ann.hear_close().await, Some(1011));
    assert_eq!(node.metric("roomcast_escalations_total", &["supervisor=\"rooms/*\""]).await, 1.0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_by_a_crash_of_the_admin_server_resumes_and_misses_nothing() {
    let node = NodeBox::start_with(&["supervision.defaults.intensity=100"]).await;
    let tree = node.node().tree();
    let mut follower = Follower::begin(&node, "").await;
    let mut heard = Vec::new();
    for round in 0..5 {
        let member = Member::join(&node, Via::WebSocket, "ann", "a").await;
        let generation = tree.find("admin").unwrap().generation;
        assert_eq!(tree.inject("admin", Fault::Kill), Ok(1));
        member.leave().await;
        eventually("the admin server is up again", SOON, async || {
            let admin = tree.find("admin").unwrap();
            admin.generation > generation && admin.state == ActorState::Running
        })
        .await;
        while let Some(event) = follower.next().await {
            heard.push(event);
        }
        follower = Follower::resume(&node, &follower.last_id).await;
        let marker = format!("marker {round}");
        let path = ActorPath::root("").child("x");
        node.node().store().events.publish(NodeEvent::Crashed { path, reason: Text::new(&marker) });
        loop {
            let event = follower.next().await.unwrap();
            let last = event["reason"] == marker.as_str();
            heard.push(event);
            if last {
                break;
            }
        }
    }
    let sequences: Vec<u64> = heard.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    let of = |kind: &str| heard.iter().filter(|event| event["type"] == kind).count();
    assert_eq!((of("join"), of("leave"), of("missed")), (5, 5, 0));
    assert!(heard.iter().filter(|event| event["path"] == "admin" && event["type"] == "restarted").count() == 5);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_does_not_read_is_told_how_many_it_missed_and_nobody_waits_for_it() {
    // Far more than the ring and the sockets' buffers hold.
    const ALL: u64 = 60_000;
    let node = NodeBox::start().await;
    let mut slow = Follower::begin(&node, "").await;
    let events = &node.node().store().events;
    let reason = Text::new("x".repeat(500));
    for _ in 0..ALL {
        events.publish(NodeEvent::Crashed { path: ActorPath::root("").child("x"), reason: reason.clone() });
    }
    let mut other = Follower::begin(&node, "?type=draining").await;
    events.publish(NodeEvent::Draining);
    assert_eq!(other.next().await.unwrap()["sequence"], ALL + 1);
    let (mut seen, mut missed) = (0, 0);
    loop {
        let event = slow.next().await.unwrap();
        match event["type"].as_str().unwrap() {
            "missed" => missed += event["events"].as_u64().unwrap(),
            "draining" => break,
            _ => {
                seen += 1;
                assert_eq!(event["sequence"].as_u64(), Some(seen + missed), "in order, and nothing unaccounted for");
            }
        }
    }
    assert_eq!(seen + missed, ALL);
    assert!(missed > 0 && seen >= EVENTS_KEPT as u64 - 1, "{seen} seen, {missed} missed");
    assert_eq!(node.metric("roomcast_events_missed_total", &[]).await, missed as f64);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_are_bounded_and_leave_room_for_everybody_else() {
    let node = NodeBox::start().await;
    let mut followers = Vec::new();
    for _ in 0..16 {
        followers.push(Follower::begin(&node, "").await);
    }
    let one_more = Follower::begin(&node, "").await;
    assert!(one_more.head.starts_with("HTTP/1.1 503"), "{}", one_more.head);
    drop(one_more);
    assert_eq!(node.admin("GET", "/healthz").await.0, 200);
    followers.pop();
    eventually("the place is free again", SOON, async || {
        Follower::begin(&node, "").await.head.starts_with("HTTP/1.1 200")
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_says_so_and_ends_what_its_followers_hear() {
    let node = NodeBox::start().await;
    let mut follower = Follower::begin(&node, "").await;
    let (_, in_order) = tokio::join!(node.stop(), async {
        assert_eq!(follower.next().await.unwrap()["type"], "draining");
        follower.ends_in_order().await
    });
    assert!(in_order, "the answer was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_is_checked_and_so_is_an_id() {
    let node = NodeBox::start().await;
    for wrong in ["?type=crash", "?type=", "?type=join,", "?after=17", "?after=x-y"] {
        let (status, _, body) = ask(&node, "GET", &format!("/events{wrong}"), "host: localhost\r\n").await;
        assert_eq!(status, 400, "{wrong}: {body}");
    }
    let mut follower = Follower::begin(&node, "?type=leave").await;
    let after = follower.last_id.clone();
    Member::join(&node, Via::WebSocket, "ann", "a").await.leave().await;
    let first = follower.next().await.unwrap();
    assert_eq!((&first["type"], &first["sequence"]), (&json!("leave"), &json!(3)), "the others were not asked for");
    let mut resumed = Follower::begin(&node, &format!("?after={after}")).await;
    let kinds: HashSet<_> = [resumed.next().await.unwrap(), resumed.next().await.unwrap()]
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .into();
    assert_eq!(kinds, HashSet::from(["room_begun".to_owned(), "join".to_owned()]));
    let mut foreign = Follower::resume(&node, "00000000-1").await;
    let told = foreign.next().await.unwrap();
    assert_eq!((&told["type"], &told["events"]), (&json!("missed"), &json!(null)));
    assert_eq!(foreign.next().await.unwrap()["sequence"], 1);
    node.stop().await;
}
