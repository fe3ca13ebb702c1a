//! One node's view, message by message.

use std::ops::Range;

use prost::Message;
use roomcast_protocol::{Dialect, UserId};

use super::*;

const TIMES: PresenceSettings =
    PresenceSettings { heartbeat: Duration::from_secs(1), lost_after: Duration::from_secs(5) };

fn at(milliseconds: u64) -> Time {
    Time::from_millis(milliseconds)
}

fn node(name: &str, instance: u64) -> Cluster {
    let own = OwnNode {
        name: name.into(),
        instance,
        version: "1".into(),
        region: "here".into(),
        dialect: Dialect::Seed,
        started_ms: 0,
        listeners: vec![],
    };
    Cluster::new(own, instance)
}

fn entry(session: u64, room: &str) -> RosterEntry {
    RosterEntry {
        session: SessionId(session),
        user: UserId::parse("ann").unwrap(),
        room: RoomId::parse(room).unwrap(),
        via: Via::WebSocket,
        joined_ms: 1,
    }
}

/// Has one say what is due, and the other hear it. How much of it was for the other alone.
fn pass(now: Time, from: &mut Cluster, to: &mut Cluster) -> usize {
    let mut out = Vec::new();
    from.tick(now, &TIMES, &OwnStatus::default(), &mut out);
    for send in &out {
        to.receive(now, send.subject.as_str(), &send.payload);
    }
    out.iter().filter(|send| send.subject.as_str().contains(".sync.")).count()
}

fn known(cluster: &Cluster, room: &str) -> Vec<u64> {
    cluster.room(&RoomId::parse(room).unwrap()).map(|(_, entry)| entry.session.0).collect()
}

#[test]
fn members_are_known_from_their_first_change_on_and_forgotten_with_their_node() {
    let (mut a, mut b) = (node("a", 1), node("b", 2));
    a.bus_is_up(at(0));
    b.bus_is_up(at(0));
    pass(at(0), &mut a, &mut b);
    pass(at(0), &mut b, &mut a);
    a.joined(entry(10, "standup"));
    pass(at(10), &mut a, &mut b);
    assert_eq!(known(&b, "standup"), [10]);
    a.left(SessionId(10));
    a.joined(entry(11, "standup"));
    pass(at(20), &mut a, &mut b);
    assert_eq!(known(&b, "standup"), [10], "one message in 50 ms");
    pass(at(60), &mut a, &mut b);
    assert_eq!(known(&b, "standup"), [11]);
    let (mut now, mut out) = (at(60), Vec::new());
    loop {
        let next = b.tick(now, &TIMES, &OwnStatus::default(), &mut out);
        if known(&b, "standup").is_empty() {
            break;
        }
        now = next;
    }
    assert_eq!(now, at(5_060), "heard last at 60 ms");
    assert_eq!(b.take_events().last(), Some(&ClusterEvent::Lost { name: "a".into(), members: 1 }));
}

#[test]
fn what_was_missed_is_asked_for_as_a_whole() {
    let (mut a, mut b) = (node("a", 1), node("b", 2));
    a.bus_is_up(at(0));
    for session in 0..1_200 {
        a.joined(entry(session, "hall"));
    }
    // Nobody hears these.
    let mut lost = Vec::new();
    a.tick(at(0), &TIMES, &OwnStatus::default(), &mut lost);
    b.bus_is_up(at(500));
    pass(at(1_000), &mut a, &mut b);
    assert_eq!(known(&b, "hall").len(), 0);
    pass(at(1_031), &mut b, &mut a);
    assert_eq!(pass(at(1_032), &mut a, &mut b), 3, "three parts");
    assert_eq!(known(&b, "hall").len(), 1_200);
    assert!(b.view(at(1_040), &OwnStatus::default()).nodes.iter().all(|node| node.complete));
    assert_eq!(
        a.view(at(1_040), &OwnStatus::default()).digest,
        b.view(at(1_040), &OwnStatus::default()).digest,
        "who knows the same says the same"
    );
}

