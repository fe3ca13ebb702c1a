//! One word of another node at a time: what a node makes of it, what it says to it, and when.

use std::time::Duration;

use prost::Message;
use roomcast_protocol::cluster::{Member, Presence, RosterChange, RosterPart, RosterRequest, Sync, sync::Word};
use roomcast_protocol::{RoomId, SessionId, UserId};
use roomcast_relay::Time;
use roomcast_relay::cluster::{Cluster, OwnStatus, PresenceSettings, RosterEntry, Send, Via};

use crate::nonsense::{OWN, entry, member, node, presence};
use crate::world::TIMES;

/// The node that speaks, and its name.
const OTHER: u64 = 9;

fn at(milliseconds: u64) -> Time {
    Time::from_millis(milliseconds)
}

fn tick(cluster: &mut Cluster, now: Time) -> (Time, Vec<Send>) {
    let mut out = Vec::new();
    let next = cluster.tick(now, &TIMES, &OwnStatus::default(), &mut out);
    (next, out)
}

fn beat(own: &mut Cluster, now: u64, revision: u64, members: u64) {
    let said = presence(OTHER, "n", |said| (said.revision, said.members) = (revision, members));
    own.receive(at(now), "roomcast.v1.presence.n", &said);
}

fn change(own: &mut Cluster, now: u64, (from, to): (u64, u64), joined: &[u64], left: &[u64]) {
    let joined = joined.iter().copied().map(member).collect();
    let change = RosterChange { instance: OTHER, from, to, joined, left: left.to_vec() };
    own.receive(at(now), "roomcast.v1.roster.n", &change.encode_to_vec());
}

fn part(own: &mut Cluster, now: u64, revision: u64, (index, count): (u32, u32), members: &[u64]) {
    let members = members.iter().copied().map(member).collect();
    let word = Some(Word::Part(RosterPart { revision, index, count, members }));
    let sync = Sync { instance: OTHER, to_instance: OWN, name: "n".into(), word };
    own.receive(at(now), "roomcast.v1.sync.own", &sync.encode_to_vec());
}

fn known(own: &Cluster) -> Vec<u64> {
    let mut known: Vec<u64> = own.everybody().map(|(_, entry)| entry.session.0).collect();
    known.sort_unstable();
    known
}

/// Runs as a node does, and says when the other was asked for its roster.
fn asked(own: &mut Cluster, from: u64, until: u64, mut meanwhile: impl FnMut(&mut Cluster, Time)) -> Vec<u64> {
    let (mut now, mut asked) = (at(from), Vec::new());
    while now < at(until) {
        meanwhile(own, now);
        let (next, out) = tick(own, now);
        asked.extend(
            out.iter().filter(|send| send.subject.as_str() == "roomcast.v1.sync.n").map(|_| now.as_micros() / 1_000),
        );
        now = next;
    }
    asked
}

#[test]
fn what_is_known_already_changes_nothing() {
    let mut own = node("own", OWN);
    beat(&mut own, 0, 0, 0);
    change(&mut own, 0, (0, 1), &[20], &[]);
    change(&mut own, 0, (1, 2), &[21], &[20]);
    change(&mut own, 0, (0, 1), &[20], &[]);
    assert_eq!(known(&own), [21]);
    part(&mut own, 0, 1, (0, 1), &[20]);
    assert_eq!(known(&own), [21]);
    beat(&mut own, 0, 2, 1);
    assert_eq!(asked(&mut own, 0, 900, |_, _| ()), [0; 0]);
}

#[test]
fn where_the_author_counts_otherwise_the_author_is_right() {
    let mut own = node("own", OWN);
    beat(&mut own, 0, 0, 0);
    change(&mut own, 0, (0, 2), &[20], &[]);
    beat(&mut own, 10, 2, 2);
    assert_eq!(asked(&mut own, 10, 100, |_, _| ()), [40]);
    part(&mut own, 100, 2, (0, 1), &[20, 21]);
    assert_eq!(known(&own), [20, 21]);
}

#[test]
fn who_has_no_members_any_more_is_not_asked_for_them() {
    let mut own = node("own", OWN);
    beat(&mut own, 0, 5, 2);
    beat(&mut own, 10, 7, 0);
    assert_eq!(asked(&mut own, 10, 4_000, |_, _| ()), [0; 0]);
    let view = own.view(at(10), &OwnStatus::default());
    assert!(view.nodes.iter().all(|node| node.complete));
}

