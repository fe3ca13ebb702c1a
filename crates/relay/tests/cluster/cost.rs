//! What a big cluster costs a node: printed, since it says more about the machine than about right or wrong.
//! `cargo test --release -p roomcast-relay --test cluster -- --ignored --nocapture`

use std::time::{Duration, Instant};

use roomcast_protocol::{Dialect, RoomId, SessionId, UserId};
use roomcast_relay::Time;
use roomcast_relay::cluster::{Cluster, OwnNode, OwnStatus, PresenceSettings, RosterEntry, Send, Via};

/// Nobody is lost here.
const TIMES: PresenceSettings =
    PresenceSettings { heartbeat: Duration::from_secs(1), lost_after: Duration::from_secs(3_600) };
const PEERS: u64 = 100;
const THEIRS: u64 = 10_000;
const OWN: u64 = 20_000;

fn node(instance: u64) -> Cluster {
    let own = OwnNode {
        name: format!("node-{instance}"),
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

/// Ten members to a room; a room's members are on several nodes.
fn entry(node: u64, member: u64) -> RosterEntry {
    RosterEntry {
        session: SessionId(node * 1_000_000 + member),
        user: UserId::parse(&format!("someone{member}@example.com")).unwrap(),
        room: RoomId::parse(&format!("meeting-{}", (node * 1_000 + member) % 100_000)).unwrap(),
        via: Via::WebSocket,
        joined_ms: 1_700_000_000_000,
    }
}

struct Costs(Vec<Duration>);

impl Costs {
    fn print(mut self, what: &str) {
        self.0.sort();
        let (count, all) = (self.0.len(), self.0.iter().sum::<Duration>());
        let (mean, most, worst) = (all / count as u32, self.0[count * 99 / 100], self.0[count - 1]);
        println!("{what:40} {count:6} x  mean {mean:>10.2?}  99 % under {most:>10.2?}  worst {worst:>10.2?}");
    }
}

fn measure(costs: &mut Costs, act: impl FnOnce()) {
    let begun = Instant::now();
    act();
    costs.0.push(begun.elapsed());
}

fn tick(cluster: &mut Cluster, now: Time) -> Vec<Send> {
    let mut out = Vec::new();
    cluster.tick(now, &TIMES, &OwnStatus::default(), &mut out);
    out
}

fn ask(own: &mut Cluster, from: u64, now: Time) {
    use prost::Message;
    use roomcast_protocol::cluster::{RosterRequest, Sync, sync::Word};
    let name = format!("node-{from}");
    let ask = Sync { instance: from, to_instance: 1, name, word: Some(Word::Request(RosterRequest {})) };
    own.receive(now, "roomcast.v1.sync.node-1", &ask.encode_to_vec());
}

#[test]
#[ignore = "prints what it costs"]
fn what_a_big_cluster_costs() {
    let mut own = node(1);
    let [mut join, mut leave, mut heartbeat, mut change, mut part, mut idle, mut told, mut answer, mut room, mut view] =
        [(); 10].map(|()| Costs(Vec::new()));
    for member in 0..OWN {
        measure(&mut join, || own.joined(entry(1, member)));
    }
    tick(&mut own, Time::ZERO);
    let now = Time::from_millis(100);
    let (mut memory, mut wire) = (0, 0);
    for peer in 2..2 + PEERS {
        let mut other = node(peer);
        (0..THEIRS).for_each(|member| other.joined(entry(peer, member)));
        let said = tick(&mut other, Time::ZERO);
        let hello = said.iter().find(|send| send.subject.as_str().contains(".presence.")).unwrap();
        measure(&mut heartbeat, || own.receive(now, hello.subject.as_str(), &hello.payload));
        ask_other(&mut other, peer);
        let mut turn = Time::from_millis(1);
        while (own.members() as u64) < OWN + (peer - 2) * (THEIRS - 1) + THEIRS {
            turn = turn.after(Duration::from_millis(50));
            for send in tick(&mut other, turn) {
                if send.subject.as_str().contains(".sync.") {
                    let act = || measure(&mut part, || own.receive(now, send.subject.as_str(), &send.payload));
                    let taken = allocation_counter::measure(act);
                    (memory, wire) = (memory + taken.bytes_current, wire + send.payload.len());
                }
            }
        }
        other.left(SessionId(peer * 1_000_000));
        for send in tick(&mut other, turn.after(Duration::from_millis(60))) {
            measure(&mut change, || own.receive(now, send.subject.as_str(), &send.payload));
        }
    }
    assert_eq!(own.members() as u64, OWN + PEERS * (THEIRS - 1));
    for turn in 0..1_000 {
        let now = now.after(Duration::from_millis(turn));
        measure(&mut idle, || drop(tick(&mut own, now)));
    }
    for turn in 0..200 {
        let now = now.after(Duration::from_millis(1_100 + 50 * turn));
        own.joined(entry(1, OWN + turn));
        measure(&mut told, || drop(tick(&mut own, now)));
    }
    let now = now.after(Duration::from_secs(12));
    (2..2 + PEERS).for_each(|peer| ask(&mut own, peer, now));
    let mut turns = 0;
    loop {
        let mut out = Vec::new();
        measure(&mut answer, || out = tick(&mut own, now.after(Duration::from_millis(50 * turns))));
        if !out.iter().any(|send| send.subject.as_str().contains(".sync.")) {
            break;
        }
        turns += 1;
    }
    for number in 0..1_000 {
        let id = RoomId::parse(&format!("meeting-{number}")).unwrap();
        measure(&mut room, || assert!(own.room(&id).count() > 5));
    }
    for _ in 0..3 {
        measure(&mut view, || drop(own.view(now, &OwnStatus::default())));
    }
    for member in 0..OWN {
        measure(&mut leave, || own.left(SessionId(1_000_000 + member)));
    }
    println!("{OWN} own members, {PEERS} nodes with {THEIRS} each; 100 rosters of {OWN} took {turns} turns");
    println!(
        "a member takes {} bytes on the wire, {} in memory",
        wire as u64 / PEERS / THEIRS,
        memory as u64 / PEERS / THEIRS
    );
    join.print("joined");
    leave.print("left");
    heartbeat.print("receive: a heartbeat");
    change.print("receive: a change");
    part.print("receive: a part of a roster");
    idle.print("tick: nothing to say, or a heartbeat");
    told.print("tick: a change to tell");
    answer.print("tick: rosters for 100");
    room.print("room: 10 members");
    view.print("view: everything");
}

fn ask_other(other: &mut Cluster, peer: u64) {
    use prost::Message;
    use roomcast_protocol::cluster::{RosterRequest, Sync, sync::Word};
    let word = Some(Word::Request(RosterRequest {}));
    let ask = Sync { instance: 1, to_instance: peer, name: "node-1".into(), word };
    other.receive(Time::ZERO, &format!("roomcast.v1.sync.node-{peer}"), &ask.encode_to_vec());
}