#[test]
fn a_node_of_the_other_dialect_is_seen_and_its_members_are_not_ours() {
    let (mut a, mut b) = (node("a", 1), node("b", 2));
    b.own.node.dialect = Dialect::Sessions;
    a.bus_is_up(at(0));
    b.bus_is_up(at(0));
    b.joined(entry(5, "standup"));
    let mut out = Vec::new();
    let status = OwnStatus { sessions: vec![0..6, 100..101], ..OwnStatus::default() };
    b.tick(at(0), &TIMES, &status, &mut out);
    for send in &out {
        a.receive(at(0), send.subject.as_str(), &send.payload);
    }
    assert!(a.is_divided() && a.is_foreign_session(SessionId(5)) && a.is_foreign_session(SessionId(100)));
    assert!(!a.is_foreign_session(SessionId(6)) && known(&a, "standup").is_empty());
    let events = a.take_events();
    assert_eq!(events[1], ClusterEvent::OtherDialect { name: "b".into() });
    let mut gone = Vec::new();
    b.leave(&status, &mut gone);
    a.receive(at(1), gone[0].subject.as_str(), &gone[0].payload);
    assert!(!a.is_divided());
}

#[test]
fn a_restarted_node_is_no_rival_and_two_that_live_are() {
    let (mut a, mut old, mut new) = (node("a", 1), node("b", 2), node("b", 3));
    for each in [&mut a, &mut old, &mut new] {
        each.bus_is_up(at(0));
    }
    pass(at(0), &mut old, &mut a);
    pass(at(1), &mut new, &mut a);
    pass(at(1_001), &mut new, &mut a);
    assert_eq!(a.counts(), (3, 0, 0));
    pass(at(1_000), &mut old, &mut a);
    assert_eq!(a.counts(), (3, 0, 0), "a last word may come late");
    pass(at(2_000), &mut old, &mut a);
    assert_eq!(a.counts(), (3, 0, 2));
    assert!(a.take_events().contains(&ClusterEvent::NameTaken { name: "b".into(), own: false }));
    pass(at(2_010), &mut new, &mut old);
    pass(at(3_010), &mut new, &mut old);
    assert!(old.take_events().contains(&ClusterEvent::NameTaken { name: "b".into(), own: true }));
}

fn heartbeat(revision: u64, members: u64) -> Vec<u8> {
    let (name, dialect) = ("big".to_owned(), messages::Dialect::Seed.into());
    messages::Presence { instance: 9, name, dialect, heartbeat_ms: 1_000, revision, members, ..Default::default() }
        .encode_to_vec()
}

/// What is sent to node 9 within three seconds.
fn asked(cluster: &mut Cluster, from: u64) -> usize {
    let mut out = Vec::new();
    for turn in 0..60 {
        cluster.tick(at(from + 50 * turn), &TIMES, &OwnStatus::default(), &mut out);
    }
    out.iter().filter(|send| send.subject.as_str() == "roomcast.v1.sync.big").count()
}

#[test]
fn a_node_with_more_members_than_are_remembered_is_seen_and_its_members_are_not_known() {
    let mut own = node("own", 1);
    own.bus_is_up(at(0));
    own.receive(at(0), "roomcast.v1.presence.big", &heartbeat(0, 0));
    let join = |from: u64, to: u64| {
        let joined = (from..to).map(|session| wire::member(&entry(session, "hall"))).collect();
        messages::RosterChange { instance: 9, from, to, joined, left: vec![] }.encode_to_vec()
    };
    own.receive(at(10), "roomcast.v1.roster.big", &join(0, 3));
    assert_eq!(known(&own, "hall"), [0, 1, 2]);

    own.receive(at(1_000), "roomcast.v1.presence.big", &heartbeat(70_000, MAX_ENTRIES as u64 + 1));
    assert_eq!(own.take_malformed(), 0);
    assert_eq!((known(&own, "hall").len(), own.members()), (0, 0), "nobody keeps them up to date any more");
    own.receive(at(1_010), "roomcast.v1.roster.big", &join(70_000, 70_003));
    assert_eq!(own.members(), 0);
    assert_eq!(asked(&mut own, 1_010), 0, "it would be in vain");
    let view = own.view(at(1_020), &OwnStatus::default());
    let big = view.nodes.iter().find(|node| node.instance == 9).unwrap();
    assert_eq!((big.members, big.known, big.complete), (65_537, 0, false));

    own.receive(at(4_500), "roomcast.v1.presence.big", &heartbeat(140_000, MAX_ENTRIES as u64));
    assert!(asked(&mut own, 4_500) > 0, "now they fit");
}

