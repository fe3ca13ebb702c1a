//! One run of one fault: the stage is set, the crowd gathers, the blow falls, and what it cost is measured.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use roomcast_client::{ClosedReason, KeepAlive, ReconnectPolicy};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::figures::{Class, Figures, absences, ms};
use super::load::{self, Load, Outcome};
use super::proxy::{Direction, Flow, Proxy};
use super::stage::{self, Stage};
use super::table::{DEAD_AFTER, Fault, Kind, LOST_AFTER, PING_EVERY};
use super::view::{Truth, agree};

/// How long anything that should come about at all may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What happened last must have had a chance to do harm.
const CALM: Duration = Duration::from_secs(1);
/// Nodes, and brokers.
const SIZE: usize = 3;
/// The nodes' `timers.idle`, which decides for how long a silent member keeps its seat: the default.
const IDLE: Duration = Duration::from_secs(30);
/// The same where time is short; longer than a client needs to give a silent node up.
const SHORT_IDLE: Duration = Duration::from_secs(12);
/// Time between two kills of an actor: often, and less often than what its supervisor takes for hopeless.
const BETWEEN_KILLS: Duration = Duration::from_millis(700);

/// How to run a fault.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The node's program.
    pub program: PathBuf,
    /// Decides who is hit, and everything that the crowd leaves to chance.
    pub seed: u64,
    /// Full outages, or short ones.
    pub full: bool,
    /// Time between two packets of a member.
    pub pace: Duration,
    /// Whether to print what the nodes logged.
    pub logs: bool,
    /// Added to every time that is expected: what a debug build beside other tests on two cores may take longer.
    pub allowance: Duration,
}

impl Plan {
    /// As the figures are to be read: on a machine that has nothing else to do, with a release build.
    #[must_use]
    pub fn full(program: PathBuf, seed: u64) -> Self {
        Self { program, seed, full: true, pace: Duration::from_millis(50), logs: false, allowance: Duration::ZERO }
    }

    /// Where time is short and the machine is busy.
    #[must_use]
    pub fn short(program: PathBuf, seed: u64) -> Self {
        let (pace, allowance) = (Duration::from_millis(200), Duration::from_millis(1_000));
        Self { program, seed, full: false, pace, logs: false, allowance }
    }

    fn crowd(&self) -> load::Plan {
        load::Plan {
            seed: self.seed,
            rooms: 30,
            // Two on one node, and one on each of the others.
            spread: vec![0, 0, 1, 2],
            pace: self.pace,
            keep_alive: KeepAlive { every: PING_EVERY, dead_after: DEAD_AFTER },
            reconnect: ReconnectPolicy::default(),
        }
    }
}

/// What was done.
struct Blow {
    struck: Instant,
    healed: Instant,
    /// Nodes that were hit, or whose way to their broker was.
    hit: BTreeSet<usize>,
    /// Whether the nodes themselves were hit, and so pairs on one of them too.
    nodes_hit: bool,
    /// The node that is no more.
    dead: Option<usize>,
    /// What went wrong in doing it.
    wrong: Vec<String>,
}

