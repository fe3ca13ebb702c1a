//! The crowd: rooms whose members are spread over all nodes, real clients on both transports, who all send numbered packets of
//! media at a modest pace and keep a record of what they hear.
//!
//! What does not live here: what is done to the nodes meanwhile (`run`), and what is made of the records (`figures`).

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use roomcast_client::{
    Client, ClientOptions, ClientTrust, ClosedReason, KeepAlive, ReconnectPolicy, SendError, State, Stats,
};
use roomcast_protocol::{RoomId, UserId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use url::Url;

use super::record::{Record, Verdict};
use crate::ledger::Numbered;
use crate::node_box::{Via, eventually};
use crate::soak::packet;

/// How long a crowd may take to gather on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often everybody is heard before it counts.
const WARM_UP: usize = 3;
/// Members' numbers of one room begin here after those of the last.
const ID_STRIDE: u32 = 1_000;

/// Who talks, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides when in a pace each begins, and in which order nodes are tried.
    pub seed: u64,
    /// Rooms.
    pub rooms: u32,
    /// On which nodes a room's members are, counted from the room's first: the same number twice is a pair on one node.
    pub spread: Vec<usize>,
    /// Time between two packets of a member.
    pub pace: Duration,
    /// How clients notice a dead node.
    pub keep_alive: KeepAlive,
    /// How clients come back.
    pub reconnect: ReconnectPolicy,
}

/// A member's place in the crowd.
pub struct Seat {
    /// Its number, in every packet that it sends.
    pub id: u32,
    /// Its room.
    pub room: u32,
    /// The node that it begins on.
    pub home: usize,
    /// How it connects.
    pub via: Via,
    record: Mutex<Record>,
    sent: AtomicU32,
    /// From this number on everybody in the room must hear it.
    first: AtomicU32,
    /// Packets that its client did not take, since it had no connection or no room.
    refused: AtomicU64,
    turns: Mutex<Vec<Turn>>,
    /// When each of its packets was sent.
    sent_at: Mutex<Vec<Instant>>,
}

/// Something that happened to a member's connection, as its client tells it.
#[derive(Clone, Debug)]
pub struct Turn {
    /// When.
    pub at: Instant,
    /// What it has from then on: the node that it is connected to, or why it has none.
    pub place: Result<usize, String>,
}

/// What became of a member.
pub struct Outcome {
    /// Who.
    pub seat: Arc<Seat>,
    /// What it missed, and what it should not have got.
    pub verdict: Verdict,
    /// What its client counted.
    pub stats: Stats,
    /// How its client ended.
    pub ended: ClosedReason,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Talk,
    Listen,
    Leave,
}

/// A crowd that talks.
pub struct Load {
    plan: Plan,
    seats: Vec<Arc<Seat>>,
    members: Vec<JoinHandle<(Stats, ClosedReason)>>,
    phase: watch::Sender<Phase>,
}