#[test]
fn changes_that_come_before_the_roster_they_follow_are_applied_to_it() {
    let mut own = node("own", OWN);
    beat(&mut own, 0, 5, 2);
    change(&mut own, 1, (6, 7), &[23], &[21]);
    change(&mut own, 2, (5, 6), &[22], &[]);
    change(&mut own, 3, (3, 5), &[20], &[]);
    assert_eq!(known(&own), [0; 0]);
    part(&mut own, 10, 5, (0, 1), &[20, 21]);
    assert_eq!(known(&own), [20, 22, 23]);
    assert_eq!(asked(&mut own, 10, 900, |_, _| ()), [0; 0]);
}

#[test]
fn a_whole_roster_replaces_what_was_known() {
    let mut own = node("own", OWN);
    beat(&mut own, 0, 0, 0);
    change(&mut own, 0, (0, 3), &[20, 21, 22], &[]);
    beat(&mut own, 10, 9, 2);
    part(&mut own, 20, 8, (0, 2), &[29]);
    part(&mut own, 20, 9, (1, 2), &[40]);
    part(&mut own, 20, 8, (1, 2), &[28]);
    assert_eq!(known(&own), [20, 21, 22], "an older one that is late is no use");
    part(&mut own, 20, 9, (0, 2), &[21]);
    assert_eq!(known(&own), [21, 40]);
    let room = RoomId::parse("room20").unwrap();
    assert_eq!(own.room(&room).count(), 0);
}

#[test]
fn who_does_not_answer_is_asked_again_with_a_patience_that_has_a_bound() {
    let mut own = node("own", OWN);
    beat(&mut own, 0, 5, 2);
    // It goes on to be heard, in changes that nobody can use.
    let asked = asked(&mut own, 0, 60_000, |own, now| {
        let now = now.as_micros() / 1_000;
        beat(own, now, 5, 2);
    });
    assert_eq!(asked[0], 30);
    let waits: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((500..=751).contains(&waits[0]), "{waits:?}");
    assert!((1_000..=1_501).contains(&waits[1]), "{waits:?}");
    assert!(waits[2..].iter().all(|wait| (2_000..=3_001).contains(wait)), "{waits:?}");
}

#[test]
fn the_next_request_is_not_forgotten_between_two_heartbeats() {
    let mut own = node("own", OWN);
    beat(&mut own, 0, 5, 2);
    let rare = PresenceSettings { heartbeat: Duration::from_secs(20), ..TIMES };
    let (mut now, mut asked, mut out) = (at(0), 0, Vec::new());
    while now < at(4_000) {
        out.clear();
        now = own.tick(now, &rare, &OwnStatus::default(), &mut out);
        asked += out.iter().filter(|send| send.subject.as_str() == "roomcast.v1.sync.n").count();
    }
    assert!(asked >= 3, "{asked}");
}

#[test]
fn who_was_silent_is_asked_at_once_when_it_is_heard() {
    let mut own = node("own", OWN);
    beat(&mut own, 0, 5, 2);
    let last = *asked(&mut own, 0, 4_500, |_, _| ()).last().unwrap();
    assert!(last < 4_400);
    beat(&mut own, 4_500, 5, 2);
    assert_eq!(asked(&mut own, 4_500, 4_600, |_, _| ()), [4_530]);
}

#[test]
fn a_roster_that_is_on_its_way_is_not_asked_for_again() {
    let mut own = node("own", OWN);
    beat(&mut own, 0, 5, 12);
    assert_eq!(asked(&mut own, 0, 100, |_, _| ()), [30]);
    for index in 0..11_u32 {
        let now = 100 + 300 * u64::from(index);
        part(&mut own, now, 5, (index, 12), &[20 + u64::from(index)]);
        assert_eq!(asked(&mut own, now, now + 300, |_, _| ()), [0; 0], "after part {index}");
        beat(&mut own, now + 299, 5, 12);
    }
    part(&mut own, 3_400, 5, (11, 12), &[31]);
    assert_eq!(known(&own), (20..32).collect::<Vec<u64>>());
}

