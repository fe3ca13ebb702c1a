//! The live tree as it is seen from outside: what runs where, in which state, and the chaos hook. What is seen is kept in
//! `node`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::node::Node;
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
    /// Down, and to be started again: after its own wait, or with a sibling that waits.
    Restarting,
    /// Asked to stop, or killed.
    Stopping,
    /// Down, with its specification kept. Not shown where its supervisor is down too.
    Down,
}

impl ActorState {
    /// All of them, in the order of an incarnation's life.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Running, Self::Restarting, Self::Stopping, Self::Down];

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
    /// How long it still waits to be restarted. `None` unless it is [restarting](ActorState::Restarting) and the wait is its
    /// own: its siblings under one_for_all and rest_for_one wait for it.
    pub backoff: Option<Duration>,
    /// Restarts in a row: since it was last up for [`QUIET_PERIOD`](crate::QUIET_PERIOD); each makes the next wait longer.
    pub attempts: u32,
    /// Since how long it, or a task attached to it, has been running without an await ([`STUCK_AFTER`](crate::STUCK_AFTER)).
    /// It can neither be stopped nor killed while it does.
    pub stuck: Option<Duration>,
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

    /// How many actors are in each state, in the order of [`ActorState`]. Kept up to date at each change, so that asking costs
    /// nothing. Unlike in a [`snapshot`](Self::snapshot), children of a supervisor that is down count, too: as down, until it
    /// is back or forgotten.
    pub fn count_by_state(&self) -> [(ActorState, usize); 5] {
        ActorState::ALL.map(|state| (state, self.root.census.count(state)))
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
