//! Whatever comes, on whatever subject: no panic, nothing beyond the bounds, and nobody is believed about another.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use roomcast_protocol::cluster::{Member, Presence, RosterChange, RosterPart, RosterRequest, Sync, sync::Word};
use roomcast_protocol::{Dialect, RoomId, SessionId, Subject, UserId};
use roomcast_relay::Time;
use roomcast_relay::cluster::{
    Cluster, MAX_ENTRIES, MAX_PEERS, OwnNode, OwnStatus, PresenceSettings, RosterEntry, Send, Via,
};

use crate::checks::coherent;
use crate::world::TIMES;

/// The node that is spoken to, one that it knows, and strangers.
pub(crate) const OWN: u64 = 1;
const FRIEND: u64 = 2;
const STRANGERS: std::ops::Range<u64> = 3..7;

pub(crate) fn node(name: &str, instance: u64) -> Cluster {
    let own = OwnNode {
        name: name.into(),
        instance,
        version: "1".into(),
        region: "here".into(),
        dialect: Dialect::Seed,
        started_ms: 1,
        listeners: vec![],
    };
    let mut cluster = Cluster::new(own, instance);
    cluster.bus_is_up(Time::ZERO);
    cluster
}

pub(crate) fn entry(session: u64) -> RosterEntry {
    let (user, room) = (UserId::parse("ann").unwrap(), RoomId::parse("standup").unwrap());
    RosterEntry { session: SessionId(session), user, room, via: Via::WebSocket, joined_ms: 1 }
}

pub(crate) fn member(session: u64) -> Member {
    Member { session, user: "bob".into(), room: format!("room{}", session % 50), transport: 1, joined_ms: 1 }
}

fn tick(cluster: &mut Cluster, now: Time) -> Vec<Send> {
    let mut out = Vec::new();
    let next = cluster.tick(now, &TIMES, &OwnStatus::default(), &mut out);
    assert!(next > now && next <= now.after(TIMES.heartbeat));
    out
}

/// A node that knows another one with three members, and has one itself.
fn acquainted() -> (Cluster, Cluster) {
    let (mut own, mut friend) = (node("own", OWN), node("friend", FRIEND));
    own.joined(entry(1));
    let said = tick(&mut friend, Time::ZERO);
    (2..5).for_each(|session| friend.joined(entry(session)));
    for send in said.into_iter().chain(tick(&mut friend, Time::from_millis(60))) {
        own.receive(Time::from_millis(60), send.subject.as_str(), &send.payload);
    }
    assert_eq!(own.members(), 4);
    (own, friend)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..12, any::<u64>(), Just(u64::MAX), Just(1 << 53), Just(65_536), 0_u64..100_000]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]",
        1 => Just("own".to_owned()),
        1 => Just("friend".to_owned()),
        1 => ".{0,140}",
        1 => Just(String::new()),
        1 => Just("x".repeat(300)),
    ]
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    let member = (0_u64..40, text(), text(), -2_i32..9, number());
    let member = member.prop_map(|(session, user, room, transport, joined_ms)| Member {
        session,
        user,
        room,
        transport,
        joined_ms,
    });
    vec(member, 0..12)
}

/// What one of these runs might say, with fields that make sense more often than by chance.
fn letter(instance: impl Strategy<Value = u64> + Clone) -> impl Strategy<Value = (String, Vec<u8>)> {
    let presence = (
        instance.clone(),
        text(),
        vec(number(), 0..36),
        (number(), number(), number()),
        (-1_i32..6, -1_i32..6),
        any::<bool>(),
    )
        .prop_map(|(instance, name, sessions, (heartbeat_ms, revision, members), (dialect, state), hello)| {
            let subject = Subject::presence(&name).into_string();
            let said = Presence {
                instance,
                name,
                dialect,
                state,
                heartbeat_ms,
                revision,
                members,
                hello,
                sessions,
                ..Presence::default()
            };
            (subject, said.encode_to_vec())
        });
    let change = (instance.clone(), text(), number(), number(), members(), vec(0_u64..40, 0..12)).prop_map(
        |(instance, name, from, to, joined, left)| {
            let change = RosterChange { instance, from, to, joined, left };
            (Subject::roster(&name).into_string(), change.encode_to_vec())
        },
    );
    let word = prop_oneof![
        1 => Just(Word::Request(RosterRequest {})),
        4 => (number(), 0_u32..5, prop_oneof![0_u32..5, Just(65_536), any::<u32>()], members())
            .prop_map(|(revision, index, count, members)| Word::Part(RosterPart { revision, index, count, members })),
    ];
    let sync = (instance, text(), prop_oneof![9 => Just(OWN), 1 => number()], prop::option::weighted(0.9, word))
        .prop_map(|(instance, name, to_instance, word)| {
            (Subject::sync("own").into_string(), Sync { instance, to_instance, name, word }.encode_to_vec())
        });
    prop_oneof![2 => presence, 2 => change, 3 => sync]
}