/// Runs a fault once.
///
/// # Panics
/// When it cannot be carried out: brokers or nodes do not start, the crowd does not get in, all is not well before the blow.
pub async fn run(fault: &Fault, plan: &Plan) -> Figures {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let outage = if plan.full { fault.outage } else { fault.short_outage };
    let settings = [
        format!("timers.drain={}ms", outage.as_millis().max(100)),
        format!("presence.lost_after={LOST_AFTER:?}"),
        format!("timers.idle={:?}", if plan.full { IDLE } else { SHORT_IDLE }),
    ];
    let mut stage = Stage::start(&plan.program, SIZE, SIZE, random.u64(..), &settings).await;
    let crowd = plan.crowd();
    let mut truth = Truth {
        nodes: (0..SIZE).map(stage::name).collect(),
        rooms: crowd.rooms as usize,
        members: crowd.rooms as usize * crowd.spread.len(),
    };
    let load = Load::gather(crowd, &stage.endpoints()).await;
    let before = agree(&stage.nodes.iter().collect::<Vec<_>>(), &truth, PATIENCE).await;
    assert_eq!(before.why, None, "nodes do not agree before anything was done");
    load.mark();
    let began_on: BTreeMap<u32, Option<usize>> = load.seats().iter().map(|seat| (seat.id, seat.node())).collect();
    let lateness = Lateness::watch();

    let blow = strike(&mut stage, fault.kind, outage, &mut random).await;
    load.await_all();
    if let Some(dead) = blow.dead {
        truth.nodes.remove(dead);
    }
    let living: Vec<_> =
        stage.nodes.iter().enumerate().filter(|(index, _)| Some(*index) != blow.dead).map(|(_, node)| node).collect();
    let (heard, agreement) = tokio::join!(all_heard_again(&load), agree(&living, &truth, PATIENCE));
    sleep(CALM).await;

    let mut figures = Figures {
        fault: fault.name.to_owned(),
        seed: plan.seed,
        outage_ms: ms(blow.healed - blow.struck),
        members: load.seats().len(),
        wrong: blow.wrong.clone(),
        timer_lag_ms: lateness.worst(),
        ..Figures::default()
    };
    let since = |when: Instant| ms(when.saturating_duration_since(blow.healed));
    match heard {
        Some(when) => figures.heard_again_ms = Some(since(when)),
        None => figures.stuck.push(format!("never heard again within {PATIENCE:?}: (who, whom) {:?}", load.deaf())),
    }
    (figures.agree_ms, figures.true_ms) = (agreement.agreed.map(since), agreement.on_truth.map(since));
    figures.stuck.extend(agreement.why.map(|why| format!("no agreement on the truth within {PATIENCE:?}: {why}")));
    let class = |one: u32, other: u32| class(&blow, began_on[&one], began_on[&other]);
    silences(&load, class, &mut figures);
    figures.oldest_ms = ms(load.oldest());
    for node in &living {
        let Ok((_, text)) = node.admin("GET", "/metrics").await else { continue };
        for (reason, count) in drops(&text) {
            *figures.drops.entry(reason).or_default() += count;
        }
    }
    let outcomes = load.disperse().await;
    for outcome in &outcomes {
        enter(outcome, blow.struck, class, &mut figures);
    }
    figures.losses = losses(&outcomes, blow.struck);
    figures.judge(&fault.expect, plan.allowance);
    if plan.logs {
        stage.nodes.iter().for_each(|node| eprintln!("--- {}'s log:\n{}", node.name(), node.log()));
    }
    figures
}

async fn all_heard_again(load: &Load) -> Option<Instant> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(when) = load.all_heard_again() {
            return Some(when);
        }
        sleep(Duration::from_millis(20)).await;
    }
    None
}

fn class(blow: &Blow, one: Option<usize>, other: Option<usize>) -> Class {
    let hit = |node: Option<usize>| node.is_none_or(|node| blow.hit.contains(&node));
    match (one == other, hit(one) || hit(other)) {
        (true, true) if blow.nodes_hit => Class::Hit,
        (true, _) => Class::Local,
        (false, true) => Class::Hit,
        (false, false) => Class::Bystanders,
    }
}

/// Enters every receiver's longest silence, and how many pairs there are.
fn silences(load: &Load, class: impl Fn(u32, u32) -> Class, figures: &mut Figures) {
    let (now, pace) = (Instant::now(), load.plan().pace);
    // Two timers of a busy machine: less than that is no gap.
    let noise = pace.max(Duration::from_millis(50));
    for seat in load.seats() {
        let mut longest: BTreeMap<Class, Duration> = BTreeMap::new();
        for mate in load.mates(seat) {
            let class = class(seat.id, mate.id);
            let gap = load.silence(seat, mate, now).unwrap_or_default().saturating_sub(pace);
            let most = longest.entry(class).or_default();
            *most = gap.max(*most);
            figures.class(class).pairs += 1;
        }
        for (class, gap) in longest.into_iter().filter(|(_, gap)| *gap > noise) {
            figures.class(class).gaps_ms.push(ms(gap));
        }
    }
}

