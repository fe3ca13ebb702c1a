//! Who hears whom.

use std::sync::Arc;
use std::time::Duration;

use roomcast_testkit::{Heard, Member, NodeBox, Via, control};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_reaches_all_the_others_on_both_transports_and_never_its_sender() {
    let node = NodeBox::start().await;
    for via in Via::ALL {
        let mut ann = Member::join(&node, via, "ann", "standup").await;
        let mut bob = Member::join(&node, Via::WebSocket, "bob", "standup").await;
        let mut cat = Member::join(&node, Via::WebTransport, "cat", "standup").await;
        ann.say("hello").await;
        assert_eq!(bob.hear_packet().await, control("ann", "hello"));
        assert_eq!(cat.hear_packet().await, control("ann", "hello"));
        bob.say("hi").await;
        assert_eq!(ann.hear_content().await, "hi", "the first that ann hears is not her own");
        assert_eq!(cat.hear_content().await, "hi");
        ann.leave().await;
        bob.leave().await;
        cat.leave().await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_crosses_rooms() {
    let node = NodeBox::start().await;
    let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut bob = Member::join(&node, Via::WebTransport, "bob", "b").await;
    let mut cat = Member::join(&node, Via::WebSocket, "cat", "b").await;
    ann.say("for a").await;
    cat.say("for b").await;
    assert_eq!(bob.hear_content().await, "for b");
    assert_eq!(cat.heard_by_now(), []);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_twice_in_a_room_is_two_sessions_that_hear_each_other() {
    let node = NodeBox::start().await;
    let mut first = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut second = Member::join(&node, Via::WebTransport, "ann", "a").await;
    first.say("one").await;
    assert_eq!(second.hear_content().await, "one");
    second.say("two").await;
    assert_eq!(first.hear_content().await, "two");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_in_another_users_name_is_dropped_and_counted_and_the_connection_stays() {
    let node = NodeBox::start().await;
    let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut bob = Member::join(&node, Via::WebSocket, "bob", "a").await;
    ann.send(control("mallory", "trust me")).await.unwrap();
    ann.say("it is me").await;
    assert_eq!(bob.hear_content().await, "it is me");
    assert_eq!(node.metric("roomcast_drops_total", &["reason=\"identity\""]).await, 1.0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_tells_its_clients_1001() {
    let node = NodeBox::start().await;
    let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut bob = Member::join(&node, Via::WebTransport, "bob", "a").await;
    node.stop().await;
    assert_eq!(ann.hear().await, Heard::Closed(Some(1001)));
    assert_eq!(bob.hear().await, Heard::Closed(Some(1001)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_in_as_the_node_stops_is_told_1001_as_well() {
    for _ in 0..20 {
        let node = NodeBox::start().await;
        let mut early = Member::join(&node, Via::WebSocket, "early", "a").await;
        let stopping = Arc::clone(node.node());
        let stop = tokio::spawn(async move { stopping.stop().await });
        // In before the listeners stop, or not at all: then nobody answers any more.
        let joining = timeout(Duration::from_millis(200), Member::try_join(&node, Via::WebSocket, "late", "a"));
        if let Ok(Ok(mut late)) = joining.await {
            assert_eq!(late.hear().await, Heard::Closed(Some(1001)));
        }
        assert_eq!(early.hear().await, Heard::Closed(Some(1001)));
        drop(early);
        stop.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_may_end_and_begin_again_at_once() {
    let node = NodeBox::start().await;
    for round in 0..50 {
        let mut ann = Member::join(&node, Via::WebSocket, "ann", "again").await;
        let mut bob = Member::join(&node, Via::WebSocket, "bob", "again").await;
        ann.say(&format!("round {round}")).await;
        assert_eq!(bob.hear_content().await, format!("round {round}"));
        drop((ann, bob));
    }
    node.stop().await;
}