#[test]
fn a_message_longer_than_any_node_says_is_not_even_read() {
    let mut own = node("own", 1);
    own.bus_is_up(at(0));
    let mut long = heartbeat(0, 0);
    // A field that nobody knows.
    long.extend_from_slice(&[0xfa, 0x7f]);
    prost::encoding::encode_varint(MAX_MESSAGE as u64, &mut long);
    long.resize(long.len() + MAX_MESSAGE, 0);
    own.receive(at(0), "roomcast.v1.presence.big", &long);
    assert_eq!((own.take_malformed(), own.counts().0), (1, 1));
    own.receive(at(0), "roomcast.v1.presence.big", &heartbeat(0, 0));
    assert_eq!((own.take_malformed(), own.counts().0), (0, 2));
}

/// What a later version might add: a field of each kind.
fn with_unknown_fields(mut payload: Vec<u8>) -> Vec<u8> {
    use prost::encoding::{string, uint64};
    uint64::encode(1_000, &7, &mut payload);
    string::encode(1_001, &"new".to_owned(), &mut payload);
    payload
}

#[test]
fn a_later_version_is_understood_as_far_as_it_says_the_same() {
    let mut own = node("own", 1);
    own.bus_is_up(at(0));
    let said = messages::Presence { state: 77, ..messages::Presence::decode(heartbeat(0, 0).as_slice()).unwrap() };
    own.receive(at(0), "roomcast.v1.presence.big", &with_unknown_fields(said.encode_to_vec()));
    let member = messages::Member { transport: 77, ..wire::member(&entry(5, "hall")) };
    let change = messages::RosterChange { instance: 9, from: 0, to: 1, joined: vec![member], left: vec![] };
    own.receive(at(1), "roomcast.v1.roster.big", &with_unknown_fields(change.encode_to_vec()));
    assert_eq!(own.take_malformed(), 0);
    let view = own.view(at(1), &OwnStatus::default());
    let big = view.nodes.iter().find(|node| node.instance == 9).unwrap();
    assert_eq!(
        (big.standing, big.problems.len()),
        (Standing::Up, 0),
        "a state that is not known is one of a node that lives"
    );
    assert_eq!(own.everybody().next().map(|(_, entry)| entry.via), Some(Via::Other));
}

#[test]
fn what_a_later_version_says_otherwise_is_counted_and_does_nothing() {
    let mut own = node("own", 1);
    own.bus_is_up(at(0));
    own.receive(at(0), "roomcast.v2.presence.big", &heartbeat(0, 0));
    // A word that is none of those known.
    let sync = messages::Sync { instance: 9, to_instance: 1, name: "big".into(), word: None };
    own.receive(at(0), "roomcast.v1.sync.own", &with_unknown_fields(sync.encode_to_vec()));
    assert_eq!((own.take_malformed(), own.counts()), (2, (1, 0, 0)));
    // A dialect that is not known is not ours.
    let said = messages::Presence {
        dialect: 77,
        sessions: vec![100, 200],
        ..messages::Presence::decode(heartbeat(0, 0).as_slice()).unwrap()
    };
    own.receive(at(0), "roomcast.v1.presence.big", &said.encode_to_vec());
    assert_eq!((own.take_malformed(), own.counts()), (0, (2, 1, 0)));
    assert!(own.is_foreign_session(SessionId(150)) && !own.is_foreign_session(SessionId(200)));
    let view = own.view(at(0), &OwnStatus::default());
    assert_eq!(view.nodes[0].dialect, None);
}

