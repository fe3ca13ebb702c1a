//! An actor's place in the tree, as kept for those who look: its state, its past, its children's places. It decides nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::address::Control;
use crate::machine::Key;
use crate::path::ActorPath;
use crate::policy::QUIET_PERIOD;
use crate::reason::ExitReason;
use crate::spec::Kind;
use crate::tree::{ActorState, Entry};

struct Status {
    state: ActorState,
    since: Instant,
    generation: u64,
    /// The current or last incarnation, for the watchdog.
    serial: u64,
    restarts: u64,
    last_reason: Option<ExitReason>,
    /// When its backoff ends.
    resume: Option<Instant>,
    attempts: u32,
    /// Since when it has been running without an await, by the clock that never pauses.
    stuck: Option<std::time::Instant>,
    control: Option<Arc<dyn Control>>,
    /// It is no longer in the tree.
    forgotten: bool,
}

/// How many nodes are in each state.
#[derive(Debug, Default)]
pub(crate) struct Census([AtomicUsize; ActorState::ALL.len()]);

impl Census {
    pub(crate) fn count(&self, state: ActorState) -> usize {
        self.0[state as usize].load(Ordering::Relaxed)
    }

    fn add(&self, state: ActorState) {
        self.0[state as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self, state: ActorState) {
        self.0[state as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// An actor's place in the tree; it outlives incarnations, and those of its supervisor too.
pub(crate) struct Node {
    pub(crate) path: ActorPath,
    pub(crate) kind: Kind,
    pub(crate) census: Arc<Census>,
    status: Mutex<Status>,
    /// In start order.
    children: Mutex<BTreeMap<Key, Arc<Node>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics between two writes that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// The place of a root.
    pub(crate) fn root(path: ActorPath) -> Arc<Self> {
        Self::new(path, Kind::Supervisor, Arc::default())
    }

    fn new(path: ActorPath, kind: Kind, census: Arc<Census>) -> Arc<Self> {
        census.add(ActorState::Down);
        Arc::new(Self {
            path,
            kind,
            census,
            status: Mutex::new(Status {
                state: ActorState::Down,
                since: Instant::now(),
                generation: 0,
                serial: u64::MAX,
                restarts: 0,
                last_reason: None,
                resume: None,
                attempts: 0,
                stuck: None,
                control: None,
                forgotten: false,
            }),
            children: Mutex::new(BTreeMap::new()),
        })
    }

    fn enter(&self, status: &mut Status, state: ActorState) {
        self.census.remove(status.state);
        self.census.add(state);
        status.state = state;
        status.resume = None;
    }

    /// A new incarnation begins; gives its number.
    pub(crate) fn begin(&self, serial: u64) -> u64 {
        let mut status = lock(&self.status);
        status.serial = serial;
        status.generation += 1;
        status.restarts = status.generation - 1;
        self.enter(&mut status, ActorState::Starting);
        status.stuck = None;
        // Time to recover counts from the end of the incarnation before, so `since` is kept until it is up.
        if status.generation == 1 {
            status.since = Instant::now();
        }
        status.generation
    }

    pub(crate) fn reachable(&self, generation: u64, control: Arc<dyn Control>) {
        let mut status = lock(&self.status);
        if status.generation == generation {
            status.control = Some(control);
        }
    }

    /// Does `act` if this incarnation is still the one at this place. None follows it meanwhile.
    pub(crate) fn if_current<T>(&self, generation: u64, act: impl FnOnce() -> T) -> Option<T> {
        let status = lock(&self.status);
        (status.generation == generation && !status.forgotten).then(act)
    }

    /// The incarnation is up; gives the time since the one before ended.
    pub(crate) fn up(&self, generation: u64) -> Option<Duration> {
        let mut status = lock(&self.status);
        if status.generation != generation || status.state != ActorState::Starting {
            return None;
        }
        let down_for = (generation > 1).then(|| status.since.elapsed());
        self.enter(&mut status, ActorState::Running);
        status.since = Instant::now();
        down_for
    }

    pub(crate) fn down(&self, generation: u64, reason: &ExitReason) {
        let mut status = lock(&self.status);
        if status.generation == generation {
            // A start that fails does not shorten the time that the path has been down.
            if !matches!(status.state, ActorState::Starting | ActorState::Restarting) || generation == 1 {
                status.since = Instant::now();
            }
            // One that was abandoned may end while its path waits for the next.
            if status.state != ActorState::Restarting {
                self.enter(&mut status, ActorState::Down);
            }
            status.stuck = None;
            status.last_reason = Some(reason.clone());
            status.control = None;
        }
    }

    /// Its supervisor stops it, unless it has just ended of itself, which the supervisor does not know yet.
    pub(crate) fn stopping(&self) {
        let mut status = lock(&self.status);
        if status.state != ActorState::Down {
            status.since = Instant::now();
            self.enter(&mut status, ActorState::Stopping);
        }
    }

    /// Its supervisor starts it again after `wait`: the `attempt`th time in a row.
    pub(crate) fn restarting(&self, wait: Duration, attempt: u32) {
        let mut status = lock(&self.status);
        self.enter(&mut status, ActorState::Restarting);
        status.resume = Some(Instant::now() + wait);
        status.attempts = attempt;
    }

    /// The wait to be restarted has changed: there is this much left.
    pub(crate) fn resume_in(&self, wait: Duration) {
        let mut status = lock(&self.status);
        if status.state == ActorState::Restarting {
            status.resume = Some(Instant::now() + wait);
        }
    }

    /// Its supervisor starts it again with its siblings, if it is down.
    pub(crate) fn due(&self) {
        let mut status = lock(&self.status);
        if status.state == ActorState::Down {
            self.enter(&mut status, ActorState::Restarting);
        }
    }

    /// Its supervisor does not start it again.
    pub(crate) fn rest(&self) {
        let mut status = lock(&self.status);
        if status.state == ActorState::Restarting {
            self.enter(&mut status, ActorState::Down);
            status.since = Instant::now();
        }
    }

    /// The supervisor is gone: nobody restarts its children any more.
    pub(crate) fn rest_children(&self) {
        for node in lock(&self.children).values() {
            node.rest();
        }
    }

    /// It has been running since `since` without an await.
    pub(crate) fn stuck(&self, generation: u64, since: std::time::Instant) {
        let mut status = lock(&self.status);
        if status.generation == generation {
            status.stuck = Some(since);
        }
    }

    pub(crate) fn unstuck(&self, generation: u64) {
        let mut status = lock(&self.status);
        if status.generation == generation {
            status.stuck = None;
        }
    }

    /// The place at or below this one where the incarnation with this serial number is, and its generation.
    pub(crate) fn find_incarnation(self: &Arc<Self>, serial: u64) -> Option<(Arc<Self>, u64)> {
        let status = lock(&self.status);
        if status.serial == serial {
            return Some((Arc::clone(self), status.generation));
        }
        drop(status);
        let children: Vec<_> = lock(&self.children).values().cloned().collect();
        children.iter().find_map(|child| child.find_incarnation(serial))
    }

    pub(crate) fn control(&self) -> Option<Arc<dyn Control>> {
        lock(&self.status).control.clone()
    }

    /// Puts a child in its place. `former` are the children of the supervisor's last incarnation, by path.
    pub(crate) fn place(
        &self,
        key: Key,
        name: &str,
        kind: Kind,
        former: &mut HashMap<ActorPath, Arc<Node>>,
    ) -> Arc<Node> {
        let path = self.path.child(name);
        let node = former
            .remove(&path)
            .filter(|node| node.kind == kind)
            .unwrap_or_else(|| Self::new(path, kind, Arc::clone(&self.census)));
        lock(&self.children).insert(key, Arc::clone(&node));
        node
    }

    pub(crate) fn remove(&self, key: Key) {
        if let Some(child) = lock(&self.children).remove(&key) {
            lock(&child.status).forgotten = true;
        }
    }

    /// Takes the children that the supervisor's last incarnation left.
    pub(crate) fn take_children(&self) -> HashMap<ActorPath, Arc<Node>> {
        std::mem::take(&mut *lock(&self.children)).into_values().map(|node| (node.path.clone(), node)).collect()
    }

    pub(crate) fn each_child(&self, mut see: impl FnMut(ActorState, Kind)) {
        for node in lock(&self.children).values() {
            see(lock(&node.status).state, node.kind);
        }
    }

    pub(crate) fn child_entries(&self) -> Vec<Entry> {
        lock(&self.children).values().map(|node| node.entry()).collect()
    }

    pub(crate) fn entry(&self) -> Entry {
        let status = lock(&self.status);
        let attempts = match status.state {
            ActorState::Running if status.since.elapsed() >= QUIET_PERIOD => 0,
            ActorState::Starting | ActorState::Running | ActorState::Restarting => status.attempts,
            ActorState::Stopping | ActorState::Down => 0,
        };
        let depth = status.control.as_ref().map_or(0, |control| control.depth());
        Entry {
            path: self.path.clone(),
            kind: self.kind,
            state: status.state,
            restarts: status.restarts,
            last_reason: status.last_reason.clone(),
            depth,
            since: SystemTime::now() - status.since.elapsed(),
            generation: status.generation,
            backoff: status.resume.map(|resume| resume.saturating_duration_since(Instant::now())),
            attempts,
            stuck: status.stuck.map(|since| since.elapsed()),
        }
    }

    pub(crate) fn collect(&self, supervised: bool, out: &mut Vec<Entry>) {
        let entry = self.entry();
        let down = entry.state == ActorState::Down;
        // What a dead supervisor left behind is only a memory until it is back.
        if down && !supervised {
            return;
        }
        let here = matches!(entry.state, ActorState::Running | ActorState::Starting);
        out.push(entry);
        let children: Vec<_> = lock(&self.children).values().cloned().collect();
        for child in children {
            child.collect(here, out);
        }
    }

    pub(crate) fn select(self: &Arc<Self>, segments: &[Option<Box<str>>], out: &mut Vec<Arc<Node>>) {
        let Some((wanted, rest)) = segments.split_first() else {
            out.push(Arc::clone(self));
            return;
        };
        let children: Vec<_> = lock(&self.children).values().cloned().collect();
        for child in children {
            if wanted.as_deref().is_none_or(|name| name == child.path.name()) {
                child.select(rest, out);
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let status = self.status.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.census.remove(status.state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_has_just_ended_of_itself_does_not_seem_to_stop_for_ever() {
        let node = Node::root(ActorPath::root("root"));
        let generation = node.begin(1);
        node.up(generation);
        node.down(generation, &ExitReason::Killed);
        node.stopping();
        assert_eq!(node.entry().state, ActorState::Down);
    }

    #[test]
    fn an_abandoned_one_that_ends_does_not_end_the_wait_for_the_next() {
        let node = Node::root(ActorPath::root("root"));
        let generation = node.begin(1);
        node.restarting(Duration::from_secs(9), 2);
        node.down(generation, &ExitReason::Killed);
        let entry = node.entry();
        assert_eq!((entry.state, entry.attempts), (ActorState::Restarting, 2));
        assert!(entry.backoff.is_some());
        assert_eq!(entry.last_reason, Some(ExitReason::Killed));
    }

    #[test]
    fn the_census_follows_each_change_and_forgets_who_is_gone() {
        let root = Node::root(ActorPath::root("root"));
        let counts = || ActorState::ALL.map(|state| root.census.count(state));
        let child = root.place(7, "a", Kind::Worker, &mut HashMap::new());
        assert_eq!(counts(), [0, 0, 0, 0, 2]);
        let generation = child.begin(1);
        assert_eq!(counts(), [1, 0, 0, 0, 1]);
        child.up(generation);
        child.stopping();
        assert_eq!(counts(), [0, 0, 0, 1, 1]);
        child.down(generation, &ExitReason::Shutdown);
        child.restarting(Duration::from_secs(1), 1);
        assert_eq!(counts(), [0, 0, 1, 0, 1]);
        root.rest_children();
        assert_eq!(counts(), [0, 0, 0, 0, 2]);
        root.remove(7);
        drop(child);
        assert_eq!(counts(), [0, 0, 0, 0, 1]);
    }
}
