//! Connections cut at random: clients of our own crate come back by themselves, and whoever was not cut notices nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roomcast_client::{Client, ClientOptions, ReconnectPolicy, State};
use roomcast_protocol::{RoomId, UserId};
use roomcast_supervision::{ActorState, Fault};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::absences::{Member, Stay, Violation, violations};
use crate::ledger::Numbered;
use crate::node_box::{NodeBox, Via, eventually};

use super::chaos::percentile;
use super::crowd::{ID_STRIDE, user};
use super::room::{Room, Speaker};
use super::{PACE, PATIENCE, STANDSTILL, figures, packet, sort, usage};

/// How long and how hard.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides whose connection is cut and how.
    pub seed: u64,
    /// How long connections are cut.
    pub time: Duration,
    /// Rooms.
    pub rooms: usize,
    /// Members of each room who are never cut.
    pub spared: usize,
    /// Members of each room who may be.
    pub hunted: usize,
    /// Time between two packets of a member.
    pub pause: Duration,
}

/// What one client went through.
struct Story {
    id: u32,
    member: Member,
    /// Ends of connections, as the client tells them, and how long it was away each time.
    ends: Vec<(String, Duration)>,
    /// Connections that it made.
    connections: u64,
    wrong: Vec<String>,
}

/// What a run showed.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    elapsed: Duration,
    /// Connections that were cut.
    pub cuts: usize,
    noticed: u64,
    away: Vec<Duration>,
    heard: usize,
    lost_by_the_cut: usize,
    closes: BTreeMap<String, f64>,
    drops: BTreeMap<String, f64>,
    wrong: Vec<String>,
    slow: Vec<String>,
    lags: Vec<Duration>,
}

impl Report {
    /// As of the other kind of run.
    #[must_use]
    pub fn slow(&self) -> &[String] {
        &self.slow
    }

    /// As of the other kind of run.
    #[must_use]
    pub fn stood_still(&self) -> bool {
        percentile(&self.lags, 1.0) > STANDSTILL
    }

    /// Everything that must not be; empty when the promise was kept.
    #[must_use]
    pub fn wrong(&self) -> &[String] {
        &self.wrong
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, rooms, spared, hunted, .. } = &self.plan;
        let [half, most, all] = [0.5, 0.99, 1.0].map(|part| percentile(&self.away, part));
        writeln!(f, "seed                 {seed}")?;
        writeln!(f, "rooms x members      {rooms} x ({spared} spared + {hunted} hunted)")?;
        writeln!(f, "connections cut      {} in {:.1?}, {} noticed", self.cuts, self.elapsed, self.noticed)?;
        writeln!(f, "cut to back          p50 {half:.1?}, p99 {most:.1?}, max {all:.1?}")?;
        writeln!(f, "copies heard         {}", self.heard)?;
        writeln!(f, "lost by their sender {}", self.lost_by_the_cut)?;
        writeln!(f, "drops by reason      {:?}", self.drops)?;
        writeln!(f, "closes by code       {:?}", self.closes)?;
        writeln!(f, "a timer's lateness   {:.1?} at most", percentile(&self.lags, 1.0))?;
        write!(f, "wrong                {} and {} slow", self.wrong.len(), self.slow.len())?;
        self.wrong.iter().chain(&self.slow).take(30).try_for_each(|wrong| write!(f, "\n  - {wrong}"))
    }
}