/// Enters what became of one member.
fn enter(outcome: &Outcome, struck: Instant, class: impl Fn(u32, u32) -> Class, figures: &mut Figures) {
    let Outcome { seat, verdict, stats, ended } = outcome;
    for (from, lost) in &verdict.lost {
        figures.class(class(seat.id, *from)).lost += lost;
    }
    figures.sent += u64::from(seat.sent());
    figures.refused += seat.refused();
    figures.dropped_by_clients += stats.dropped + stats.unconfirmed;
    figures.late += verdict.late;
    figures.returned += verdict.returned;
    figures.wrong.extend(verdict.wrong.iter().cloned());
    if *ended != ClosedReason::Local {
        figures.wrong.push(format!("{} is over: {ended}", seat.id));
    }
    let (absences, moved) = absences(&seat.turns(), struck);
    figures.moved += moved;
    for (notice, back, why) in absences {
        figures.closed += 1;
        *figures.how.entry(why).or_default() += 1;
        figures.notice_ms.push(ms(notice));
        match back {
            Some(back) => figures.back_ms.push(ms(back)),
            None => figures.wrong.push(format!("{} never came back", seat.id)),
        }
    }
}

/// Some losses in words: when what was sent, and what sender and receiver went through, all in milliseconds after the blow.
fn losses(outcomes: &[Outcome], struck: Instant) -> Vec<String> {
    const SHOWN: usize = 30;
    let after = |when: Instant| match when.checked_duration_since(struck) {
        Some(time) => format!("{:.0}", ms(time)),
        None => format!("-{:.0}", ms(struck - when)),
    };
    let life = |outcome: &Outcome| -> String {
        let told = outcome.seat.turns().into_iter().map(|turn| match turn.place {
            Ok(node) => format!("node {node} from {}", after(turn.at)),
            Err(why) => format!("away from {}: {why}", after(turn.at)),
        });
        format!("{:?}, {}", outcome.seat.via, told.collect::<Vec<_>>().join(", "))
    };
    let mut found = Vec::new();
    for to in outcomes {
        for (from, numbers) in &to.verdict.runs {
            let Some(from) = outcomes.iter().find(|outcome| outcome.seat.id == *from) else { continue };
            let when = |number| from.seat.sent_at(number).map_or_else(String::new, after);
            let (first, last) = (when(numbers.start), when(numbers.end - 1));
            let (receiver, sender) = (to.seat.id, from.seat.id);
            let (there, here) = (life(to), life(from));
            found.push(format!("{numbers:?} of {sender} (sent {first} to {last}; {here}) by {receiver} ({there})"));
            if found.len() == SHOWN {
                return found;
            }
        }
    }
    found
}

/// Packets that a node says it dropped, by the metric's reason.
fn drops(metrics: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#') && line.contains("drop")) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let Some(count) = value.parse::<f64>().ok().filter(|count| *count > 0.0) else { continue };
        let reason = name.split_once("reason=\"").and_then(|(_, rest)| rest.split('"').next());
        let metric = name.split('{').next().unwrap_or(name).trim_start_matches("roomcast_");
        let reason = reason.map_or_else(|| metric.to_owned(), |reason| format!("{metric} {reason}"));
        *found.entry(reason).or_default() += count;
    }
    found
}

