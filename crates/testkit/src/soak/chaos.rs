//! The faults: at a steady pace some actor is killed or made to panic, and how long it takes until it runs again is
//! measured from the blow, by a clock of this side.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use roomcast_supervision::{ActorState, Event, EventKind, Fault, Observer, Tree};
use tokio::time::{MissedTickBehavior, interval};

use super::room::lock;

/// A fault that hit.
#[derive(Clone, Debug)]
pub struct Blow {
    /// Whom.
    pub path: String,
    /// What.
    pub fault: Fault,
    /// When.
    pub at: Instant,
    /// The incarnation that was seen.
    generation: u64,
}

struct Start {
    at: Instant,
    generation: u64,
}

/// Listens to a tree's events, and keeps what recovery is measured by.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    starts: HashMap<String, Vec<Start>>,
    /// From each end to the next start, as the tree itself measures it, whoever was hit and whoever died with it.
    downtimes: Vec<Duration>,
    gave_up: Vec<String>,
}

impl Watch {
    /// What the node is to be started with.
    #[must_use]
    pub fn observer(&self) -> Observer {
        let seen = Arc::clone(&self.0);
        Arc::new(move |event: &Event| match event.kind {
            EventKind::Started { generation, after: Some(after) } => {
                let mut seen = lock(&seen);
                let start = Start { at: Instant::now(), generation };
                seen.starts.entry(event.path.as_str().to_owned()).or_default().push(start);
                seen.downtimes.push(after);
            }
            EventKind::GaveUp => lock(&seen).gave_up.push(event.path.to_string()),
            _ => {}
        })
    }

    /// Supervisors that gave up so far.
    #[must_use]
    pub fn gave_up(&self) -> Vec<String> {
        lock(&self.0).gave_up.clone()
    }

    /// Restarts seen so far.
    #[must_use]
    pub fn restarts(&self) -> usize {
        lock(&self.0).downtimes.len()
    }

    /// From each end of an actor to the running of its next incarnation.
    #[must_use]
    pub fn downtimes(&self) -> Vec<Duration> {
        lock(&self.0).downtimes.clone()
    }

    /// From the blow to the running of the victim's next incarnation; `None` where none was seen.
    #[must_use]
    pub fn recovery(&self, blow: &Blow) -> Option<Duration> {
        let seen = lock(&self.0);
        let starts = seen.starts.get(&blow.path)?;
        let next = starts.iter().find(|start| start.generation > blow.generation && start.at >= blow.at)?;
        Some(next.at - blow.at)
    }
}

/// The kind of an actor, from its path: rooms' and connections' names are left out.
#[must_use]
pub fn kind(path: &str) -> String {
    let mut segments: Vec<&str> = path.split('/').collect();
    if let [first @ ("rooms" | "connections"), name, ..] = segments.as_mut_slice() {
        *name = if *first == "rooms" { "{room}" } else { "{session}" };
    }
    segments.join("/")
}

/// Who may be hit, now: all that runs but the root and the connections with their supervisor.
fn victims(tree: &Tree) -> BTreeMap<String, Vec<(String, u64)>> {
    let mut kinds: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
    for entry in tree.snapshot() {
        let path = entry.path.as_str();
        let spared = path.is_empty() || path == "connections" || path.starts_with("connections/");
        if !spared && entry.state == ActorState::Running {
            kinds.entry(kind(path)).or_default().push((path.to_owned(), entry.generation));
        }
    }
    kinds
}

/// Strikes so often at this pace, each kind of actor once before chance decides: one blow in two at any actor of all,
/// the other at any actor of a kind drawn before, so that the few are hit as often as the many.
pub async fn strike(tree: &Tree, random: &mut fastrand::Rng, pace: Duration, times: usize) -> Vec<Blow> {
    let mut blows = Vec::new();
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut due: Vec<String> = victims(tree).into_keys().collect();
    random.shuffle(&mut due);
    while blows.len() < times {
        ticks.tick().await;
        let kinds = victims(tree);
        let all = || kinds.values().flatten().collect::<Vec<_>>();
        let group: Vec<_> = match due.iter().position(|kind| kinds.contains_key(kind)) {
            Some(first) => kinds[&due.remove(first)].iter().collect(),
            None if random.bool() => all(),
            None => {
                kinds.values().nth(random.usize(..kinds.len().max(1))).map_or_else(all, |kind| kind.iter().collect())
            }
        };
        let Some((path, generation)) = random.choice(group) else { continue };
        let fault = if random.bool() { Fault::Kill } else { Fault::Panic };
        let at = Instant::now();
        // Refused where it went down a moment ago with its supervisor: then the blow hit nobody, and another is due.
        if tree.inject(path, fault).is_ok() {
            blows.push(Blow { path: path.clone(), fault, at, generation: *generation });
        }
    }
    blows
}

/// The smallest time that so large a part (0 to 1) of all does not exceed; zero of none.
#[must_use]
pub fn percentile(times: &[Duration], part: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_leave_names_out() {
        for (path, expected) in [
            ("rooms", "rooms"),
            ("rooms/a", "rooms/{room}"),
            ("rooms/a/room", "rooms/{room}/room"),
            ("connections/17", "connections/{session}"),
            ("listeners/websocket", "listeners/websocket"),
        ] {
            assert_eq!(kind(path), expected);
        }
    }

    #[test]
    fn percentiles_are_by_rank() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        for (part, millis) in [(0.5, 50), (0.99, 99), (1.0, 100)] {
            assert_eq!(percentile(&times, part), Duration::from_millis(millis));
        }
        assert_eq!(percentile(&[], 0.99), Duration::ZERO);
    }
}
