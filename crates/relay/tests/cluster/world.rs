//! Nodes on a simulated bus, the truth about them, and the loop that runs both. What must hold is in `checks`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::{ClusterSubject, Dialect, RoomId, SessionId, UserId};
use roomcast_relay::Time;
use roomcast_relay::cluster::{Cluster, NodeState, OwnNode, OwnStatus, PresenceSettings, RosterEntry, Via};

use crate::network::{Flight, Network, Random, Weather};

pub(crate) const MS: u64 = 1_000;
pub(crate) const TIMES: PresenceSettings =
    PresenceSettings { heartbeat: Duration::from_secs(1), lost_after: Duration::from_secs(5) };
pub(crate) const HEARTBEAT: u64 = 1_000 * MS;
pub(crate) const LOST_AFTER: u64 = 5_000 * MS;

/// Something that happens at one of the places where nodes run.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Join { at: usize, room: u8 },
    Leave { at: usize, pick: usize },
    Crowd { at: usize, members: usize },
    Disperse { at: usize },
    Cut { from: usize, to: usize },
    CutOff { at: usize },
    Mend,
    BusDown { at: usize },
    BusUp { at: usize },
    Kill { at: usize },
    Start { at: usize },
    Quit { at: usize },
    Drain { at: usize, on: bool },
    Freeze { at: usize },
    Thaw { at: usize },
    Weather(Weather),
}

/// Which nodes there are, and what the bus is like.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Each place's name and whether it speaks the second dialect.
    pub(crate) places: Vec<(u8, bool)>,
    pub(crate) ordered: bool,
    pub(crate) weather: Weather,
    pub(crate) seed: u64,
}

/// One run of a node, alive or not.
pub(crate) struct Run {
    pub(crate) place: usize,
    pub(crate) name: String,
    pub(crate) instance: u64,
    pub(crate) dialect: Dialect,
    pub(crate) cluster: Cluster,
    /// What this run's clock is ahead.
    offset: u64,
    pub(crate) born: u64,
    pub(crate) died: Option<u64>,
    /// Whether it said its last word.
    pub(crate) quit: bool,
    pub(crate) up: bool,
    pub(crate) epoch: u64,
    pub(crate) frozen: bool,
    /// What came while it was frozen.
    waiting: VecDeque<(String, Bytes, usize)>,
    /// When it asked to be called, in the world's time.
    pub(crate) due: u64,
    pub(crate) state: NodeState,
    first_session: u64,
    next_session: u64,
    /// The truth.
    pub(crate) members: BTreeMap<SessionId, (RoomId, UserId)>,
    pub(crate) seen: crate::checks::Seen,
}

impl Run {
    pub(crate) fn local(&self, now: u64) -> Time {
        Time::from_micros(now + self.offset)
    }

    pub(crate) fn status(&self) -> OwnStatus {
        let sessions = self.first_session..self.next_session;
        OwnStatus { state: self.state, connections: self.members.len() as u64, rooms: 1, sessions: vec![sessions] }
    }

