//! What must hold: at every turn of a node, and when all that was broken has worked again for long enough.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use roomcast_protocol::{ClusterSubject, RoomId, SessionId, UserId};
use roomcast_relay::Time;
use roomcast_relay::cluster::{Cluster, ClusterEvent, NodeView, OwnStatus, Problem, RosterEntry, Send};

use crate::world::{HEARTBEAT, LOST_AFTER, MS, Run, World};

/// A node is called this late at most.
const SLACK: u64 = 2 * MS;
/// Members beyond which a view is compared with itself now and then only.
const MANY: usize = 60;
/// The most of each kind that a node may say in a second.
const HEARTBEATS_A_SECOND: usize = 25;
const CHANGES_A_SECOND: usize = 30;
const REQUESTS_A_SECOND: usize = 3;
const CALLS_A_SECOND: usize = 60;

/// What an observer of one run remembers.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) last_presence: u64,
    /// When each other run was heard last: its heartbeats, and all it said.
    heartbeats: HashMap<u64, u64>,
    words: HashMap<u64, u64>,
    /// Who was not heard since this one was frozen.
    excused: HashSet<u64>,
    /// Runs in the view after the last events.
    peers: BTreeMap<u64, String>,
    /// How often each name came and went.
    came: HashMap<String, i64>,
    said: VecDeque<(u64, String)>,
    calls: VecDeque<u64>,
    turns: usize,
}

impl Seen {
    pub(crate) fn new(now: u64) -> Self {
        Self { last_presence: now, ..Self::default() }
    }

    pub(crate) fn spoke(&mut self, author: u64, now: u64, heartbeat: bool) {
        self.excused.remove(&author);
        self.words.insert(author, now);
        if heartbeat {
            self.heartbeats.insert(author, now);
        }
    }

    /// The bus is up: everybody is given time anew.
    pub(crate) fn connected(&mut self, now: u64) {
        self.excused.clear();
        self.last_presence = now;
        self.heartbeats.values_mut().chain(self.words.values_mut()).for_each(|heard| *heard = now);
    }

    /// It was frozen, and is called at last. What it is late, if it is half a heartbeat or more, counts for nobody, once.
    pub(crate) fn thaw(&mut self, now: u64, due: u64) {
        self.last_presence = now;
        let late = now.saturating_sub(due);
        if late < HEARTBEAT / 2 {
            return;
        }
        for (author, heard) in self.heartbeats.iter_mut().chain(&mut self.words) {
            if !self.excused.contains(author) {
                *heard = (*heard + late).min(now);
            }
        }
        self.excused.extend(self.words.keys());
    }
}

/// After each turn.
pub(crate) fn turned(world: &mut World, index: usize, stirred: bool, out: &[Send]) {
    let now = world.now;
    said(&mut world.runs[index], now, stirred, out);
    let run = &mut world.runs[index];
    let events = run.cluster.take_events();
    if !events.is_empty() {
        happened(world, index, &events);
    }
    let run = &mut world.runs[index];
    if run.up {
        for (instance, name) in &run.seen.peers {
            assert!(now <= run.seen.words[instance] + LOST_AFTER + SLACK, "{} still believes in {name}", run.name);
        }
        assert!(now <= run.seen.last_presence + HEARTBEAT + SLACK, "{} says nothing of itself", run.name);
    }
    run.seen.turns += 1;
    if run.cluster.members() <= MANY || run.seen.turns.is_multiple_of(64) {
        consistent(run, now);
    }
}

/// What a node says has a bound, and so has how often it wants to be called.
fn said(run: &mut Run, now: u64, stirred: bool, out: &[Send]) {
    let seen = &mut run.seen;
    if !stirred {
        seen.calls.push_back(now);
    }
    for send in out {
        assert!(run.up, "{} speaks into the void", run.name);
        assert!(send.payload.len() <= 64 << 10, "{} bytes in one message", send.payload.len());
        let subject = send.subject.as_str();
        if subject.contains(".presence.") {
            seen.last_presence = now;
        }
        // Parts of a roster are bounded by what is asked for.
        let kind = match ClusterSubject::parse(subject).unwrap() {
            ClusterSubject::Presence(_) => "presence".to_owned(),
            ClusterSubject::Roster(_) if send.payload.len() > 2_000 => continue,
            ClusterSubject::Roster(_) => "roster".to_owned(),
            ClusterSubject::Sync(_) if send.payload.len() > 40 => continue,
            ClusterSubject::Sync(to) => format!("sync.{to}"),
        };
        seen.said.push_back((now, kind));
    }
    let past = now.saturating_sub(1_000 * MS);
    while seen.said.front().is_some_and(|(at, _)| *at <= past) {
        seen.said.pop_front();
    }
    while seen.calls.front().is_some_and(|at| *at <= past) {
        seen.calls.pop_front();
    }
    assert!(seen.calls.len() <= CALLS_A_SECOND, "{} is called {} times a second", run.name, seen.calls.len());
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, kind) in &seen.said {
        *kinds.entry(kind).or_default() += 1;
    }
    for (kind, count) in kinds {
        let most = match kind {
            "presence" => HEARTBEATS_A_SECOND,
            "roster" => CHANGES_A_SECOND,
            // Small rosters look like requests; two runs may share a name.
            _ => 8 * REQUESTS_A_SECOND,
        };
        assert!(count <= most, "{} says {kind} {count} times a second", run.name);
    }
}

