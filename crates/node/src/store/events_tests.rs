//! The ring and its subscribers, without a node.

use futures_util::FutureExt;
use roomcast_supervision::ActorPath;
use serde_json::json;

use super::*;
use crate::config::{Change, ConfigError};

fn crashed(name: impl fmt::Display) -> NodeEvent {
    NodeEvent::Crashed { path: ActorPath::root("").child(&name.to_string()), reason: Text::new("it was killed") }
}

fn now(subscriber: &mut Subscriber) -> Option<Next> {
    subscriber.next().now_or_never()
}

fn sequences(subscriber: &mut Subscriber) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(Next::Events(events)) = now(subscriber) {
        assert!(events.len() <= AT_ONCE);
        all.extend(events.iter().map(|recorded| recorded.sequence));
    }
    all
}

#[test]
fn a_subscriber_sees_what_comes_after_it_in_order() {
    let events = Arc::new(Events::default());
    events.publish(crashed("before"));
    let mut subscriber = events.subscribe();
    assert!(now(&mut subscriber).is_none());
    for each in 0..1000 {
        events.publish(crashed(each));
    }
    assert_eq!(sequences(&mut subscriber), (2..=1001).collect::<Vec<_>>());
    assert!(now(&mut subscriber).is_none());
}

#[test]
fn the_ring_is_bounded_and_a_slow_subscriber_is_told_how_many_it_missed() {
    let events = Arc::new(Events::default());
    let mut subscriber = events.subscribe();
    let all = EVENTS_KEPT as u64 + 10;
    for each in 0..all {
        events.publish(crashed(each));
    }
    assert_eq!(events.lock().len(), EVENTS_KEPT);
    assert!(matches!(now(&mut subscriber), Some(Next::Missed(Some(10)))));
    assert_eq!(sequences(&mut subscriber), (11..=all).collect::<Vec<_>>());
}

#[test]
fn who_was_cut_off_resumes_after_the_last_event_that_it_saw() {
    let events = Arc::new(Events::default());
    let start = events.subscribe().position();
    for each in 0..5 {
        events.publish(crashed(each));
    }
    let mut subscriber = events.subscribe_after(start);
    let Some(Next::Events(seen)) = now(&mut subscriber) else { panic!("nothing is kept") };
    let third: EventId = subscriber.id(&seen[2]).to_string().parse().unwrap();
    assert_eq!(sequences(&mut events.subscribe_after(third)), [4, 5]);
    assert_eq!(sequences(&mut events.subscribe_after(subscriber.position())), [] as [u64; 0]);
}

#[test]
fn an_id_of_another_run_gives_all_that_is_kept_and_says_so() {
    let (before, after) =
        (Arc::new(Events { run: 1, ..Events::default() }), Arc::new(Events { run: 2, ..Events::default() }));
    for each in 0..3 {
        before.publish(crashed(each));
        after.publish(crashed(each));
    }
    let mut from_before = after.subscribe_after(before.subscribe().position());
    assert!(matches!(now(&mut from_before), Some(Next::Missed(None))));
    assert_eq!(sequences(&mut from_before), [1, 2, 3]);
    let mut from_the_future = after.subscribe_after(EventId { run: 2, sequence: 4 });
    assert!(matches!(now(&mut from_the_future), Some(Next::Missed(None))));
}

#[tokio::test]
async fn a_waiting_subscriber_is_woken() {
    let events = Arc::new(Events::default());
    let mut subscriber = events.subscribe();
    let waiting = tokio::spawn(async move { subscriber.next().await });
    tokio::task::yield_now().await;
    events.publish(NodeEvent::Draining);
    assert!(matches!(waiting.await.unwrap(), Next::Events(events) if events.len() == 1));
}

#[test]
fn ids_are_parsed_strictly() {
    for wrong in ["", "17", "-17", "x-17", "5f3c2a1b-", "5f3c2a1b-x", "5f3c2a1b--1", "5f3c2a1b5-1"] {
        assert_eq!(wrong.parse::<EventId>(), Err(EventIdError), "{wrong}");
    }
}

fn reload() -> ReloadOutcome {
    let change = |key: &str, live| Change { key: key.into(), old: None, new: Some(json!(1)), live };
    let error = ConfigError {
        source_name: "x.toml".into(),
        line: Some(1),
        key: "k".into(),
        reason: "no".into(),
        nearest: None,
    };
    ReloadOutcome {
        verdict: Verdict::Applied,
        generation: 3,
        changed: vec![change("limits.max_rooms", true), change("node.name", false)],
        errors: vec![error],
    }
}

