//! What an operator may ask of a node and do to it, and who may not.

use std::collections::HashSet;

use roomcast_supervision::ActorState;
use roomcast_testkit::{Member, NodeBox, SOON, Via, eventually};
use serde_json::{Value, json};

use super::asking::{ask, bearer};

const LOCAL: &str = "host: localhost:9090\r\n";

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_says_what_it_knows() {
    let node = NodeBox::start().await;
    let (status, _, index) = ask(&node, "GET", "/", LOCAL).await;
    assert_eq!(status, 200);
    let (status, _, unknown) = ask(&node, "GET", "/nix", LOCAL).await;
    assert_eq!(status, 404);
    let routes = parsed(&unknown)["routes"].as_array().unwrap().clone();
    assert!(routes.len() >= 13);
    for route in &routes {
        let route = route.as_str().unwrap();
        assert!(index.contains(route), "{route} is not in {index}");
        // Every route that is listed exists: asked the other way round, it says that this is not how.
        let (method, path) = route.split_once(' ').unwrap();
        if path == "/actors/{path}/kill" || path == "/rooms/{id}" {
            continue;
        }
        let wrong = if method == "GET" { "POST" } else { "GET" };
        let (status, _, body) = ask(&node, wrong, path, LOCAL).await;
        assert_eq!(status, 405, "{wrong} {path}: {body}");
        assert!(parsed(&body)["message"].as_str().unwrap().contains(method), "{body}");
    }
    let (_, _, about) = ask(&node, "GET", "/node", LOCAL).await;
    assert_eq!(parsed(&about)["name"], node.node().name());
    assert_eq!((&parsed(&about)["state"], &parsed(&about)["chaos"]), (&json!("ready"), &json!(true)));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_needs_the_token_on_loopback_too_and_never_comes_from_a_page_elsewhere() {
    let node = NodeBox::start().await;
    let _ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let token = bearer(&node);
    for path in ["/reload", "/rooms/a/end", "/actors/bus/link/kill"] {
        assert_eq!(ask(&node, "POST", path, LOCAL).await.0, 401, "{path}");
        let wrong = format!("{LOCAL}authorization: Bearer {}\r\n", "0".repeat(48));
        assert_eq!(ask(&node, "POST", path, &wrong).await.0, 401, "{path}");
        for origin in ["http://evil.example", "null", "http://localhost:1"] {
            let headers = format!("{LOCAL}{token}origin: {origin}\r\n");
            assert_eq!(ask(&node, "POST", path, &headers).await.0, 403, "{path} from {origin}");
        }
    }
    assert_eq!(node.node().tree().find("bus/link").unwrap().generation, 1, "nobody was hit");
    assert_eq!(node.node().store().rooms.count(), 1);
    let allowed = format!("{LOCAL}{token}origin: http://localhost:9090\r\n");
    let (status, _, body) = ask(&node, "POST", "/reload", &allowed).await;
    assert_eq!((status, &parsed(&body)["verdict"]), (200, &json!("applied")), "{body}");
    assert!(
        !node.node().settings().chaos.enabled,
        "the box's settings are not in a file, and so the defaults are back"
    );
    node.stop().await;
}

const INSIDE: [&str; 6] = ["/tree", "/rooms", "/rooms/a", "/config", "/node", "/events"];

#[tokio::test(flavor = "multi_thread")]
async fn looking_inside_is_open_on_loopback_but_not_under_a_foreign_name() {
    let node = NodeBox::start().await;
    let _ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    for path in INSIDE.into_iter().filter(|path| *path != "/events") {
        assert_eq!(ask(&node, "GET", path, "host: 127.0.0.1:9090\r\n").await.0, 200, "{path}");
    }
    // A page whose name was made to point to loopback.
    let rebound = "host: evil.example:9090\r\n";
    for path in INSIDE {
        assert_eq!(ask(&node, "GET", path, rebound).await.0, 401, "{path}");
    }
    for path in ["/metrics", "/healthz", "/readyz", "/"] {
        assert_eq!(ask(&node, "GET", path, rebound).await.0, 200, "{path}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_inside_needs_the_token_where_other_machines_reach_the_port() {
    let node = NodeBox::start_with(&["listen.admin.bind=0.0.0.0:0"]).await;
    let _ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let token = bearer(&node);
    for path in INSIDE {
        assert_eq!(ask(&node, "GET", path, LOCAL).await.0, 401, "{path}");
    }
    for path in INSIDE.into_iter().filter(|path| *path != "/events") {
        assert_eq!(ask(&node, "GET", path, &format!("{LOCAL}{token}")).await.0, 200, "{path}");
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(ask(&node, "GET", path, LOCAL).await.0, 200, "{path}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_off_unless_switched_on() {
    let node = NodeBox::start_with(&["chaos.enabled=false"]).await;
    let (status, body) = node.admin("POST", "/actors/bus/link/kill").await;
    assert_eq!(status, 403);
    assert!(body.contains("chaos.enabled"), "{body}");
    assert_eq!(node.node().tree().find("bus/link").unwrap().generation, 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_hits_whom_it_names_and_says_whom() {
    let node = NodeBox::start_with(&["supervision.defaults.intensity=100"]).await;
    let tree = node.node().tree();
    let mut members = Vec::new();
    for room in ["a", "b%20c", "d"] {
        members.push(Member::join(&node, Via::WebSocket, "ann", room).await);
    }
    eventually("all rooms are up", SOON, async || {
        tree.snapshot().iter().filter(|entry| entry.state == ActorState::Running).count() >= 21
    })
    .await;
    let (status, body) = node.admin("POST", "/actors/rooms/*/subscription/kill").await;
    assert_eq!((status, &parsed(&body)["hit"]), (200, &json!(3)), "{body}");
    let paths: HashSet<_> =
        parsed(&body)["paths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap().to_owned()).collect();
    let all = ["rooms/a/subscription", "rooms/b%20c/subscription", "rooms/d/subscription"];
    assert_eq!(paths, all.map(ToOwned::to_owned).into());
    for path in all {
        eventually(path, SOON, async || tree.find(path).is_some_and(|entry| entry.generation == 2)).await;
    }
    // A path is taken as it is written in the tree; an encoded star is a name, and nobody has it.
    let (_, body) = node.admin("POST", "/actors/rooms/b%20c/room/kill?fault=panic").await;
    assert_eq!(parsed(&body), json!({ "hit": 1, "paths": ["rooms/b%20c/room"] }));
    for written in ["%2A", "%2a"] {
        let (status, body) = node.admin("POST", &format!("/actors/rooms/{written}/kill")).await;
        assert_eq!(status, 404, "{written}: {body}");
    }
    // Even the one who answers is hit, after the answer.
    let (status, body) = node.admin("POST", "/actors/admin/kill").await;
    assert_eq!((status, parsed(&body)), (200, json!({ "hit": 1, "paths": ["admin"] })));
    eventually("admin was hit", SOON, async || tree.find("admin").is_some_and(|entry| entry.generation == 2)).await;
    for (path, expected) in [
        ("/actors/rooms/nowhere/kill", 404),
        ("/actors//kill", 400),
        ("/actors/rooms/a*/kill", 400),
        ("/actors/rooms/kill?fault=stall&for=61s", 400),
    ] {
        assert_eq!(node.admin("POST", path).await.0, expected, "{path}");
    }
    for mut member in members {
        member.say("still here").await;
        assert_eq!(member.heard_by_now(), []);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_and_their_members_are_shown() {
    let node = NodeBox::start().await;
    let mut members = Vec::new();
    for (user, room) in [("ann", "small"), ("bob", "big one"), ("cat", "big one"), ("dan", "also small")] {
        let via = if user == "cat" { Via::WebTransport } else { Via::WebSocket };
        members.push(Member::join(&node, via, user, &room.replace(' ', "%20")).await);
    }
    let (status, body) = node.admin("GET", "/rooms").await;
    assert_eq!(status, 200);
    let listed = parsed(&body);
    assert_eq!(listed["total"], 3);
    let names: Vec<_> = listed["rooms"].as_array().unwrap().iter().map(|room| room["room"].clone()).collect();
    assert_eq!(names, ["big one", "also small", "small"]);
    let big = &listed["rooms"][0];
    assert_eq!((&big["members"], &big["path"]), (&json!(2), &json!("rooms/big%20one")));
    assert!(big["generation"].as_u64() >= Some(1), "{big}");
    let (_, body) = node.admin("GET", "/rooms?limit=1").await;
    let bounded = parsed(&body);
    assert_eq!((&bounded["total"], bounded["rooms"].as_array().unwrap().len()), (&json!(3), 1));
    let (_, body) = node.admin("GET", "/rooms/big%20one").await;
    let detail = parsed(&body);
    assert_eq!((&detail["room"], &detail["members"]), (&json!("big one"), &json!(2)));
    let sessions: HashSet<_> = detail["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|session| {
            assert_eq!((&session["queued_packets"], &session["drops"]), (&json!(0), &json!(0)));
            assert!(session["session"].as_u64().unwrap() > 0);
            (session["user"].as_str().unwrap().to_owned(), session["transport"].as_str().unwrap().to_owned())
        })
        .collect();
    let expected = [("bob", "websocket"), ("cat", "webtransport")];
    assert_eq!(sessions, expected.map(|(user, via)| (user.to_owned(), via.to_owned())).into());
    for (path, status) in [("/rooms/nowhere", 404), ("/rooms?limit=0", 400), ("/rooms?limit=x", 400)] {
        assert_eq!(node.admin("GET", path).await.0, status, "{path}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_room_closes_its_members_with_1000_and_begins_anew_for_whoever_comes() {
    let node = NodeBox::start().await;
    let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut bob = Member::join(&node, Via::WebTransport, "bob", "a").await;
    let mut cat = Member::join(&node, Via::WebSocket, "cat", "b").await;
    let mut dan = Member::join(&node, Via::WebSocket, "dan", "b").await;
    let (status, body) = node.admin("POST", "/rooms/a/end").await;
    assert_eq!((status, parsed(&body)), (200, json!({ "closed": 2 })));
    assert_eq!((ann.hear_close().await, bob.hear_close().await), (Some(1000), Some(1000)));
    eventually("the room is over", SOON, async || node.admin("GET", "/rooms/a").await.0 == 404).await;
    cat.say("unharmed").await;
    assert_eq!(dan.hear_content().await, "unharmed");
    let mut again = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut eve = Member::join(&node, Via::WebTransport, "eve", "a").await;
    again.say("anew").await;
    assert_eq!(eve.hear_content().await, "anew");
    assert_eq!(node.admin("POST", "/rooms/nowhere/end").await.0, 404);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_in_force_are_shown_without_passwords() {
    let node =
        NodeBox::start_with(&["limits.max_rooms=77", "bus.nats.urls=[\"nats://ann:secret@127.0.0.1:4222\"]"]).await;
    let (status, body) = node.admin("GET", "/config").await;
    assert_eq!(status, 200);
    let shown = parsed(&body);
    assert_eq!((&shown["generation"], &shown["waiting"]), (&json!(1), &json!([])));
    assert_eq!(shown["settings"]["limits"]["max_rooms"], 77);
    assert_eq!(shown["settings"]["timers"]["ping"], "5s");
    assert!(!body.contains("secret") && body.contains("nats://…@127.0.0.1:4222"), "{body}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_is_drawn_for_people_and_a_part_of_it_can_be_asked_for() {
    let node = NodeBox::start().await;
    let _ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let (status, text) = node.admin("GET", "/tree?format=text").await;
    assert_eq!(status, 200);
    for piece in ["ACTOR ", "LAST REASON", "\nroomcast ", "\n├─ rooms ", "\n│  └─ a ", "\n└─ listeners ", "running"]
    {
        assert!(text.contains(piece), "{piece} is not in\n{text}");
    }
    assert!(!text.contains('\x1b'));
    let (_, body) = node.admin("GET", "/tree?under=rooms/a").await;
    let part = parsed(&body);
    let paths: Vec<_> = part.as_array().unwrap().iter().map(|actor| actor["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["rooms/a", "rooms/a/room", "rooms/a/subscription"]);
    assert!(part[0]["since_ms"].as_u64().unwrap() < 60_000);
    let (_, body) = node.admin("GET", "/tree?limit=2").await;
    assert_eq!(parsed(&body).as_array().unwrap().len(), 2);
    for (path, status) in [("/tree?under=nix", 404), ("/tree?format=xml", 400), ("/tree?limit=0", 400)] {
        assert_eq!(node.admin("GET", path).await.0, status, "{path}");
    }
    node.stop().await;
}