/// Events tell what happened, once.
fn happened(world: &mut World, index: usize, events: &[ClusterEvent]) {
    let now = world.now;
    let run = &world.runs[index];
    let nodes = run.cluster.view(run.local(now), &run.status()).nodes;
    let peers: BTreeMap<u64, String> =
        nodes.iter().filter(|node| !node.own).map(|node| (node.instance, node.name.clone())).collect();
    let mut came: HashMap<String, i64> = HashMap::new();
    let (mut lost, mut left) = (0, 0);
    for event in events {
        match event {
            ClusterEvent::Seen { name, .. } => *came.entry(name.clone()).or_default() += 1,
            ClusterEvent::Lost { name, .. } => {
                lost += 1;
                *came.entry(name.clone()).or_default() -= 1;
            }
            ClusterEvent::Left { name } => {
                left += 1;
                *came.entry(name.clone()).or_default() -= 1;
            }
            ClusterEvent::NameTaken { name, own } => {
                assert_eq!(*own, *name == run.name);
                assert!(shared(world, name), "{}: {name} is taken, but was never shared", run.name);
            }
            ClusterEvent::OtherDialect { name } => {
                let other = |other: &Run| other.name == *name && other.dialect != run.dialect;
                assert!(world.runs.iter().any(other), "{name} speaks what all do");
            }
            ClusterEvent::Draining { .. } => {}
        }
    }
    for instance in run.seen.peers.keys().filter(|instance| !peers.contains_key(*instance)) {
        let other = &world.runs[world.instances[instance]];
        let silent = now - run.seen.heartbeats[instance];
        let may_be_lost = run.up && silent >= LOST_AFTER;
        assert!(may_be_lost || (other.quit && left > 0), "{} forgot {} without a reason", run.name, other.name);
        assert!(lost + left > 0, "{} forgot {} silently", run.name, other.name);
    }
    let seen = &mut world.runs[index].seen;
    for (name, times) in came {
        let total = seen.came.entry(name).or_default();
        *total += times;
        assert!(*total >= 0, "who went had come");
    }
    for (name, total) in &seen.came {
        let known = peers.values().filter(|peer| *peer == name).count();
        assert_eq!(*total, known as i64, "what was told of {name} is what is shown");
    }
    seen.peers = peers;
}

/// Whether two runs had a name long enough to notice.
fn shared(world: &World, name: &str) -> bool {
    let runs: Vec<&Run> = world.runs.iter().filter(|run| run.name == name).collect();
    let end = |run: &Run| run.died.unwrap_or(world.now);
    let pairs = runs.iter().enumerate().flat_map(|(at, one)| runs[at + 1..].iter().map(move |other| (one, other)));
    pairs
        .into_iter()
        .any(|(one, other)| end(one).min(end(other)).saturating_sub(one.born.max(other.born)) >= HEARTBEAT / 2)
}

type Members = BTreeSet<(String, SessionId, RoomId, UserId)>;

/// All ways of asking one view say the same, and a node knows its own.
pub(crate) fn consistent(run: &Run, now: u64) {
    let all = coherent(&run.cluster, run.local(now), &run.status());
    let sessions: BTreeSet<SessionId> = all.iter().map(|member| member.1).collect();
    assert_eq!(sessions.len(), all.len(), "{}: a member is in two places", run.name);
    let own: Vec<SessionId> = all.iter().filter(|member| run.members.contains_key(&member.1)).map(|m| m.1).collect();
    assert!(own.into_iter().eq(run.members.keys().copied()), "{} knows its own", run.name);
}

