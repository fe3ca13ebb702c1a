//! The promise under load: a crowd talks, guests come and go, faults strike, and a ledger per receiver says whether anybody
//! noticed. What lives here: the driver. What does not: how long and how hard (`tests/soak`), and what is checked
//! (`ledger`).

pub mod chaos;
mod crowd;
pub mod cycles;
mod guests;
pub mod line;
pub mod packet;
pub mod returning;
mod room;
pub mod usage;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roomcast_bus::local::Hub;
use roomcast_supervision::ActorState;
use tokio::time::Instant;

use crate::ledger::{Ledger, Violation};
use crate::node_box::NodeBox;

use chaos::{Watch, kind, percentile};
use crowd::Crowd;

/// How long anything that should come at once may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two faults.
pub const PACE: Duration = Duration::from_millis(50);

/// How long and how hard.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides who is hit and how, and when guests come.
    pub seed: u64,
    /// How long faults strike.
    pub time: Duration,
    /// Rooms of the crowd.
    pub rooms: usize,
    /// Residents of each room at the node that is hit.
    pub members: usize,
    /// Rooms that have one more resident at another node, which is not hit.
    pub distant: usize,
    /// Time between two packets of a resident.
    pub pause: Duration,
    /// How long a guest stays, in milliseconds.
    pub stay: Range<u64>,
    /// Loops that make rooms and end them.
    pub meetings: usize,
    /// Settings of both nodes, beside [`PATIENT`] for the one that is hit.
    pub settings: Vec<&'static str>,
    /// The longest that 99 of 100 may take from a blow to the next incarnation's running.
    pub recovery: Duration,
}

/// What was found out by some part of a run.
#[derive(Debug, Default)]
struct Findings {
    /// Packets that residents sent.
    sent: u64,
    /// Packets that residents heard.
    copies: u64,
    /// Residents' connections that were closed.
    closed: usize,
    visits: usize,
    meetings: usize,
    join_times: Vec<Duration>,
    leave_times: Vec<Duration>,
    /// Everything that must not be, in words.
    wrong: Vec<String>,
    /// Packets that never came, in words.
    lost: Vec<String>,
    /// Packets that came late for a reason that is known, in words.
    late: Vec<String>,
    violations: u64,
}

impl Findings {
    fn enter(&mut self, ledger: Ledger) {
        let (violations, count) = ledger.close();
        self.violations += count;
        for violation in violations {
            match violation {
                Violation::Lost { .. } => &mut self.lost,
                // The first two packets of a WebTransport client come on streams that HTTP/3 may have set aside: the
                // node waits a tenth of a second for them, and then they are late rather than lost.
                Violation::Reordered { packet, .. } if packet.number < 2 => &mut self.late,
                _ => &mut self.wrong,
            }
            .push(violation.to_string());
        }
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.copies += other.copies;
        self.closed += other.closed;
        self.visits += other.visits;
        self.meetings += other.meetings;
        self.join_times.extend(other.join_times);
        self.leave_times.extend(other.leave_times);
        self.wrong.extend(other.wrong);
        self.lost.extend(other.lost);
        self.late.extend(other.late);
        self.violations += other.violations;
    }
}

/// What a run showed.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    elapsed: Duration,
    findings: Findings,
    blows: BTreeMap<String, usize>,
    restarts: usize,
    recoveries: Vec<Duration>,
    downtimes: Vec<Duration>,
    drops: BTreeMap<String, f64>,
    closes: BTreeMap<String, f64>,
    cores: f64,
    /// How late timers were: what the machine itself adds to every time above.
    lags: Vec<Duration>,
    slowest: Vec<(Duration, String)>,
    slow: Vec<String>,
}

/// Timers that come later than this show a machine that stands still for times that the node's own bounds are made of.
pub const STANDSTILL: Duration = Duration::from_millis(100);

impl Report {
    /// Everything that must not be; empty when the promise was kept.
    #[must_use]
    pub fn wrong(&self) -> &[String] {
        &self.findings.wrong
    }

    /// What must not be either, unless the machine stood still: restarts that took too long, packets given up because they
    /// were too late, all of them counted.
    #[must_use]
    pub fn slow(&self) -> &[String] {
        &self.slow
    }

    /// Whether the machine stood still.
    #[must_use]
    pub fn stood_still(&self) -> bool {
        percentile(&self.lags, 1.0) > STANDSTILL
    }

