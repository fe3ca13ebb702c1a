//! What it means when a supervisor gives up, level by level. A room's own is in `behaviour`, the root's in the node's tests:
//! it ends the process.

use std::sync::Arc;

use roomcast_supervision::{ActorState, Fault};
use roomcast_testkit::soak::chaos::Watch;
use roomcast_testkit::{Heard, Member, NodeBox, SOON, Via, control, eventually};

/// A node whose `supervisor` allows no restart, while the root is patient.
async fn impatient(supervisor: &str, watch: &Watch) -> NodeBox {
    let policy = format!("supervision.\"{supervisor}\".intensity=0");
    NodeBox::start_observed(&[&policy], None, Some(watch.observer())).await
}

/// Waits until the supervisor has given up and it and all under it run again.
async fn gives_up_and_is_back(node: &NodeBox, supervisor: &str, watch: &Watch) {
    let tree = node.node().tree();
    eventually("it has given up", SOON, async || watch.gave_up() == [supervisor]).await;
    eventually("all run again", SOON, async || {
        tree.find(supervisor).is_some_and(|entry| entry.generation == 2)
            && tree.snapshot().iter().all(|entry| entry.state == ActorState::Running)
    })
    .await;
}

/// Two members, one of each transport, hear each other both ways.
async fn talk(ann: &mut Member, bob: &mut Member, word: &str) {
    ann.say(word).await;
    assert_eq!(bob.hear_content().await, word);
    bob.say(word).await;
    assert_eq!(ann.hear_content().await, word);
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_bus_or_listeners_give_up_and_no_client_notices() {
    for (supervisor, child) in [
        ("rooms", "rooms/a"),
        ("bus", "bus/link"),
        ("flushers", "flushers/0"),
        ("listeners", "listeners/websocket"),
        ("listeners", "listeners/webtransport"),
        ("listeners", "listeners/certificates"),
    ] {
        for fault in [Fault::Kill, Fault::Panic] {
            let watch = Watch::default();
            let node = impatient(supervisor, &watch).await;
            let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
            let mut bob = Member::join(&node, Via::WebTransport, "bob", "a").await;
            talk(&mut ann, &mut bob, "before").await;
            assert_eq!(node.node().tree().inject(child, fault), Ok(1));
            talk(&mut ann, &mut bob, "meanwhile").await;
            gives_up_and_is_back(&node, supervisor, &watch).await;
            talk(&mut ann, &mut bob, "after").await;
            for via in Via::ALL {
                let mut late = Member::join(&node, via, "late", "a").await;
                ann.say("to all").await;
                assert_eq!(late.hear_content().await, "to all", "{supervisor} after {fault:?} of {child}");
                assert_eq!(bob.hear_content().await, "to all");
                late.leave().await;
                eventually("the late one has left", SOON, async || node.node().store().rooms.members() == 2).await;
            }
            let nothing: [Heard; 0] = [];
            assert_eq!((ann.heard_by_now(), bob.heard_by_now()), (nothing.to_vec(), nothing.to_vec()));
            assert_eq!(node.metric("roomcast_escalations_total", &[]).await, 1.0);
            node.stop().await;
        }
    }
}

/// Its children are temporary and so never restarted: it cannot give up, only crash, and its clients with it.
#[tokio::test(flavor = "multi_thread")]
async fn the_connections_supervisor_crashes_and_its_clients_are_told_1011_and_can_come_back() {
    for fault in [Fault::Kill, Fault::Panic] {
        let watch = Watch::default();
        let node = impatient("connections", &watch).await;
        let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
        let mut bob = Member::join(&node, Via::WebTransport, "bob", "a").await;
        talk(&mut ann, &mut bob, "before").await;
        let tree = node.node().tree();
        // One that dies is no reason for its supervisor to give up.
        let victim = Member::join(&node, Via::WebSocket, "victim", "b").await;
        let sessions = || {
            // One that is still starting cannot be hit.
            let up = tree.snapshot().into_iter().filter(|entry| entry.state == ActorState::Running);
            let all = up.map(|entry| entry.path.as_str().to_owned());
            all.filter(|path| path.starts_with("connections/")).collect::<Vec<_>>()
        };
        eventually("its connection is up", SOON, async || sessions().len() == 3).await;
        assert_eq!(tree.inject(sessions().last().unwrap(), fault), Ok(1));
        let mut victim = victim;
        assert_eq!(victim.hear_close().await, Some(1011));
        talk(&mut ann, &mut bob, "unharmed").await;
        assert_eq!(tree.inject("connections", fault), Ok(1));
        assert_eq!(ann.hear_close().await, Some(1011), "{fault:?}");
        assert_eq!(bob.hear_close().await, Some(1011), "{fault:?}");
        let store = Arc::clone(node.node().store());
        eventually("all have left", SOON, async || {
            store.rooms.count() == 0 && store.connections() == 0 && store.client_addresses() == 0
        })
        .await;
        eventually("the supervisor is back", SOON, async || {
            tree.find("connections").is_some_and(|entry| entry.generation == 2 && entry.state == ActorState::Running)
        })
        .await;
        let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
        let mut bob = Member::join(&node, Via::WebTransport, "bob", "a").await;
        talk(&mut ann, &mut bob, "again").await;
        assert_eq!(watch.gave_up(), Vec::<String>::new());
        node.stop().await;
    }
}

/// Whoever connects while there is no supervisor of connections is told to try again, and gets in when it does.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_joins_as_the_connections_supervisor_restarts_gets_in_or_is_told_to_come_again() {
    let node = NodeBox::start_with(&["supervision.\"\".intensity=1000"]).await;
    let tree = node.node().tree();
    for round in 0..40 {
        let _ = tree.inject("connections", Fault::Kill); // may be between two incarnations still
        let mut guest = Member::join(&node, Via::ALL[round % 2], "guest", "a").await;
        let mut host = Member::join(&node, Via::ALL[round / 2 % 2], "host", "a").await;
        let _ = host.send(control("host", "welcome")).await; // it may be closed already
        match guest.hear().await {
            Heard::Packet(_) => {}
            Heard::Closed(code) => assert!(matches!(code, Some(1011 | 1013)), "{code:?}"),
        }
    }
    let store = Arc::clone(node.node().store());
    eventually("nobody is left behind", SOON, async || store.rooms.count() == 0 && store.connections() == 0).await;
    node.stop().await;
}