/// One run from beginning to end.
///
/// # Panics
/// When it cannot be carried out: the node does not start, somebody does not get in or back.
pub async fn run(plan: Plan) -> Report {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let node = NodeBox::start_with(&["egress.max_delay=30s"]).await;
    let tree = node.node().tree();
    let sessions = || -> BTreeSet<String> {
        let running = tree.snapshot().into_iter().filter(|entry| entry.state == ActorState::Running);
        running.map(|entry| entry.path.as_str().to_owned()).filter(|path| path.starts_with("connections/")).collect()
    };
    let (go, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let rooms: Vec<_> = (0_u32..)
        .take(plan.rooms)
        .map(|index| Room::new(index, format!("room-{index}"), plan.spared + plan.hunted))
        .collect();
    // Known before anybody joins: who joins notes how far each of the others is.
    let places: Vec<(usize, Arc<Room>, Arc<Speaker>)> = (0..plan.spared + plan.hunted)
        .flat_map(|slot| rooms.iter().map(move |room| (slot, room)))
        .map(|(slot, room)| {
            let id = room.index * ID_STRIDE + u32::try_from(slot).expect("there are few members");
            (slot, Arc::clone(room), room.enter(id, Some(slot)))
        })
        .collect();
    let mut spared = BTreeSet::new();
    let mut clients: Vec<JoinHandle<Story>> = Vec::new();
    for (slot, room, speaker) in places {
        let via = Via::ALL[(slot + room.index as usize) % 2];
        let client = Client::connect(options(&node, via, &room, speaker.id)).expect("the options are good");
        timeout(PATIENCE, client.joined()).await.expect("a client gets in soon").expect("a calm node takes it in");
        clients.push(tokio::spawn(live(client, room, speaker, slot, plan.pause, (Arc::clone(&go), Arc::clone(&stop)))));
        if slot < plan.spared {
            eventually("its connection is up", PATIENCE, async || sessions().len() == clients.len()).await;
            spared = sessions();
        }
    }
    // Nobody speaks to an empty room: that would look like a loss.
    go.store(true, Ordering::Relaxed);
    let lateness = tokio::spawn(usage::timer_lags(plan.time));
    let began = Instant::now();
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut cut = BTreeSet::new();
    while began.elapsed() < plan.time {
        ticks.tick().await;
        let victims: Vec<String> =
            sessions().into_iter().filter(|it| !spared.contains(it) && !cut.contains(it)).collect();
        let Some(victim) = random.choice(victims) else { continue };
        if tree.inject(&victim, if random.bool() { Fault::Kill } else { Fault::Panic }).is_ok() {
            cut.insert(victim);
        }
    }
    let elapsed = began.elapsed();
    let everybody: Vec<Arc<Speaker>> = rooms.iter().flat_map(|room| room.residents()).collect();
    eventually("everybody is back", PATIENCE, async || {
        sessions().difference(&cut).count() == everybody.len() && node.node().store().connections() == everybody.len()
    })
    .await;
    // What is sent from now on nobody may miss; so the ends of all stories meet.
    let before: Vec<u32> = everybody.iter().map(|speaker| speaker.begun()).collect();
    eventually("everybody was heard again", PATIENCE, async || {
        everybody.iter().zip(&before).all(|(speaker, before)| speaker.heard_by_all() > before + 3)
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let mut stories = Vec::new();
    for client in clients {
        stories.push(client.await.expect("a client's task does not panic"));
    }
    let mut report = judge(plan, &rooms, stories, cut.len(), elapsed, &node).await;
    report.lags = lateness.await.expect("waiting does not panic");
    node.stop().await;
    report
}

async fn judge(
    plan: Plan,
    rooms: &[Arc<Room>],
    stories: Vec<Story>,
    cuts: usize,
    elapsed: Duration,
    node: &NodeBox,
) -> Report {
    let (mut wrong, mut away, mut noticed) = (Vec::new(), Vec::new(), 0);
    let mut members: BTreeMap<u32, BTreeMap<u32, Member>> = BTreeMap::new();
    for story in stories {
        let id = story.id;
        wrong.extend(story.wrong);
        noticed += story.connections - 1;
        let slot = (id % ID_STRIDE) as usize;
        if slot < plan.spared && story.connections != 1 {
            wrong.push(format!("{id} was not cut and had {} connections", story.connections));
        }
        for (end, time) in story.ends {
            if !end.contains("1011") {
                wrong.push(format!("{id}: {end}"));
            }
            away.push(time);
        }
        members.entry(id / ID_STRIDE).or_default().insert(id, story.member);
    }
    if noticed != cuts as u64 {
        wrong.push(format!("{cuts} connections were cut, {noticed} ends were noticed"));
    }
    let (mut heard, mut lost, mut missing) = (0, 0, Vec::new());
    for room in rooms {
        let members = &members[&room.index];
        for violation in violations(members) {
            let loss = matches!(violation, Violation::Lost { .. } | Violation::Swallowed { .. });
            if loss { &mut missing } else { &mut wrong }.push(format!("{}: {violation}", room.name));
        }
        heard +=
            members.values().flat_map(|m| &m.stays).flat_map(|stay| stay.heard.values()).map(Vec::len).sum::<usize>();
        let witness = members.keys().next().map(|first| &members[first].stays);
        for (id, member) in members.iter().skip(1) {
            let got = witness.map_or(0, |stays| stays.iter().filter_map(|stay| stay.heard.get(id)).map(Vec::len).sum());
            lost += member.sent as usize - got;
        }
    }
    let mut closes = figures(node, "roomcast_closes_total", "code").await;
    let drops = figures(node, "roomcast_drops_total", "reason").await;
    let crashed = closes.remove("1011").unwrap_or(0.0);
    if crashed != cuts as f64 {
        wrong.push(format!("{cuts} connections were cut, but {crashed} were closed with 1011"));
    }
    let (more, slow) = sort(&drops, &closes, &mut missing);
    wrong.extend(more);
    let lags = Vec::new();
    Report { plan, elapsed, cuts, noticed, away, heard, lost_by_the_cut: lost, closes, drops, wrong, slow, lags }
}

fn options(node: &NodeBox, via: Via, room: &Room, id: u32) -> ClientOptions {
    let endpoint = node.base(via).parse().expect("a node's address is a URL");
    let name = UserId::parse(&user(id)).expect("a plain name is a user's");
    let room = RoomId::parse(&room.name).expect("a plain name is a room's");
    let reconnect = ReconnectPolicy {
        initial: Duration::from_millis(50),
        max: Duration::from_millis(400),
        ..ReconnectPolicy::default()
    };
    ClientOptions { trust: node.trust(), reconnect, ..ClientOptions::new(endpoint, name, room) }
}

/// One client's life: it sends at its pace while it is connected, and notes what it hears and when it is cut.
async fn live(
    mut client: Client,
    room: Arc<Room>,
    speaker: Arc<Speaker>,
    slot: usize,
    pause: Duration,
    (go, stop): (Arc<AtomicBool>, Arc<AtomicBool>),
) -> Story {
    let id = speaker.id;
    let name = user(id);
    let others: BTreeMap<u32, Arc<Speaker>> = room.residents().into_iter().map(|other| (other.id, other)).collect();
    let mut state = client.state();
    state.mark_changed();
    let mut stays: BTreeMap<u64, Stay> = BTreeMap::new();
    let (mut ends, mut wrong) = (Vec::new(), Vec::new());
    let mut cut_at = None;
    let mut pace = interval(pause);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut quiet_since = None;
    loop {
        tokio::select! {
            received = client.recv() => {
                let Some(received) = received else {
                    wrong.push(format!("{id} was closed for good: {:?}", *state.borrow()));
                    break;
                };
                match packet::read(&received.bytes) {
                    Some(Numbered { room: of, sender, number }) if of == room.index && others.contains_key(&sender) => {
                        stays.entry(received.connection).or_default().heard.entry(sender).or_default().push(number);
                        others[&sender].note_heard(slot, number);
                    }
                    other => wrong.push(format!("{id} in room {} got {other:?}", room.index)),
                }
            }
            Ok(()) = state.changed() => {
                let now = state.borrow_and_update().clone();
                match now {
                    State::Connected { number, .. } => {
                        let joined = others.values().map(|other| (other.id, other.begun())).collect();
                        stays.entry(number).or_default().joined = joined;
                        if let Some((reason, at)) = cut_at.take() {
                            ends.push((reason, Instant::now() - at));
                        }
                    }
                    State::Waiting { reason, .. } => cut_at = Some((reason, Instant::now())),
                    State::Connecting { .. } | State::Closed(_) => {}
                }
            }
            _ = pace.tick() => {
                if stop.load(Ordering::Relaxed) {
                    let since = *quiet_since.get_or_insert_with(Instant::now);
                    // What others sent last is under way; the checker tells what is missing if it does not come.
                    let all = others.values().all(|other| other.heard_by_all() >= other.begun());
                    if all || since.elapsed() > PATIENCE {
                        break;
                    }
                } else if go.load(Ordering::Relaxed) && matches!(*state.borrow(), State::Connected { .. }) {
                    // Known as begun before it is on its way; taken back where it was not taken.
                    let number = speaker.next();
                    let packet = Numbered { room: room.index, sender: id, number };
                    if client.try_send(packet::media(&name, packet)).is_err() {
                        speaker.take_back();
                    }
                }
            }
        }
    }
    let (_, stats) = client.close().await;
    let member = Member { sent: speaker.begun(), stays: stays.into_values().collect() };
    Story { id, member, ends, connections: stats.connections, wrong }
}