    /// Faults that hit.
    #[must_use]
    pub fn blows(&self) -> usize {
        self.blows.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, findings, .. } = self;
        let seconds = self.elapsed.as_secs_f64();
        let line = |times: &[Duration]| {
            let [half, most, all] = [0.5, 0.99, 1.0].map(|part| percentile(times, part).as_secs_f64() * 1e3);
            format!("p50 {half:.2} ms, p99 {most:.2} ms, max {all:.2} ms (of {})", times.len())
        };
        writeln!(f, "seed                 {}", plan.seed)?;
        writeln!(
            f,
            "rooms x members      {} x {}, {} with one more elsewhere",
            plan.rooms, plan.members, plan.distant
        )?;
        writeln!(f, "time                 {seconds:.1} s, {:.2} cores of this process", self.cores)?;
        writeln!(f, "faults               {}: {:?}", self.blows(), self.blows)?;
        writeln!(f, "restarts             {}", self.restarts)?;
        writeln!(f, "blow to running      {}", line(&self.recoveries))?;
        writeln!(f, "the slowest          {:?}", self.slowest)?;
        writeln!(f, "a timer's lateness   {}", line(&self.lags))?;
        writeln!(f, "end to running       {}", line(&self.downtimes))?;
        writeln!(
            f,
            "packets              {} sent, {} copies heard by residents ({:.0}/s)",
            findings.sent,
            findings.copies,
            findings.copies as f64 / seconds
        )?;
        writeln!(
            f,
            "guests               {} in and out ({:.1}/s), {} rooms of two",
            findings.visits,
            findings.visits as f64 / seconds,
            findings.meetings
        )?;
        writeln!(f, "time to join         {}", line(&findings.join_times))?;
        writeln!(f, "left to out of table {}", line(&findings.leave_times))?;
        writeln!(f, "drops by reason      {:?}", self.drops)?;
        writeln!(f, "closes by code       {:?}", self.closes)?;
        writeln!(f, "residents closed     {}", findings.closed)?;
        writeln!(f, "ledger violations    {}", findings.violations)?;
        write!(f, "wrong                {} and {} slow", findings.wrong.len(), self.slow.len())?;
        findings.wrong.iter().chain(&self.slow).take(30).try_for_each(|wrong| write!(f, "\n  - {wrong}"))
    }
}

/// Settings under which faults at this pace are no reason to give up, nor to wait for long: the usual backoff takes an actor
/// that crashes several times within a second for broken, and waits on purpose.
pub const PATIENT: [&str; 5] = [
    "supervision.defaults.backoff={ initial = \"1ms\", factor = 2.0, max = \"10ms\", jitter = 0.2 }",
    "supervision.defaults.intensity=100000",
    "supervision.\"\".intensity=100000",
    "supervision.\"rooms\".intensity=100000",
    "supervision.\"connections\".intensity=100000",
];