impl Seat {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Packets sent so far.
    #[must_use]
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Packets that its client did not take so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    /// What happened to its connection since it was first in.
    #[must_use]
    pub fn turns(&self) -> Vec<Turn> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn turned(&self, place: Result<usize, String>) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Waiting and connecting again and again is one absence; its first reason counts.
        if !matches!((turns.last().map(|turn| &turn.place), &place), (Some(Err(_)), Err(_))) {
            turns.push(Turn { at: Instant::now(), place });
        }
    }

    /// When it sent a packet.
    #[must_use]
    pub fn sent_at(&self, number: u32) -> Option<Instant> {
        self.times().get(number as usize).copied()
    }

    /// The node that it is connected to.
    #[must_use]
    pub fn node(&self) -> Option<usize> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).last()?.place.as_ref().ok().copied()
    }

    fn times(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.sent_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters what was received, which somebody of the room has sent.
    fn hear(&self, bytes: &[u8], room: &[Arc<Seat>]) {
        let (packet, now) = (packet::read(bytes), Instant::now());
        let sender = packet.and_then(|packet| room.iter().find(|seat| seat.id == packet.sender));
        // What nobody of the room has sent is found by the ledger.
        let sent = sender.and_then(|sender| sender.sent_at(packet?.number));
        let age = sent.map(|sent| now.saturating_duration_since(sent)).unwrap_or_default();
        self.record().hear(packet, age, now);
    }

    /// Sends the next packet, or counts that it could not.
    fn speak(&self, client: &Client) {
        // Told before it is sent: whoever awaits what is sent from now on does not take this one for it.
        let number = self.sent.fetch_add(1, Ordering::SeqCst);
        self.times().push(Instant::now());
        let bytes = packet::media(&user(self.id), Numbered { room: self.room, sender: self.id, number });
        if let Err(SendError::Disconnected | SendError::Full | SendError::Closed | SendError::TooLarge(_)) =
            client.try_send(bytes)
        {
            self.sent.fetch_sub(1, Ordering::SeqCst);
            self.times().pop();
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Load {
    /// Joins everybody, each at its home (the node whose endpoints have that index) with the other nodes to fall back on, and
    /// waits until everybody hears everybody else of its room. From then on whatever is not heard is lost.
    ///
    /// # Panics
    /// When that does not come about: nothing can be shown then.
    pub async fn gather(plan: Plan, nodes: &[[Url; 2]]) -> Self {
        let mut random = fastrand::Rng::with_seed(plan.seed);
        let phase = watch::Sender::new(Phase::Talk);
        let (mut seats, mut members) = (Vec::new(), Vec::new());
        let talk = Arc::new(AtomicBool::new(false));
        for room in 0..plan.rooms {
            let of_room: Arc<[Arc<Seat>]> = (0_u32..)
                .zip(&plan.spread)
                .map(|(slot, offset)| {
                    let home = (room as usize + offset) % nodes.len();
                    let via = Via::ALL[(room + slot) as usize % 2];
                    Arc::new(Seat::new(room * ID_STRIDE + slot, room, home, via))
                })
                .collect();
            for seat in of_room.iter().map(Arc::clone) {
                let options = options(&plan, &seat, nodes, &mut random);
                let endpoints = nodes.iter().map(|urls| urls[seat.via as usize].clone()).collect();
                let client = Client::connect(options).expect("the options are good");
                let start = plan.pace.mul_f64(random.f64());
                let pace = start..plan.pace;
                let signals = (Arc::clone(&talk), phase.subscribe());
                let living = live(Arc::clone(&seat), Arc::clone(&of_room), client, endpoints, pace, signals);
                members.push(tokio::spawn(living));
                seats.push(seat);
            }
        }
        let load = Self { plan, seats, members, phase };
        eventually("everybody is in", PATIENCE, async || load.seats.iter().all(|seat| seat.node().is_some())).await;
        talk.store(true, Ordering::SeqCst);
        // The first packets find no subscription on other nodes yet, and those of a WebTransport client come on streams that
        // HTTP/3 may have set aside for a tenth of a second: late, which is not what is looked for here.
        for _ in 0..WARM_UP {
            load.await_all();
            eventually("everybody is heard", PATIENCE, async || load.all_heard_again().is_some()).await;
        }
        for seat in &load.seats {
            seat.first.store(seat.sent(), Ordering::SeqCst);
            seat.record().begin(seat.room);
        }
        load
    }

    /// Everybody.
    #[must_use]
    pub fn seats(&self) -> &[Arc<Seat>] {
        &self.seats
    }

    /// The plan that it was gathered by.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The others of a member's room.
    pub fn mates<'a>(&'a self, seat: &'a Seat) -> impl Iterator<Item = &'a Arc<Seat>> {
        let size = self.plan.spread.len();
        let start = seat.room as usize * size;
        self.seats[start..start + size].iter().filter(|mate| mate.id != seat.id)
    }

    /// From now on silences are counted anew.
    pub fn mark(&self) {
        self.seats.iter().for_each(|seat| seat.record().mark());
    }

    /// From now on waits to hear from everybody what they send from now on.
    pub fn await_all(&self) {
        for seat in &self.seats {
            let mut record = seat.record();
            self.mates(seat).for_each(|mate| record.await_from(mate.id, mate.sent()));
        }
    }

    /// When everybody had heard again from everybody of its room, since [`await_all`](Self::await_all).
    #[must_use]
    pub fn all_heard_again(&self) -> Option<Instant> {
        let mut latest = None;
        for seat in &self.seats {
            let record = seat.record();
            for mate in self.mates(seat) {
                latest = latest.max(Some(record.heard_again(mate.id)?));
            }
        }
        latest
    }

    /// Who has not heard whom again.
    #[must_use]
    pub fn deaf(&self) -> Vec<(u32, u32)> {
        let pairs = self.seats.iter().flat_map(|seat| self.mates(seat).map(move |mate| (seat, mate)));
        let deaf = pairs.filter(|(seat, mate)| seat.record().heard_again(mate.id).is_none());
        deaf.map(|(seat, mate)| (seat.id, mate.id)).collect()
    }

    /// For how long `to` has not heard `from` at most, since the mark.
    #[must_use]
    pub fn silence(&self, to: &Seat, from: &Seat, now: Instant) -> Option<Duration> {
        to.record().silence(from.id, now)
    }

    /// How long after it was sent a packet was still heard, at most, since the mark.
    #[must_use]
    pub fn oldest(&self) -> Duration {
        self.seats.iter().map(|seat| seat.record().oldest()).max().unwrap_or_default()
    }

    /// Ends the talk, waits until what is on its way has come, and tells what became of everybody.
    ///
    /// # Panics
    /// When a member's task panicked.
    pub async fn disperse(self) -> Vec<Outcome> {
        /// Nothing is on its way any longer than this without being stuck.
        const QUIET: Duration = Duration::from_secs(2);
        self.phase.send_replace(Phase::Listen);
        // Who is in the middle of a packet sends it.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let heard = |seat: &Seat| self.mates(seat).all(|mate| seat.record().next_of(mate.id) >= mate.sent());
        let deadline = Instant::now() + QUIET;
        while Instant::now() < deadline && !self.seats.iter().all(|seat| heard(seat)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.phase.send_replace(Phase::Leave);
        let mut outcomes = Vec::new();
        let told: Vec<(u32, u32, u32)> =
            self.seats.iter().map(|seat| (seat.id, seat.first.load(Ordering::SeqCst), seat.sent())).collect();
        for (seat, member) in self.seats.into_iter().zip(self.members) {
            let (stats, ended) = member.await.expect("a member's task does not panic");
            let fresh = Record::new(seat.id, seat.room);
            let record = std::mem::replace(&mut *seat.record(), fresh);
            let mates = told.iter().filter(|(id, ..)| id / ID_STRIDE == seat.room && *id != seat.id).copied();
            outcomes.push(Outcome { verdict: record.close(mates), seat, stats, ended });
        }
        outcomes
    }
}

impl Seat {
    fn new(id: u32, room: u32, home: usize, via: Via) -> Self {
        Self {
            id,
            room,
            home,
            via,
            record: Mutex::new(Record::new(id, room)),
            sent: AtomicU32::new(0),
            first: AtomicU32::new(0),
            refused: AtomicU64::new(0),
            turns: Mutex::default(),
            sent_at: Mutex::default(),
        }
    }
}

/// A member's name.
#[must_use]
pub fn user(id: u32) -> String {
    format!("m{id}")
}

/// A room's name.
#[must_use]
pub fn room(index: u32) -> String {
    format!("room-{index}")
}

fn options(plan: &Plan, seat: &Seat, nodes: &[[Url; 2]], random: &mut fastrand::Rng) -> ClientOptions {
    let url = |node: usize| nodes[node][seat.via as usize].clone();
    let mut others: Vec<usize> = (0..nodes.len()).filter(|node| *node != seat.home).collect();
    random.shuffle(&mut others);
    let user = UserId::parse(&user(seat.id)).expect("a good name");
    let room = RoomId::parse(&room(seat.room)).expect("a good name");
    let mut options = ClientOptions::new(url(seat.home), user, room);
    options.endpoints.extend(others.into_iter().map(url));
    // A node makes itself a new certificate with every start.
    options.trust = ClientTrust::Insecure;
    options.keep_alive = plan.keep_alive;
    options.reconnect = plan.reconnect.clone();
    options
}

/// One member's life: its client's, with a packet for every pace.
async fn live(
    seat: Arc<Seat>,
    room: Arc<[Arc<Seat>]>,
    mut client: Client,
    endpoints: Vec<Url>,
    pace: Range<Duration>,
    (talk, mut phase): (Arc<AtomicBool>, watch::Receiver<Phase>),
) -> (Stats, ClosedReason) {
    let mut state = client.state();
    let mut ticks = interval_at(tokio::time::Instant::now() + pace.start, pace.end);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    note(&seat, &state.borrow_and_update(), &endpoints);
    loop {
        let now = *phase.borrow_and_update();
        if now == Phase::Leave {
            break;
        }
        tokio::select! {
            received = client.recv() => match received {
                Some(received) => seat.hear(&received.bytes, &room),
                None => break,
            },
            changed = state.changed() => {
                if changed.is_err() {
                    break;
                }
                note(&seat, &state.borrow_and_update(), &endpoints);
            }
            _ = ticks.tick(), if now == Phase::Talk => {
                if talk.load(Ordering::SeqCst) {
                    seat.speak(&client);
                }
            }
            _ = phase.changed() => {}
        }
    }
    if let State::Closed(reason) = &*client.state().borrow() {
        seat.turned(Err(reason.to_string()));
    }
    let (reason, stats) = timeout(PATIENCE, client.close()).await.expect("a client closes in bounded time");
    (stats, reason)
}

fn note(seat: &Seat, state: &State, endpoints: &[Url]) {
    match state {
        State::Connected { endpoint, .. } => match endpoints.iter().position(|url| url == endpoint) {
            Some(node) => seat.turned(Ok(node)),
            None => seat.turned(Err(format!("connected to {endpoint}, which is none of its endpoints"))),
        },
        // Not in yet.
        _ if seat.turns().is_empty() => {}
        State::Waiting { reason, .. } => seat.turned(Err(reason.clone())),
        State::Connecting { .. } => seat.turned(Err("told to go elsewhere".to_owned())),
        State::Closed(reason) => seat.turned(Err(reason.to_string())),
    }
}