#[test]
fn a_roster_that_never_ends_gives_way_to_one_that_does() {
    let mut own = node("own", OWN);
    beat(&mut own, 0, 5, 1);
    part(&mut own, 10, u64::MAX, (0, 2), &[20]);
    part(&mut own, 20, 5, (0, 1), &[21]);
    assert_eq!(known(&own), [0; 0]);
    part(&mut own, 2_010, 5, (0, 1), &[21]);
    assert_eq!(known(&own), [21]);
}

#[test]
fn an_author_that_begins_anew_is_believed() {
    let mut own = node("own", OWN);
    beat(&mut own, 0, 0, 0);
    change(&mut own, 0, (0, 40), &[20, 21, 22], &[]);
    beat(&mut own, 10, 40, 3);
    // A heartbeat may be overtaken.
    beat(&mut own, 20, 39, 2);
    beat(&mut own, 900, 39, 2);
    assert_eq!(asked(&mut own, 900, 1_000, |_, _| ()), [0; 0]);
    beat(&mut own, 1_020, 3, 1);
    assert_eq!(asked(&mut own, 1_020, 1_100, |_, _| ()), [1_050]);
    part(&mut own, 1_100, 3, (0, 1), &[20]);
    assert_eq!(known(&own), [20]);
}

#[test]
fn nobody_speaks_on_anothers_subject_nor_changes_its_name() {
    let mut own = node("own", OWN);
    beat(&mut own, 0, 0, 0);
    let forged = RosterChange { instance: OTHER, from: 0, to: 1, joined: vec![member(20)], left: vec![] };
    own.receive(at(0), "roomcast.v1.roster.m", &forged.encode_to_vec());
    own.receive(at(0), "roomcast.v1.presence.m", &presence(OTHER, "m", |_| ()));
    let leaving = |said: &mut Presence| said.state = 3;
    own.receive(at(0), "roomcast.v1.presence.m", &presence(OTHER, "m", leaving));
    own.receive(at(0), "roomcast.v1.presence.m", &presence(OTHER, "n", leaving));
    assert_eq!((own.take_malformed(), own.counts().0, own.members()), (4, 2, 0));
    let elsewhere = Sync {
        instance: OTHER,
        to_instance: 77,
        name: "n".into(),
        word: Some(Word::Part(RosterPart { revision: 9, index: 0, count: 1, members: vec![member(20)] })),
    };
    own.receive(at(0), "roomcast.v1.sync.own", &elsewhere.encode_to_vec());
    assert_eq!(own.members(), 0, "another run under this name is meant");
}

#[test]
fn many_who_say_hello_are_answered_by_few_heartbeats() {
    let mut own = node("own", OWN);
    tick(&mut own, at(0));
    let mut heartbeats = Vec::new();
    for now in 0..2_000 {
        own.receive(at(now), "roomcast.v1.presence.n", &presence(OTHER, "n", |said| said.hello = true));
        let (_, out) = tick(&mut own, at(now));
        if out.iter().any(|send| send.subject.as_str() == "roomcast.v1.presence.own") {
            heartbeats.push(now);
        }
    }
    assert!(heartbeats[0] <= 100, "{heartbeats:?}");
    assert!(heartbeats.windows(2).all(|pair| (50..=101).contains(&(pair[1] - pair[0]))), "{heartbeats:?}");
}

#[test]
fn what_changes_while_the_bus_is_down_is_told_when_it_is_back_and_no_more_than_that() {
    let mut own = node("own", OWN);
    own.joined(entry(1));
    own.joined(entry(2));
    tick(&mut own, at(0));
    own.bus_is_down(at(10));
    own.left(SessionId(1));
    for session in 3..3_000 {
        own.joined(entry(session));
        own.left(SessionId(session));
    }
    own.joined(entry(4_000));
    tick(&mut own, at(500));
    own.bus_is_up(at(1_000));
    let (_, out) = tick(&mut own, at(1_000));
    let told: Vec<RosterChange> = out
        .iter()
        .filter(|send| send.subject.as_str() == "roomcast.v1.roster.own")
        .map(|send| RosterChange::decode(send.payload.clone()).unwrap())
        .collect();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].from, told[0].joined.len(), told[0].left.as_slice()), (2, 1, &[1][..]));
}

