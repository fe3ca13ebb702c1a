//! What the observer is told.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::path::ActorPath;
use crate::reason::ExitReason;

/// Something happened in the tree.
#[derive(Debug, Clone)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// To whom.
    pub path: ActorPath,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// An incarnation is up: a worker's start returned, or all children of a supervisor are up.
    Started {
        /// Which incarnation of this path, from 1.
        generation: u64,
        /// Since the end of the incarnation before, if there was one: the time to recover.
        after: Option<Duration>,
    },
    /// An incarnation that was up has ended, and everything that belonged to it is gone.
    Exited {
        /// Which incarnation.
        generation: u64,
        /// Why.
        reason: ExitReason,
    },
    /// An incarnation ended before it was up.
    StartFailed {
        /// Which incarnation.
        generation: u64,
        /// Why.
        reason: ExitReason,
    },
    /// An incarnation declined to start ([`StartError::Ignore`](crate::StartError::Ignore)). Nothing follows of itself.
    Ignored {
        /// Which incarnation.
        generation: u64,
    },
    /// It will be started again after this wait, which is zero for the first restart in a row. Under one_for_all and
    /// rest_for_one its siblings are stopped first and restarted with it.
    RestartScheduled {
        /// Why it ended.
        reason: ExitReason,
        /// The wait.
        delay: Duration,
    },
    /// This supervisor saw more restarts than its intensity allows; it stops its children and ends.
    GaveUp,
    /// This actor did not end though killed ([`ABANDON_AFTER`](crate::ABANDON_AFTER)): something in it runs without ever
    /// awaiting. Its supervisor goes on without it; its `Exited` follows if it ever ends.
    Abandoned,
    /// This actor has been running for [`STUCK_AFTER`](crate::STUCK_AFTER) without an await, and has not come to one yet: it
    /// serves no message, and can be neither stopped nor killed. Told again when it has been so for ten times as long.
    Stuck {
        /// Which incarnation.
        generation: u64,
        /// How long it has been running, at least.
        busy: Duration,
    },
    /// This actor, which was reported as stuck, has come to an await or its end.
    Unstuck {
        /// Which incarnation.
        generation: u64,
        /// How long it was running, at least.
        busy: Duration,
    },
}

/// Called for each event, in the task in which it happens, or, for [`EventKind::Stuck`], in a thread that is none of the
/// runtime's: it must be quick and must not block. A panic in it is contained.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;