/// Lets two nodes converse until the second knows a member of the first. How many milliseconds that takes.
fn acquaint(from: u64, one: &mut Cluster, other: &mut Cluster, session: u64) -> u64 {
    for time in from..from + 2_000 {
        pass(at(time), one, other);
        pass(at(time), other, one);
        if other.everybody().any(|(_, entry)| entry.session.0 == session) {
            return time - from;
        }
    }
    2_000
}

#[test]
fn who_comes_or_comes_back_knows_everybody_before_it_is_settled() {
    let (mut old, mut new) = (node("old", 1), node("new", 2));
    old.bus_is_up(at(0));
    let mut unheard = Vec::new();
    old.tick(at(0), &TIMES, &OwnStatus::default(), &mut unheard);
    old.joined(entry(10, "standup"));
    old.tick(at(100), &TIMES, &OwnStatus::default(), &mut unheard);

    new.bus_is_up(at(200));
    let took = acquaint(200, &mut old, &mut new, 10);
    assert!(
        took <= 150,
        "an answer to hello, a request and a roster: {took} ms, and the next heartbeat is 800 ms away"
    );
    assert!(!new.settled(at(699)) && new.settled(at(700)));

    // The same after an outage: what was missed meanwhile is asked for without waiting for a heartbeat.
    new.bus_is_down(at(1_000));
    old.joined(entry(11, "standup"));
    old.tick(at(1_100), &TIMES, &OwnStatus::default(), &mut unheard);
    let mut now = at(1_100);
    while now < at(2_150) {
        now = old.tick(now, &TIMES, &OwnStatus::default(), &mut unheard);
    }
    new.bus_is_up(at(2_250));
    let took = acquaint(2_250, &mut old, &mut new, 11);
    assert!(took <= 150, "{took} ms");
    assert!(new.settled(at(2_250)), "once is enough");
}

#[test]
fn a_node_that_begins_to_drain_says_so_at_once_and_once() {
    let mut own = node("own", 1);
    own.bus_is_up(at(0));
    let draining = OwnStatus { state: NodeState::Draining, ..OwnStatus::default() };
    let said = |own: &mut Cluster, now: u64, status: &OwnStatus| {
        let mut out = Vec::new();
        own.tick(at(now), &TIMES, status, &mut out);
        out.iter().map(|send| messages::Presence::decode(&*send.payload).unwrap().state()).collect::<Vec<_>>()
    };
    assert_eq!(said(&mut own, 0, &OwnStatus::default()), [messages::NodeState::Up]);
    assert_eq!(said(&mut own, 10, &draining), [messages::NodeState::Draining]);
    assert_eq!(said(&mut own, 20, &draining), []);
    assert_eq!(said(&mut own, 1_010, &draining), [messages::NodeState::Draining]);
}

#[test]
fn a_node_that_misses_heartbeats_is_shown_as_silent_until_it_is_heard() {
    let mut own = node("own", 1);
    own.bus_is_up(at(0));
    let standing = |own: &Cluster, now: u64| {
        let view = own.view(at(now), &OwnStatus::default());
        view.nodes.iter().find(|node| node.instance == 9).unwrap().standing
    };
    own.receive(at(0), "roomcast.v1.presence.big", &heartbeat(0, 0));
    assert_eq!(standing(&own, 2_000), Standing::Up);
    assert_eq!(standing(&own, 2_001), Standing::Silent);
    own.receive(at(2_500), "roomcast.v1.presence.big", &heartbeat(0, 0));
    assert_eq!(standing(&own, 2_500), Standing::Up);
}

#[test]
fn texts_lists_and_numbers_beyond_their_bounds_are_refused() {
    let refused = |change: &dyn Fn(&mut messages::Presence)| {
        let mut own = node("own", 1);
        let mut said = messages::Presence::decode(heartbeat(0, 0).as_slice()).unwrap();
        change(&mut said);
        let subject = roomcast_protocol::Subject::presence(&said.name);
        own.receive(at(0), subject.as_str(), &said.encode_to_vec());
        own.take_malformed() == 1 && own.counts().0 == 1
    };
    let text = |length: usize| "x".repeat(length);
    assert!(!refused(&|said| (said.name, said.version, said.region) = (text(128), text(128), text(128))));
    assert!(!refused(&|said| (said.listeners, said.sessions) = (vec![text(256); 16], vec![7; 32])));
    assert!(refused(&|said| said.name = text(129)));
    assert!(refused(&|said| said.version = text(129)));
    assert!(refused(&|said| said.region = text(129)));
    assert!(refused(&|said| said.listeners = vec![text(1); 17]));
    assert!(refused(&|said| said.listeners = vec![text(257)]));
    assert!(refused(&|said| said.sessions = vec![7; 34]));
    assert!(refused(&|said| said.sessions = vec![7; 3]));
    assert!(refused(&|said| said.instance = 0));
}