#[test]
fn what_is_untold_is_told_to_all_before_one_gets_the_whole() {
    let mut own = node("own", OWN);
    own.joined(entry(1));
    tick(&mut own, at(0));
    own.joined(entry(2));
    let (_, early) = tick(&mut own, at(10));
    assert!(early.is_empty(), "one message in 50 ms");
    let ask = Sync { instance: OTHER, to_instance: OWN, name: "n".into(), word: Some(Word::Request(RosterRequest {})) };
    own.receive(at(20), "roomcast.v1.sync.own", &ask.encode_to_vec());
    let (_, out) = tick(&mut own, at(20));
    let told = RosterChange::decode(out[0].payload.clone()).unwrap();
    let Some(Word::Part(part)) = Sync::decode(out[1].payload.clone()).unwrap().word else { panic!("a part") };
    assert_eq!((told.from, told.to, part.revision, part.members.len()), (1, 2, 2, 2));
}

/// Room for the longest names there are: 254 and 128 bytes.
fn long(session: u64) -> RosterEntry {
    let (user, room) = (UserId::parse(&"u".repeat(254)).unwrap(), RoomId::parse(&"r".repeat(128)).unwrap());
    RosterEntry { session: SessionId((1 << 53) - 1 - session), user, room, via: Via::WebTransport, joined_ms: u64::MAX }
}

#[test]
fn no_message_is_longer_than_64_kib_and_all_arrive() {
    let (mut own, mut other) = (node("own", OWN), node("other", OTHER));
    let (_, hello) = tick(&mut own, at(0));
    (0..1_000).for_each(|session| own.joined(long(session)));
    let (_, mut changes) = tick(&mut own, at(60));
    let ask =
        Sync { instance: OTHER, to_instance: OWN, name: "other".into(), word: Some(Word::Request(RosterRequest {})) };
    own.receive(at(70), "roomcast.v1.sync.own", &ask.encode_to_vec());
    let (_, parts) = tick(&mut own, at(70));
    assert!(changes.len() > 6 && parts.len() > 6, "{} and {}", changes.len(), parts.len());
    assert!(changes.iter().chain(&parts).all(|send| send.payload.len() <= 64 << 10));
    let mut late = node("late", OTHER);
    for send in hello.iter().chain(&changes) {
        other.receive(at(80), send.subject.as_str(), &send.payload);
    }
    assert_eq!(other.members(), 1_000);
    // Who missed the first of the changes has the whole instead.
    changes.remove(0);
    for send in hello.iter().chain(&changes).chain(&parts) {
        late.receive(at(80), send.subject.as_str(), &send.payload);
    }
    assert_eq!(late.members(), 1_000);
}

#[test]
fn a_session_is_in_one_room() {
    let mut own = node("own", OWN);
    own.joined(entry(1));
    let elsewhere = RosterEntry { room: RoomId::parse("other").unwrap(), ..entry(1) };
    own.joined(elsewhere.clone());
    own.joined(elsewhere);
    let view = own.view(at(0), &OwnStatus::default());
    assert_eq!((view.rooms, view.members), (1, 1));
    own.left(SessionId(1));
    assert_eq!((own.members(), own.revision()), (0, 4));

    beat(&mut own, 0, 0, 0);
    change(&mut own, 0, (0, 1), &[20], &[]);
    let moved = Member { room: "other".into(), ..member(20) };
    let change = RosterChange { instance: OTHER, from: 1, to: 2, joined: vec![moved], left: vec![] };
    own.receive(at(0), "roomcast.v1.roster.n", &change.encode_to_vec());
    let view = own.view(at(0), &OwnStatus::default());
    assert_eq!((view.rooms, view.members), (1, 1));
}

#[test]
fn a_node_with_rare_heartbeats_is_given_three_of_them_and_settings_act_at_once() {
    let mut own = node("own", OWN);
    tick(&mut own, at(0));
    own.receive(at(0), "roomcast.v1.presence.n", &presence(OTHER, "n", |said| said.heartbeat_ms = 4_000));
    let mut now = at(0);
    loop {
        let (next, _) = tick(&mut own, now);
        if own.counts().0 == 1 {
            break;
        }
        now = next;
    }
    assert_eq!(now, at(12_000));

    let mut out = Vec::new();
    let rare = PresenceSettings { heartbeat: Duration::from_secs(60), ..TIMES };
    let mut own = node("own", OWN);
    own.tick(at(0), &rare, &OwnStatus::default(), &mut out);
    own.tick(at(1_000), &TIMES, &OwnStatus::default(), &mut out);
    assert_eq!(out.len(), 2);
}
