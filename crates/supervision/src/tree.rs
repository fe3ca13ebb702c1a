//! The live tree as it is seen from outside: what runs where, in which state, and the chaos hook. It decides nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::address::Control;
use crate::machine::Key;
use crate::path::{ActorPath, PathPattern, PatternError};
use crate::reason::ExitReason;
use crate::spec::Kind;

/// What an actor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActorState {
    /// Its start has not returned yet; a supervisor's children are not all up yet.
    Starting,
    /// Up.
    Running,
    /// Down, and to be started again.
    Restarting,
    /// Asked to stop, or killed.
    Stopping,
    /// Down, with its specification kept. Not shown where its supervisor is down too.
    Down,
}

impl ActorState {
    /// `starting`, `running`, `restarting`, `stopping` or `down`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Down => "down",
        }
    }
}

/// One actor, as it was when the snapshot passed it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it stands.
    pub path: ActorPath,
    /// Worker or supervisor.
    pub kind: Kind,
    /// What it is doing.
    pub state: ActorState,
    /// How often it has been started again.
    pub restarts: u64,
    /// Why its last incarnation ended.
    pub last_reason: Option<ExitReason>,
    /// Messages in its mailbox; 0 when it is down.
    pub depth: usize,
    /// Since when it is in this state.
    pub since: SystemTime,
    /// The current or last incarnation's number, from 1; 0 before the first.
    pub generation: u64,
}

/// What can be done to an actor to see whether its supervisor copes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It ends at its next await.
    Kill,
    /// Its next message makes it panic.
    Panic,
    /// Its next message keeps it busy (awaiting) for this long.
    Stall(Duration),
}

/// Why a fault was not injected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// The path is not one.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Nobody who runs is meant by it.
    #[error("no actor at `{0}` is running")]
    NotFound(String),
    /// It is the root, which nobody would restart.
    #[error("the root has no supervisor that would restart it")]
    Root,
}

struct Status {
    state: ActorState,
    since: Instant,
    generation: u64,
    restarts: u64,
    last_reason: Option<ExitReason>,
    control: Option<Arc<dyn Control>>,
}

/// An actor's place in the tree; it outlives incarnations, and those of its supervisor too.
pub(crate) struct Node {
    pub(crate) path: ActorPath,
    pub(crate) kind: Kind,
    status: Mutex<Status>,
    /// In start order.
    children: Mutex<BTreeMap<Key, Arc<Node>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics between two writes that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub(crate) fn new(path: ActorPath, kind: Kind) -> Arc<Self> {
        Arc::new(Self {
            path,
            kind,
            status: Mutex::new(Status {
                state: ActorState::Down,
                since: Instant::now(),
                generation: 0,
                restarts: 0,
                last_reason: None,
                control: None,
            }),
            children: Mutex::new(BTreeMap::new()),
        })
    }

    /// A new incarnation begins; gives its number.
    pub(crate) fn begin(&self) -> u64 {
        let mut status = lock(&self.status);
        status.generation += 1;
        status.restarts = status.generation - 1;
        status.state = ActorState::Starting;
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

    /// The incarnation is up; gives the time since the one before ended.
    pub(crate) fn up(&self, generation: u64) -> Option<Duration> {
        let mut status = lock(&self.status);
        if status.generation != generation || status.state != ActorState::Starting {
            return None;
        }
        let down_for = (generation > 1).then(|| status.since.elapsed());
        status.state = ActorState::Running;
        status.since = Instant::now();
        down_for
    }

    pub(crate) fn down(&self, generation: u64, reason: &ExitReason) {
        let mut status = lock(&self.status);
        if status.generation == generation {
            // A start that fails does not shorten the time that the path has been down.
            if status.state != ActorState::Starting || generation == 1 {
                status.since = Instant::now();
            }
            status.state = ActorState::Down;
            status.last_reason = Some(reason.clone());
            status.control = None;
        }
    }

    /// Its supervisor's view of what is next.
    pub(crate) fn mark(&self, state: ActorState) {
        let mut status = lock(&self.status);
        if state == ActorState::Stopping {
            status.since = Instant::now();
        }
        status.state = state;
    }

    /// Its supervisor starts it again with its siblings, if it is down.
    pub(crate) fn due(&self) {
        let mut status = lock(&self.status);
        if status.state == ActorState::Down {
            status.state = ActorState::Restarting;
        }
    }

    /// Its supervisor does not start it again.
    pub(crate) fn rest(&self) {
        let mut status = lock(&self.status);
        if status.state == ActorState::Restarting {
            status.state = ActorState::Down;
            status.since = Instant::now();
        }
    }

    /// The supervisor is gone: nobody restarts its children any more.
    pub(crate) fn rest_children(&self) {
        for node in lock(&self.children).values() {
            node.rest();
        }
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
        let node = former.remove(&path).filter(|node| node.kind == kind).unwrap_or_else(|| Self::new(path, kind));
        lock(&self.children).insert(key, Arc::clone(&node));
        node
    }

    pub(crate) fn remove(&self, key: Key) {
        lock(&self.children).remove(&key);
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

    fn entry(&self) -> Entry {
        let status = lock(&self.status);
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
        }
    }

    fn collect(&self, supervised: bool, out: &mut Vec<Entry>) {
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

    fn select(self: &Arc<Self>, segments: &[Option<Box<str>>], out: &mut Vec<Arc<Node>>) {
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

/// A view of a system's tree. Cheap to clone; it does not keep the system running.
#[derive(Clone)]
pub struct Tree {
    pub(crate) root: Arc<Node>,
}

impl Tree {
    /// All actors, in the order of the tree: each supervisor before its children, those in start order.
    pub fn snapshot(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.root.collect(true, &mut entries);
        entries
    }

    /// One actor, by its path as written.
    pub fn find(&self, path: &str) -> Option<Entry> {
        let pattern = PathPattern::parse(path).ok()?;
        let mut nodes = Vec::new();
        self.root.select(pattern.segments(), &mut nodes);
        nodes.first().map(|node| node.entry())
    }

    /// Does `fault` to the running actors at `path`, which may be a pattern (`rooms/*`). Says how many were hit; what
    /// follows is seen in the events.
    ///
    /// # Errors
    /// When the path is no pattern, means the root, or nobody who runs.
    pub fn inject(&self, path: &str, fault: Fault) -> Result<usize, InjectError> {
        let pattern = PathPattern::parse(path)?;
        if pattern.is_root() {
            return Err(InjectError::Root);
        }
        let mut nodes = Vec::new();
        self.root.select(pattern.segments(), &mut nodes);
        let hit = nodes.iter().filter_map(|node| node.control()).map(|control| control.inject(fault)).count();
        if hit == 0 {
            return Err(InjectError::NotFound(path.to_owned()));
        }
        Ok(hit)
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("root", &self.root.path).finish_non_exhaustive()
    }
}