/// Has node 9, which says that it has members, tell a part of its roster.
fn tell_part(own: &mut Cluster, (index, count): (u32, u32), sessions: Range<u64>) {
    let members = sessions.map(|session| wire::member(&entry(session, "hall"))).collect();
    let part = messages::RosterPart { revision: 1, index, count, members };
    let word = Some(messages::sync::Word::Part(part));
    let sync = messages::Sync { instance: 9, to_instance: 1, name: "big".into(), word };
    own.receive(at(1), "roomcast.v1.sync.own", &sync.encode_to_vec());
}

#[test]
fn a_roster_that_tells_more_than_is_remembered_is_not_taken() {
    let mut own = node("own", 1);
    own.bus_is_up(at(0));
    own.receive(at(0), "roomcast.v1.presence.big", &heartbeat(1, 5));
    tell_part(&mut own, (2, 2), 0..1);
    assert_eq!(own.take_malformed(), 1, "there is no third part of two");
    let parts = (MAX_ENTRIES / 500) as u32 + 1;
    for part in 0..parts {
        tell_part(&mut own, (part, parts), u64::from(part) * 500..u64::from(part + 1) * 500);
    }
    assert_eq!((own.members(), own.take_malformed()), (0, 0));
    for part in 0..2 {
        tell_part(&mut own, (part, 2), u64::from(part) * 3..u64::from(part) * 3 + 3);
    }
    assert_eq!(own.members(), 6, "one that fits is");
}

#[test]
fn a_range_longer_than_any_node_gives_out_refuses_nobody() {
    let mut own = node("own", 1);
    let mut said = messages::Presence::decode(heartbeat(0, 0).as_slice()).unwrap();
    said.dialect = messages::Dialect::Sessions.into();
    said.sessions = vec![100, 100 + (1 << 32) + 1, 1 << 50, (1 << 50) + (1 << 32)];
    own.receive(at(0), "roomcast.v1.presence.big", &said.encode_to_vec());
    assert!(own.is_divided());
    assert!(!own.is_foreign_session(SessionId(100)) && own.is_foreign_session(SessionId(1 << 50)));
}

fn ask(own: &mut Cluster, from: u64) {
    let word = Some(messages::sync::Word::Request(messages::RosterRequest {}));
    let sync = messages::Sync { instance: from, to_instance: 1, name: "n".into(), word };
    own.receive(at(1), "roomcast.v1.sync.own", &sync.encode_to_vec());
}

#[test]
fn who_asks_twice_is_answered_once_and_not_after_an_outage_and_no_more_wait_than_there_are_nodes() {
    let mut own = node("own", 1);
    own.bus_is_up(at(0));
    let answers = |own: &mut Cluster, turns: Range<u64>| {
        let mut out = Vec::new();
        for turn in turns {
            own.tick(at(50 * turn), &TIMES, &OwnStatus::default(), &mut out);
        }
        out.iter().filter(|send| send.subject.as_str() == "roomcast.v1.sync.n").count()
    };
    ask(&mut own, 7);
    ask(&mut own, 7);
    assert_eq!(answers(&mut own, 1..10), 1);
    ask(&mut own, 7);
    own.bus_is_down(at(450));
    own.bus_is_up(at(500));
    assert_eq!(answers(&mut own, 10..20), 0, "it asks again, if it needs it still");
    for asker in 0..MAX_PEERS as u64 + 10 {
        ask(&mut own, 10 + asker);
    }
    assert_eq!(answers(&mut own, 20..60), MAX_PEERS);
}