/// All ways of asking one view say the same: these are its members, by node and session.
pub(crate) fn coherent(cluster: &Cluster, now: Time, status: &OwnStatus) -> Vec<(String, SessionId, RoomId, UserId)> {
    let name =
        |node: &str, entry: &RosterEntry| (node.to_owned(), entry.session, entry.room.clone(), entry.user.clone());
    let mut all: Vec<_> = cluster.everybody().map(|(node, entry)| name(node, entry)).collect();
    all.sort();
    let view = cluster.view(now, status);
    assert_eq!(all.len(), cluster.members());
    assert_eq!(all.len(), view.members);
    let rooms: BTreeSet<&RoomId> = all.iter().map(|member| &member.2).collect();
    assert_eq!(rooms.len(), view.rooms);
    let mut by_room = Vec::new();
    for room in rooms {
        for (node, entry) in cluster.room(room) {
            assert_eq!(entry.room, *room);
            by_room.push(name(node, entry));
        }
    }
    by_room.sort();
    assert_eq!(by_room, all);
    let digest = all.iter().fold(0, |digest, (node, session, room, user)| {
        let mut hasher = DefaultHasher::new();
        (node.as_str(), session, user, room).hash(&mut hasher);
        digest ^ hasher.finish()
    });
    assert_eq!(digest, view.digest);
    let refused = |node: &&NodeView| node.problems.contains(&Problem::OtherDialect);
    let taken = |node: &&NodeView| node.problems.contains(&Problem::NameTaken);
    let counts = (view.nodes.len(), view.nodes.iter().filter(refused).count(), view.nodes.iter().filter(taken).count());
    assert_eq!(counts, cluster.counts());
    assert_eq!(cluster.is_divided(), counts.1 > 0);
    let known: u64 = view.nodes.iter().filter(|node| !refused(node)).map(|node| node.known).sum();
    assert_eq!(known, view.members as u64);
    all
}

/// What one node believes.
fn believed(run: &Run) -> Members {
    let all = run.cluster.everybody();
    all.map(|(node, entry)| (node.to_owned(), entry.session, entry.room.clone(), entry.user.clone())).collect()
}

/// What is true for a node: the members of all that live and speak as it does.
fn truth(world: &World, run: &Run) -> Members {
    let mut members = Members::new();
    for other in world.living().into_iter().map(|other| &world.runs[other]) {
        if other.dialect == run.dialect {
            let told = other.members.iter();
            members
                .extend(told.map(|(session, (room, user))| (other.name.clone(), *session, room.clone(), user.clone())));
        }
    }
    members
}

/// Everybody knows all that live, and all of their members.
pub(crate) fn all_are_known(world: &World) {
    for run in world.living().into_iter().map(|run| &world.runs[run]) {
        let (believed, truth) = (believed(run), truth(world, run));
        let missing: Vec<_> = truth.difference(&believed).take(3).collect();
        assert!(missing.is_empty(), "{} ({}) does not know {missing:?}", run.name, run.instance);
        let instances: BTreeSet<u64> = truth.iter().map(|member| member.1.0 / 1_000_000).collect();
        let ghosts = |member: &&(String, SessionId, RoomId, UserId)| instances.contains(&(member.1.0 / 1_000_000));
        let gone: Vec<_> = believed.difference(&truth).filter(ghosts).take(3).collect();
        assert!(gone.is_empty(), "{} ({}) knows {gone:?}, who left", run.name, run.instance);
        let nodes = run.cluster.view(run.local(world.now), &run.status()).nodes;
        for other in world.living().into_iter().map(|other| &world.runs[other]) {
            let node = nodes.iter().find(|node| node.instance == other.instance);
            assert!(node.is_some_and(|node| node.complete), "{} knows {} in part", run.name, other.name);
        }
    }
}

/// All views are the truth.
pub(crate) fn agreed(world: &World) {
    let living = world.living();
    let mut digests: BTreeMap<bool, BTreeSet<u64>> = BTreeMap::new();
    for run in living.iter().map(|run| &world.runs[*run]) {
        let (believed, truth) = (believed(run), truth(world, run));
        let differs: Vec<_> = believed.symmetric_difference(&truth).take(3).collect();
        assert!(differs.is_empty(), "{} ({}) is wrong about {differs:?}", run.name, run.instance);
        consistent(run, world.now);
        let view = run.cluster.view(run.local(world.now), &run.status());
        digests.entry(run.dialect == roomcast_protocol::Dialect::Seed).or_default().insert(view.digest);
        let shown: BTreeSet<u64> = view.nodes.iter().map(|node| node.instance).collect();
        assert_eq!(shown, living.iter().map(|run| world.runs[*run].instance).collect(), "{}: who is there", run.name);
        for other in living.iter().map(|other| &world.runs[*other]) {
            let node = view.nodes.iter().find(|node| node.instance == other.instance).unwrap();
            let namesakes = living.iter().filter(|run| world.runs[**run].name == other.name).count();
            assert_eq!(node.problems.contains(&Problem::NameTaken), namesakes > 1, "{} of {}", run.name, other.name);
            let foreign = other.dialect != run.dialect;
            assert_eq!(node.problems.contains(&Problem::OtherDialect), foreign);
            for session in other.members.keys() {
                assert_eq!(run.cluster.is_foreign_session(*session), foreign);
            }
            assert_eq!(node.members, other.members.len() as u64);
        }
        assert!(run.cluster.settled(run.local(world.now)));
    }
    assert!(digests.values().all(|digests| digests.len() == 1), "who knows the same says the same");
}

/// Nothing is asked for while nothing is missing.
pub(crate) fn silence(world: &World) {
    for run in world.living().into_iter().map(|run| &world.runs[run]) {
        let asked = run.seen.said.iter().find(|(_, kind)| kind != "presence");
        assert!(asked.is_none(), "{} says {asked:?} where all is known", run.name);
    }
}