/// Does it, holds it for the outage, and makes it good.
async fn strike(stage: &mut Stage, kind: Kind, outage: Duration, random: &mut fastrand::Rng) -> Blow {
    let node = random.usize(0..stage.nodes.len());
    let everybody: BTreeSet<usize> = (0..stage.nodes.len()).collect();
    let now = Instant::now();
    let mut blow =
        Blow { struck: now, healed: now, hit: BTreeSet::from([node]), nodes_hit: false, dead: None, wrong: Vec::new() };
    match kind {
        Kind::Nothing => {
            blow.hit.clear();
            sleep(outage).await;
        }
        Kind::BrokerKilled => {
            let broker = stage.broker_of(node).expect("a ready node is connected to a broker");
            blow.hit = everybody.into_iter().filter(|node| stage.broker_of(*node) == Some(broker)).collect();
            stage.brokers.brokers[broker].kill();
            sleep(outage).await;
            stage.brokers.brokers[broker].restart().await;
        }
        Kind::BrokersStopped => {
            blow.hit = everybody;
            stage.brokers.brokers.iter_mut().for_each(|broker| broker.kill());
            sleep(outage).await;
            for broker in &mut stage.brokers.brokers {
                broker.restart().await;
            }
        }
        Kind::NodeKilled => {
            (blow.nodes_hit, blow.dead) = (true, Some(node));
            stage.nodes[node].kill().await;
            blow.healed = blow.struck;
            return blow;
        }
        Kind::NodeFrozen => {
            blow.nodes_hit = true;
            stage.nodes[node].freeze();
            sleep(outage).await;
            stage.nodes[node].thaw();
        }
        Kind::Cut(direction) => {
            for way in &stage.network[node] {
                match direction {
                    Some(direction) => way.set(direction, Flow::Vanish),
                    None => way.set_both(Flow::Vanish),
                }
            }
            sleep(outage).await;
            stage.network[node].iter().for_each(Proxy::heal);
        }
        Kind::Slow(rate) => {
            stage.network[node].iter().for_each(|way| way.set_both(Flow::Slow(rate)));
            sleep(outage).await;
            stage.network[node].iter().for_each(Proxy::heal);
        }
        Kind::Stalled => {
            stage.network[node].iter().for_each(|way| way.set(Direction::Up, Flow::Stall));
            sleep(outage).await;
            stage.network[node].iter().for_each(Proxy::heal);
        }
        Kind::RollingRestart => {
            (blow.nodes_hit, blow.hit) = (true, everybody);
            for node in &mut stage.nodes {
                node.terminate();
                let status = node.ends(outage + PATIENCE).await;
                if !status.success() {
                    blow.wrong.push(format!("{} ended with {status}", node.name()));
                }
                node.restart().await;
                node.becomes_ready(PATIENCE).await;
            }
        }
        Kind::LinkKilled => {
            blow.hit = everybody;
            let (mut killed, until) = (0, Instant::now() + outage);
            while Instant::now() < until {
                for node in &stage.nodes {
                    let fault = if random.bool() { "kill" } else { "panic" };
                    let asked = node.admin("POST", &format!("/actors/bus/link/kill?fault={fault}")).await;
                    // One that waits to be started again cannot be killed.
                    killed += usize::from(asked.is_ok_and(|(status, _)| status == 200));
                }
                sleep(BETWEEN_KILLS).await;
            }
            if killed < stage.nodes.len() * 2 {
                blow.wrong.push(format!("only {killed} kills succeeded"));
            }
        }
    }
    blow.healed = Instant::now();
    blow
}

/// How late timers come, as long as it is kept: what the machine itself adds to every time.
struct Lateness {
    worst: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Lateness {
    fn watch() -> Self {
        const STEP: Duration = Duration::from_millis(10);
        let worst = Arc::new(AtomicU64::new(0));
        let noting = Arc::clone(&worst);
        let task = tokio::spawn(async move {
            loop {
                let due = tokio::time::Instant::now() + STEP;
                tokio::time::sleep_until(due).await;
                noting.fetch_max(due.elapsed().as_micros() as u64, Ordering::Relaxed);
            }
        });
        Self { worst, task }
    }

    fn worst(&self) -> f64 {
        self.worst.load(Ordering::Relaxed) as f64 / 1e3
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_told_apart_by_what_was_hit() {
        let now = Instant::now();
        let blow = |hit: &[usize], nodes_hit| Blow {
            struck: now,
            healed: now,
            hit: hit.iter().copied().collect(),
            nodes_hit,
            dead: None,
            wrong: Vec::new(),
        };
        // The way of node 1 to its broker: on it nobody may notice.
        let network = blow(&[1], false);
        assert_eq!(class(&network, Some(1), Some(1)), Class::Local);
        assert_eq!(class(&network, Some(0), Some(0)), Class::Local);
        assert_eq!(class(&network, Some(0), Some(1)), Class::Hit);
        assert_eq!(class(&network, Some(0), Some(2)), Class::Bystanders);
        // Node 1 itself.
        let node = blow(&[1], true);
        assert_eq!(class(&node, Some(1), Some(1)), Class::Hit);
        assert_eq!(class(&node, Some(0), Some(0)), Class::Local);
        assert_eq!(class(&node, Some(2), Some(1)), Class::Hit);
        assert_eq!(class(&node, Some(2), Some(0)), Class::Bystanders);
    }

    #[test]
    fn what_a_node_says_it_dropped_is_summed_by_reason() {
        let text = "# TYPE roomcast_drops_total counter\n\
                    roomcast_drops_total{reason=\"late\",class=\"video\"} 2\n\
                    roomcast_drops_total{reason=\"late\",class=\"audio\"} 3\n\
                    roomcast_drops_total{reason=\"full\"} 0\n\
                    roomcast_bus_drops_total{reason=\"down\"} 7\nroomcast_connections 9\n";
        let expected = [("bus_drops_total down", 7.0), ("drops_total late", 5.0)];
        assert_eq!(drops(text), expected.map(|(reason, count)| (reason.to_owned(), count)).into());
    }
}
