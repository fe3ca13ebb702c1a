//! What nodes tell each other keeps its numbers: nodes of different versions share a cluster while it is upgraded.

use prost::Message;
use roomcast_protocol::cluster::{
    Dialect, Member, NodeState, Presence, RosterChange, RosterPart, RosterRequest, Sync, Transport, sync::Word,
};

fn member() -> Member {
    Member {
        session: 10,
        user: "ann".into(),
        room: "hall".into(),
        transport: Transport::Webtransport.into(),
        joined_ms: 11,
    }
}

/// Each field by its number and kind, written out by hand from `docs/cluster.md`.
const MEMBER: &str = "080a 1203616e6e 1a0468616c6c 2002 280b";

#[track_caller]
fn is(message: &impl Message, expected: &str) {
    let expected: String = expected.split_whitespace().collect();
    assert_eq!(hex::encode(message.encode_to_vec()), expected);
}

#[test]
fn a_heartbeat() {
    let said = Presence {
        instance: 1,
        name: "n".into(),
        version: "v".into(),
        region: "r".into(),
        dialect: Dialect::Sessions.into(),
        state: NodeState::Draining.into(),
        started_ms: 7,
        listeners: vec!["a".into(), "b".into()],
        connections: 9,
        rooms: 10,
        heartbeat_ms: 11,
        revision: 12,
        members: 13,
        hello: true,
        sessions: vec![15, 300],
    };
    is(&said, "0801 12016e 1a0176 220172 2802 3002 3807 420161 420162 4809 500a 580b 600c 680d 7001 7a030fac02");
    let numbers = [Dialect::Unspecified, Dialect::Seed, Dialect::Sessions].map(i32::from);
    assert_eq!(numbers, [0, 1, 2]);
    let numbers = [NodeState::Unspecified, NodeState::Up, NodeState::Draining, NodeState::Leaving].map(i32::from);
    assert_eq!(numbers, [0, 1, 2, 3]);
}

#[test]
fn a_change() {
    is(&member(), MEMBER);
    let numbers = [Transport::Unspecified, Transport::Websocket, Transport::Webtransport].map(i32::from);
    assert_eq!(numbers, [0, 1, 2]);
    let change = RosterChange { instance: 1, from: 2, to: 3, joined: vec![member()], left: vec![5, 300] };
    is(&change, &format!("0801 1002 1803 2211 {MEMBER} 2a0305ac02"));
}

#[test]
fn what_one_node_says_to_another() {
    let sync = |word| Sync { instance: 1, to_instance: 2, name: "n".into(), word: Some(word) };
    is(&sync(Word::Request(RosterRequest {})), "0801 1002 1a016e 2200");
    let part = RosterPart { revision: 1, index: 2, count: 3, members: vec![member()] };
    is(&part, &format!("0801 1002 1803 2211 {MEMBER}"));
    is(&sync(Word::Part(part)), &format!("0801 1002 1a016e 2a19 0801 1002 1803 2211 {MEMBER}"));
}