#[test]
fn events_are_written_as_documented_and_each_type_is_listed() {
    let member = || Member {
        room: RoomId::parse("a b").unwrap(),
        user: UserId::parse("ann@x").unwrap(),
        session: SessionId(7),
        transport: Transport::WebTransport,
    };
    let path = || ActorPath::root("").child("rooms").child("a b");
    let room = || RoomId::parse("a").unwrap();
    let member_json =
        |kind| json!({"type": kind, "room": "a b", "user": "ann@x", "session": 7, "transport": "webtransport"});
    let all = [
        (
            NodeEvent::Crashed { path: path(), reason: Text::new("killed") },
            json!({"type": "crashed", "path": "rooms/a%20b", "reason": "killed"}),
        ),
        (
            NodeEvent::Restarted { path: path(), generation: 2, after: Duration::from_micros(1500) },
            json!({"type": "restarted", "path": "rooms/a%20b", "generation": 2, "after_ms": 1.5}),
        ),
        (
            NodeEvent::StartFailed { path: path(), reason: Text::new("no") },
            json!({"type": "start_failed", "path": "rooms/a%20b", "reason": "no"}),
        ),
        (NodeEvent::GaveUp { path: path() }, json!({"type": "gave_up", "path": "rooms/a%20b"})),
        (NodeEvent::Abandoned { path: path() }, json!({"type": "abandoned", "path": "rooms/a%20b"})),
        (
            NodeEvent::Stuck { path: path(), busy: Duration::from_secs(1) },
            json!({"type": "stuck", "path": "rooms/a%20b", "busy_ms": 1000.0}),
        ),
        (
            NodeEvent::Unstuck { path: path(), busy: Duration::from_secs(2) },
            json!({"type": "unstuck", "path": "rooms/a%20b", "busy_ms": 2000.0}),
        ),
        (
            NodeEvent::Reload(Reload::from(&reload())),
            json!({"type": "reload", "outcome": "applied", "generation": 3, "changed": ["limits.max_rooms"],
                "waiting": ["node.name"], "errors": ["x.toml:1: k: no"]}),
        ),
        (NodeEvent::Join(member()), member_json("join")),
        (NodeEvent::Leave(member()), member_json("leave")),
        (NodeEvent::RoomBegun { room: room() }, json!({"type": "room_begun", "room": "a"})),
        (
            NodeEvent::RoomEnded { room: room(), why: "empty" },
            json!({"type": "room_ended", "room": "a", "why": "empty"}),
        ),
        (NodeEvent::Draining, json!({"type": "draining"})),
        (NodeEvent::NodeSeen { node: Text::new("b") }, json!({"type": "node_seen", "node": "b"})),
        (NodeEvent::NodeLeft { node: Text::new("b") }, json!({"type": "node_left", "node": "b"})),
        (
            NodeEvent::NodeLost { node: Text::new("b"), members: 7 },
            json!({"type": "node_lost", "node": "b", "members": 7}),
        ),
        (NodeEvent::NodeDraining { node: Text::new("b") }, json!({"type": "node_draining", "node": "b"})),
        (
            NodeEvent::NameTaken { node: Text::new("b"), own: true },
            json!({"type": "name_taken", "node": "b", "own": true}),
        ),
        (NodeEvent::OtherDialect { node: Text::new("b") }, json!({"type": "other_dialect", "node": "b"})),
    ];
    let mut types = Vec::new();
    for (event, expected) in all {
        assert_eq!(serde_json::to_value(&event).unwrap(), expected);
        assert_eq!(event.kind(), expected["type"]);
        types.push(event.kind());
    }
    types.sort_unstable();
    let mut listed = NodeEvent::TYPES;
    listed.sort_unstable();
    assert_eq!(types, listed);
    let recorded = Recorded { sequence: 9, at: SystemTime::UNIX_EPOCH, event: NodeEvent::Draining };
    let expected = json!({"sequence": 9, "at": "1970-01-01T00:00:00.000Z", "type": "draining"});
    assert_eq!(serde_json::to_value(&recorded).unwrap(), expected);
}

#[test]
fn texts_and_lists_are_cut_where_they_would_have_no_end() {
    let Text(long) = Text::new("é".repeat(10_000));
    assert!(long.len() <= MAX_TEXT && long.ends_with("é…"));
    assert_eq!(Text::new("short"), Text("short".into()));
    let Texts(many) = (0..100).collect();
    assert_eq!(many.len(), MAX_TEXTS);
    assert_eq!(many[MAX_TEXTS - 1], Text::new("and 81 more"));
    let Texts(few) = (0..20).collect();
    assert_eq!(few[MAX_TEXTS - 1], Text::new("19"));
}