/// The same with something done to its bytes.
fn damaged() -> impl Strategy<Value = (String, Vec<u8>)> {
    let anybody = prop_oneof![Just(OWN), Just(FRIEND), STRANGERS, any::<u64>()];
    let damage = prop_oneof![
        3 => Just((0_usize, 0_u8, usize::MAX)),
        3 => (any::<usize>(), any::<u8>(), Just(usize::MAX)),
        1 => (Just(0), Just(0), any::<usize>()),
    ];
    let said = (letter(anybody), damage).prop_map(|((subject, mut payload), (at, with, cut))| {
        if !payload.is_empty() {
            let at = at % payload.len();
            payload[at] ^= with;
            payload.truncate(if cut == usize::MAX { cut } else { cut % payload.len() });
        }
        (subject, payload)
    });
    let subject = prop_oneof![
        Just("roomcast.v1.presence.friend".to_owned()),
        Just("roomcast.v1.sync.own".to_owned()),
        "roomcast\\.v[12]\\.(presence|roster|sync|other)\\.[a%.*>0-9]{0,8}",
        ".{0,30}",
    ];
    prop_oneof![4 => said, 1 => (subject, vec(any::<u8>(), 0..80))]
}

fn within_bounds(cluster: &Cluster, now: Time) {
    coherent(cluster, now, &OwnStatus::default());
    let nodes = cluster.view(now, &OwnStatus::default()).nodes;
    assert!(nodes.len() <= MAX_PEERS + 1);
    assert!(nodes.iter().all(|node| node.known <= MAX_ENTRIES as u64));
}

proptest! {
    #![proptest_config(crate::config(200))]

    #[test]
    fn nothing_that_is_said_does_harm(letters in vec((damaged(), 0_u64..900), 1..80)) {
        let (mut own, _) = acquainted();
        let mut now = Time::from_millis(100);
        for ((subject, payload), wait) in letters {
            own.receive(now, &subject, &payload);
            let out = tick(&mut own, now);
            prop_assert!(out.len() <= 40, "{} messages for one", out.len());
            within_bounds(&own, now);
            now = now.after(Duration::from_millis(wait));
        }
    }

    /// However absurd, it is about the speaker alone, and forgotten when no more comes.
    #[test]
    fn nobody_is_believed_about_another(letters in vec((letter(STRANGERS), 0_u64..900), 1..60)) {
        let (mut own, mut friend) = acquainted();
        let mut now = Time::from_millis(100);
        let theirs = |own: &Cluster, now: Time| -> Vec<u64> {
            let all = coherent(own, now, &OwnStatus::default());
            let known = all.iter().filter(|member| member.2.as_str() == "standup");
            known.filter(|member| ["own", "friend"].contains(&member.0.as_str())).map(|member| member.1.0).collect()
        };
        let mut strangers = letters.into_iter();
        let mut silent_for = 0;
        while silent_for < 220 {
            let wait = match strangers.next() {
                Some(((subject, payload), wait)) => {
                    own.receive(now, &subject, &payload);
                    wait
                }
                None => {
                    silent_for += 1;
                    900
                }
            };
            for send in tick(&mut friend, now) {
                own.receive(now, send.subject.as_str(), &send.payload);
            }
            tick(&mut own, now);
            let known: Vec<u64> = theirs(&own, now).into_iter().filter(|session| (1..5).contains(session)).collect();
            prop_assert!([1, 2, 3, 4].iter().all(|session| known.contains(session)), "{known:?}");
            now = now.after(Duration::from_millis(wait));
        }
        prop_assert_eq!(theirs(&own, now), [2, 3, 4, 1], "the strangers are gone");
        prop_assert_eq!(own.counts(), (2, 0, 0));
        prop_assert!(!own.is_divided() && !own.is_foreign_session(SessionId(2)));
    }
}

pub(crate) fn presence(instance: u64, name: &str, change: impl FnOnce(&mut Presence)) -> Vec<u8> {
    let mut said =
        Presence { instance, name: name.into(), dialect: 1, state: 1, heartbeat_ms: 1_000, ..Presence::default() };
    change(&mut said);
    said.encode_to_vec()
}

#[test]
fn more_nodes_than_there_is_room_for_are_not_seen_and_counted() {
    let mut own = node("own", OWN);
    for instance in 0..5_000 {
        let name = format!("n{instance}");
        let subject = format!("roomcast.v1.presence.{name}");
        own.receive(Time::ZERO, &subject, &presence(10 + instance, &name, |_| ()));
    }
    assert_eq!(own.counts().0, MAX_PEERS + 1);
    assert_eq!(own.take_malformed(), 5_000 - MAX_PEERS as u64);
    assert!(own.take_events().len() <= 1_024);
    tick(&mut own, Time::ZERO);
}