    pub(crate) fn alive(&self) -> bool {
        self.died.is_none()
    }
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) network: Network,
    setup: Setup,
    random: Random,
    pub(crate) runs: Vec<Run>,
    /// The run at each place, if there is one that lives.
    pub(crate) places: Vec<Option<usize>>,
    pub(crate) instances: HashMap<u64, usize>,
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut world = Self {
            now: 0,
            network: Network::new(setup.seed, setup.ordered, setup.weather),
            random: Random::new(setup.seed ^ 0x5eed),
            runs: Vec::new(),
            places: vec![None; setup.places.len()],
            instances: HashMap::new(),
            setup,
        };
        for place in 0..world.places.len() {
            world.start(place);
        }
        world
    }

    /// Runs until a time.
    pub(crate) fn run_until(&mut self, until: u64) {
        loop {
            let due = (0..self.runs.len()).filter(|run| self.runs[*run].alive() && !self.runs[*run].frozen);
            let due = due.min_by_key(|run| self.runs[*run].due);
            let due_at = due.map_or(u64::MAX, |run| self.runs[run].due);
            let flight_at = self.network.next_at().unwrap_or(u64::MAX);
            if due_at.min(flight_at) > until {
                break;
            }
            self.now = self.now.max(due_at.min(flight_at));
            if flight_at <= due_at {
                if let Some(flight) = self.network.take() {
                    self.arrive(flight);
                }
            } else if let Some(run) = due {
                self.turn(run, false);
            }
        }
        self.now = until;
    }

    pub(crate) fn run_for(&mut self, time: u64) {
        self.run_until(self.now + time);
    }

    fn arrive(&mut self, flight: Flight) {
        let (from, to) = (&self.runs[flight.from], &self.runs[flight.to]);
        if !to.alive() || !to.up || to.epoch != flight.epoch || self.network.cuts.contains(&(from.place, to.place)) {
            return;
        }
        if to.frozen {
            self.runs[flight.to].waiting.push_back((flight.subject, flight.payload, flight.from));
        } else {
            self.hear(flight.to, &flight.subject, &flight.payload, flight.from);
        }
    }

    fn hear(&mut self, run: usize, subject: &str, payload: &Bytes, from: usize) {
        let now = self.now;
        let author = self.runs[from].instance;
        let hearer = &mut self.runs[run];
        hearer.seen.spoke(author, now, subject.contains(".presence."));
        let local = hearer.local(now);
        hearer.cluster.receive(local, subject, payload);
        self.turn(run, true);
    }

    /// What a node does after whatever happened: says what is due, and looks at what came of it.
    pub(crate) fn turn(&mut self, run: usize, stirred: bool) {
        let now = self.now;
        let node = &mut self.runs[run];
        if !node.alive() || node.frozen {
            return;
        }
        let (local, status) = (node.local(now), node.status());
        let mut out = Vec::new();
        let next = node.cluster.tick(local, &TIMES, &status, &mut out);
        assert!(next >= local.after(Duration::from_millis(1)), "{}: asks to be called in no time", node.name);
        assert!(next <= local.after(TIMES.heartbeat), "{}: sleeps through its heartbeat", node.name);
        node.due = next.as_micros() - node.offset;
        assert_eq!(node.cluster.take_malformed(), 0, "{}: all that is said here makes sense", node.name);
        crate::checks::turned(self, run, stirred, &out);
        for send in out {
            self.publish(run, send.subject.as_str(), &send.payload);
        }
    }

    fn publish(&mut self, from: usize, subject: &str, payload: &Bytes) {
        let to = match ClusterSubject::parse(subject).expect("a node speaks on well-formed subjects") {
            ClusterSubject::Sync(name) => Some(name),
            _ => None,
        };
        let place = self.runs[from].place;
        for (index, run) in self.runs.iter().enumerate() {
            let meant = index != from && to.as_ref().is_none_or(|name| *name == run.name);
            if meant && run.alive() && run.up && !self.network.cuts.contains(&(place, run.place)) {
                self.network.send(self.now, (from, index), run.epoch, subject, payload);
            }
        }
    }

    pub(crate) fn act(&mut self, act: &Act) {
        let places = self.places.len();
        match act {
            Act::Join { at, room } => self.join(at % places, *room, 1),
            Act::Crowd { at, members } => self.join(at % places, 9, *members),
            Act::Leave { at, pick } => self.leave(at % places, *pick),
            Act::Disperse { at } => self.disperse(at % places),
            Act::Cut { from, to } => _ = self.network.cuts.insert((from % places, to % places)),
            Act::CutOff { at } => {
                let others = (0..places).filter(|other| *other != at % places);
                self.network.cuts.extend(others.flat_map(|other| [(at % places, other), (other, at % places)]));
            }
            Act::Mend => self.network.cuts.clear(),
            Act::BusDown { at } => self.bus(at % places, false),
            Act::BusUp { at } => self.bus(at % places, true),
            Act::Kill { at } => self.end(at % places, false),
            Act::Quit { at } => self.end(at % places, true),
            Act::Start { at } => self.start(at % places),
            Act::Drain { at, on } => self.with(at % places, |run, _| {
                run.state = if *on { NodeState::Draining } else { NodeState::Up };
            }),
            Act::Freeze { at } => self.freeze(at % places),
            Act::Thaw { at } => self.thaw(at % places),
            Act::Weather(weather) => self.network.weather = *weather,
        }
    }

    /// All that was broken works again; who is dead stays so.
    pub(crate) fn heal(&mut self) {
        self.network.weather = Weather { delay: 20 * MS, dropped_percent: 0, repeated_percent: 0 };
        self.network.cuts.clear();
        for place in 0..self.places.len() {
            self.thaw(place);
            self.bus(place, true);
        }
    }

    fn with(&mut self, place: usize, act: impl FnOnce(&mut Run, u64)) {
        let Some(run) = self.places[place] else { return };
        act(&mut self.runs[run], self.now);
        self.turn(run, true);
    }

    fn start(&mut self, place: usize) {
        if self.places[place].is_some() {
            return;
        }
        let index = self.runs.len();
        let (name, second) = self.setup.places[place];
        let (name, instance) = (format!("n{name}"), self.random.next() | 1);
        let dialect = if second { Dialect::Sessions } else { Dialect::Seed };
        let own = OwnNode {
            name: name.clone(),
            instance,
            version: "1".into(),
            region: "here".into(),
            dialect,
            started_ms: self.now / MS,
            listeners: vec!["wss://host".into()],
        };
        let first_session = 1_000_000 * (1 + index as u64);
        let run = Run {
            place,
            name,
            instance,
            dialect,
            cluster: Cluster::new(own, self.random.next()),
            offset: self.random.below(1_000_000_000_000),
            born: self.now,
            died: None,
            quit: false,
            up: false,
            epoch: 0,
            frozen: false,
            waiting: VecDeque::new(),
            due: self.now,
            state: NodeState::Up,
            first_session,
            next_session: first_session,
            members: BTreeMap::new(),
            seen: crate::checks::Seen::new(self.now),
        };
        self.runs.push(run);
        self.instances.insert(instance, index);
        self.places[place] = Some(index);
        self.bus(place, true);
    }

    fn end(&mut self, place: usize, in_order: bool) {
        self.thaw(place);
        let Some(run) = self.places[place].take() else { return };
        if in_order && self.runs[run].up {
            let node = &mut self.runs[run];
            let mut out = Vec::new();
            node.cluster.leave(&node.status(), &mut out);
            node.quit = true;
            for send in out {
                self.publish(run, send.subject.as_str(), &send.payload);
            }
        }
        self.runs[run].died = Some(self.now);
    }

    fn bus(&mut self, place: usize, up: bool) {
        self.thaw(place);
        self.with(place, |run, now| {
            if run.up == up {
                return;
            }
            run.up = up;
            let local = run.local(now);
            if up {
                run.epoch += 1;
                run.seen.connected(now);
                run.cluster.bus_is_up(local);
            } else {
                run.cluster.bus_is_down(local);
            }
        });
    }

    fn freeze(&mut self, place: usize) {
        if let Some(run) = self.places[place] {
            self.runs[run].frozen = true;
        }
    }

    fn thaw(&mut self, place: usize) {
        let Some(run) = self.places[place].filter(|run| self.runs[*run].frozen) else { return };
        let (now, node) = (self.now, &mut self.runs[run]);
        node.frozen = false;
        node.seen.thaw(now, node.due);
        self.turn(run, true);
        while let Some((subject, payload, from)) = self.runs[run].waiting.pop_front() {
            self.hear(run, &subject, &payload, from);
        }
    }

    fn join(&mut self, place: usize, room: u8, members: usize) {
        self.with(place, |run, now| {
            for _ in 0..members {
                let session = SessionId(run.next_session);
                run.next_session += 1;
                let room = RoomId::parse(&format!("room {room}")).unwrap();
                let user = UserId::parse(&format!("user{}", session.0 % 7)).unwrap();
                run.members.insert(session, (room.clone(), user.clone()));
                run.cluster.joined(RosterEntry { session, user, room, via: Via::WebSocket, joined_ms: now / MS });
            }
        });
    }

    fn leave(&mut self, place: usize, pick: usize) {
        self.with(place, |run, _| {
            if run.members.is_empty() {
                return;
            }
            let session = *run.members.keys().nth(pick % run.members.len()).unwrap();
            run.members.remove(&session);
            run.cluster.left(session);
        });
    }

    fn disperse(&mut self, place: usize) {
        self.with(place, |run, _| {
            for session in std::mem::take(&mut run.members).into_keys() {
                run.cluster.left(session);
            }
        });
    }

    /// The runs that live.
    pub(crate) fn living(&self) -> BTreeSet<usize> {
        self.places.iter().flatten().copied().collect()
    }
}