/// One run from beginning to end.
///
/// # Panics
/// When it cannot be carried out: the node does not start, a resident does not get in.
pub async fn run(plan: Plan) -> Report {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let hub = Hub::new();
    let watch = Watch::default();
    let settings: Vec<&str> = PATIENT.iter().chain(&plan.settings).copied().collect();
    let node = NodeBox::start_observed(&settings, Some(Arc::new(hub.join())), Some(watch.observer())).await;
    let node = Arc::new(node);
    let other = NodeBox::start_on(&plan.settings, Some(Arc::new(hub.join()))).await;
    let crowd = Crowd::gather(&node, Some(&other), (plan.rooms, plan.members, plan.distant), plan.pause).await;
    // Nobody may miss the distant residents' first packets for want of a subscription: the ledgers begin at number 0.
    crowd.speaks().await;

    let stop = Arc::new(AtomicBool::new(false));
    let mut visitors = tokio::task::JoinSet::new();
    for room in &crowd.rooms {
        let (node, room, stop) = (Arc::clone(&node), Arc::clone(room), Arc::clone(&stop));
        visitors.spawn(guests::visit(node, room, plan.members, random.fork(), plan.stay.clone(), stop));
    }
    for _ in 0..plan.meetings {
        visitors.spawn(guests::meet(Arc::clone(&node), random.fork(), plan.stay.end, Arc::clone(&stop)));
    }

    let tree = node.node().tree();
    let (began, used) = (Instant::now(), usage::processor_time());
    let times = (plan.time.as_millis() / PACE.as_millis()) as usize;
    let lateness = tokio::spawn(usage::timer_lags(plan.time));
    let blows = chaos::strike(&tree, &mut random, PACE, times).await;
    let elapsed = began.elapsed();
    let cores = (usage::processor_time() - used).as_secs_f64() / elapsed.as_secs_f64();

    stop.store(true, Ordering::Relaxed);
    let mut findings = Findings::default();
    while let Some(visitor) = visitors.join_next().await {
        findings.add(visitor.expect("a visitor does not panic"));
    }
    let deadline = Instant::now() + PATIENCE;
    let down = || tree.snapshot().into_iter().filter(|entry| entry.state != ActorState::Running).collect::<Vec<_>>();
    while !down().is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    findings.wrong.extend(down().iter().map(|entry| format!("at the end: {entry:?}")));
    // What happened last must have had a chance to do harm.
    crowd.speaks().await;
    crowd.disperse(&mut findings).await;

    let (mut recoveries, mut slowest) = (Vec::new(), Vec::new());
    for blow in &blows {
        match watch.recovery(blow) {
            Some(time) => {
                recoveries.push(time);
                slowest.push((time, format!("{} {:?} at {:.2?}", blow.path, blow.fault, blow.at - began.into_std())));
            }
            // A room of two may have been over before its actor was back.
            None if blow.path.starts_with(&format!("rooms/{}", guests::MEETING)) => {}
            None => findings.wrong.push(format!("{} did not come back after {:?}", blow.path, blow.fault)),
        }
    }
    slowest.sort_by(|one, two| two.cmp(one));
    slowest.truncate(8);
    let mut kinds = BTreeMap::new();
    blows.iter().for_each(|blow| *kinds.entry(kind(&blow.path)).or_default() += 1);
    let (mut drops, mut closes) = (BTreeMap::new(), BTreeMap::new());
    for node in [&*node, &other] {
        for (sums, name, label) in
            [(&mut drops, "roomcast_drops_total", "reason"), (&mut closes, "roomcast_closes_total", "code")]
        {
            for (value, count) in figures(node, name, label).await {
                *sums.entry(value).or_default() += count;
            }
        }
    }
    let (wrong, mut slow) = sort(&drops, &closes, &mut findings.lost);
    findings.wrong.extend(wrong);
    slow.append(&mut findings.late);
    findings.wrong.extend(watch.gave_up().iter().map(|path| format!("{path} gave up")));
    let downtimes = watch.downtimes();
    for (what, times) in [("blow", &recoveries), ("end", &downtimes)] {
        let most = percentile(times, 0.99);
        if most > plan.recovery {
            slow.push(format!("from {what} to running: p99 {most:?}, more than {:?}", plan.recovery));
        }
    }
    other.stop().await;
    node.node().stop().await;
    Report {
        plan,
        elapsed,
        findings,
        blows: kinds,
        restarts: watch.restarts(),
        recoveries,
        downtimes,
        drops,
        closes,
        cores,
        lags: lateness.await.expect("waiting does not panic"),
        slowest,
        slow,
    }
}

/// What the node's own counts say: what is wrong, and what may be a slow machine's fault.
fn sort(
    drops: &BTreeMap<String, f64>,
    closes: &BTreeMap<String, f64>,
    lost: &mut Vec<String>,
) -> (Vec<String>, Vec<String>) {
    let (mut wrong, mut slow) = (Vec::new(), Vec::new());
    for (reason, count) in drops {
        match reason.as_str() {
            // What is on its way to a guest that leaves has nobody to go to any more.
            "closed" => {}
            "late" | "stalled" => slow.push(format!("{count} packets dropped: {reason}")),
            reason => wrong.push(format!("{count} packets dropped: {reason}")),
        }
    }
    // A loss that nobody counted is no slow machine's.
    if slow.is_empty() { &mut wrong } else { &mut slow }.append(lost);
    // With no code at all where a client that leaves was gone before its writer noticed; whoever stays tells of its end.
    let strange = closes.iter().filter(|(code, _)| !matches!(code.as_str(), "1000" | "none"));
    wrong.extend(strange.map(|(code, n)| format!("{n} closes with {code}")));
    (wrong, slow)
}

/// A counter's values above zero, by one label.
async fn figures(node: &NodeBox, name: &str, label: &str) -> BTreeMap<String, f64> {
    let (_, body) = node.admin("GET", "/metrics").await;
    let of_label = |line: &str| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?;
        let (_, rest) = labels.split_once(&format!("{label}=\""))?;
        Some((rest.split_once('"')?.0.to_owned(), value.parse::<f64>().ok()?))
    };
    body.lines().filter_map(of_label).filter(|(_, value)| *value > 0.0).collect()
}