#[test]
fn a_node_has_no_more_members_than_there_is_room_for() {
    let mut own = node("own", OWN);
    own.receive(Time::ZERO, "roomcast.v1.presence.n", &presence(9, "n", |_| ()));
    for batch in 0..140_u64 {
        let joined = (batch * 500..(batch + 1) * 500).map(member).collect();
        let change = RosterChange { instance: 9, from: batch, to: batch + 1, joined, left: vec![] };
        own.receive(Time::ZERO, "roomcast.v1.roster.n", &change.encode_to_vec());
    }
    assert_eq!(own.members(), MAX_ENTRIES);
    within_bounds(&own, Time::ZERO);
}

#[test]
fn what_is_announced_takes_no_room_before_it_comes() {
    let mut own = node("own", OWN);
    own.receive(Time::ZERO, "roomcast.v1.presence.n", &presence(9, "n", |said| (said.members, said.revision) = (1, 1)));
    let part = |count| {
        let word = Word::Part(RosterPart { revision: 1, index: 0, count, members: vec![member(1)] });
        Sync { instance: 9, to_instance: OWN, name: "n".into(), word: Some(word) }.encode_to_vec()
    };
    let (least, most) = (part(4_096), part(65_536));
    let taken = allocation_counter::measure(|| own.receive(Time::ZERO, "roomcast.v1.sync.own", &least));
    assert!(taken.bytes_max < 4_096, "{} bytes", taken.bytes_max);
    assert_eq!(own.take_malformed(), 0);
    own.receive(Time::ZERO, "roomcast.v1.sync.own", &most);
    assert_eq!(own.take_malformed(), 1, "nobody has so many parts");
}

#[test]
fn changes_that_do_not_fit_are_kept_within_a_bound() {
    let mut own = node("own", OWN);
    own.receive(Time::ZERO, "roomcast.v1.presence.n", &presence(9, "n", |said| (said.members, said.revision) = (1, 1)));
    let kept = allocation_counter::measure(|| {
        for batch in 0..300_u64 {
            let joined = (0..500).map(member).collect();
            let change = RosterChange { instance: 9, from: 10 + 2 * batch, to: 11 + 2 * batch, joined, left: vec![] };
            own.receive(Time::ZERO, "roomcast.v1.roster.n", &change.encode_to_vec());
        }
    });
    assert!(kept.bytes_max < 12 << 20, "{} bytes", kept.bytes_max);
}

#[test]
fn who_asks_much_gets_no_more_than_there_is_time_for() {
    let mut own = node("own", OWN);
    (0..20_000).for_each(|session| own.joined(entry(session)));
    tick(&mut own, Time::ZERO);
    for asker in 0..1_000 {
        let ask = Sync {
            instance: 10 + asker,
            to_instance: OWN,
            name: "n".into(),
            word: Some(Word::Request(RosterRequest {})),
        };
        own.receive(Time::from_millis(1), "roomcast.v1.sync.own", &ask.encode_to_vec());
    }
    let mut bytes = 0;
    for millisecond in 1..=1_000 {
        let out = tick(&mut own, Time::from_millis(millisecond));
        let answers = out.iter().filter(|send| send.subject.as_str().contains(".sync."));
        bytes += answers.map(|send| send.payload.len()).sum::<usize>();
    }
    assert!((15 << 20..22 << 20).contains(&bytes), "{bytes} bytes in a second");
}

#[test]
fn absurd_ranges_of_sessions_refuse_nobody() {
    let mut own = node("own", OWN);
    let absurd = [5, 5, 9, 3, 0, u64::MAX, u64::MAX, 0, 1 << 52, u64::MAX, 100, 250, 150, 200, 240, 260];
    own.receive(
        Time::ZERO,
        "roomcast.v1.presence.n",
        &presence(9, "n", |said| (said.dialect, said.sessions) = (2, absurd.to_vec())),
    );
    assert!(own.is_divided());
    let refused: Vec<u64> =
        (0..300).chain([1 << 52, u64::MAX]).filter(|n| own.is_foreign_session(SessionId(*n))).collect();
    assert!(refused.into_iter().eq(100..260));
}

/// Settings that no configuration allows are no reason to run in circles.
#[test]
fn no_setting_makes_a_node_run_in_circles() {
    let mut own = node("own", OWN);
    let none = PresenceSettings { heartbeat: Duration::ZERO, lost_after: Duration::ZERO };
    let mut out = Vec::new();
    assert!(own.tick(Time::ZERO, &none, &OwnStatus::default(), &mut out) > Time::ZERO);
    own.bus_is_down(Time::ZERO);
    assert!(own.tick(Time::ZERO, &none, &OwnStatus::default(), &mut out) > Time::ZERO);
}
