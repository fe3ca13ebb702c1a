//! The words in which a machine and its runtime talk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::policy::Policy;
use crate::reason::ExitReason;
use crate::spec::{Kind, Restart, Shutdown};

/// A child's place in the start order of its supervisor; never used twice.
pub(crate) type Key = u64;
/// The number of an incarnation; never used twice in one supervisor.
pub(crate) type Run = u64;
/// Names somebody who waits for a reply.
pub(crate) type Token = u64;

/// What the decisions need to know of a child.
#[derive(Debug, Clone)]
pub(crate) struct ChildRules {
    pub(crate) id: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Option<Shutdown>,
    pub(crate) significant: bool,
}

/// When something happens and by which policy it is judged.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    pub(crate) policy: Policy,
}

impl Now {
    /// `time` from now. Times without an end, such as `Duration::MAX`, end in a lifetime.
    pub(super) fn after(&self, time: Duration) -> Instant {
        const LIFETIME: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);
        self.at + time.min(LIFETIME)
    }
}

/// A wait between restarts, as it was decided; how long it is, is the policy's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub(super) since: Instant,
    /// Restarts in a row before this one.
    pub(super) attempt: u32,
    pub(super) dice: f64,
}

impl Wait {
    pub(super) fn delay(&self, policy: &Policy) -> Duration {
        policy.backoff.delay(self.attempt, self.dice)
    }

    pub(super) fn until(&self, policy: &Policy) -> Instant {
        Now { at: self.since, policy: *policy }.after(self.delay(policy))
    }
}

/// What the runtime is to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Spawn incarnation `run`; answer with `started` or `gone`.
    Start { key: Key, run: Run },
    /// Ask it to end in an orderly way.
    Stop { key: Key },
    /// End it by force.
    Kill { key: Key },
    /// It did not end though killed; go on without it.
    Abandon { key: Key },
    /// It ended for this reason and will be started again after this wait: the `attempt`th time in a row.
    Scheduled { key: Key, reason: ExitReason, delay: Duration, attempt: u32 },
    /// Its wait has changed: there is this much left.
    Revised { key: Key, left: Duration },
    /// It is down and will be started again with its group.
    Due { key: Key },
    /// It is down and stays so.
    Rests { key: Key },
    /// The child is no more: let go of all that is kept for it.
    Forget { key: Key },
    /// All children are up for the first time.
    Ready,
    /// Too many restarts; the children are stopped from here on.
    GaveUp,
    /// Answer who waits.
    Reply { token: Token, outcome: Outcome },
    /// All children are gone: end.
    End(ExitReason),
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Done,
    /// It declined to start.
    Ignored,
    /// The start that was asked for failed.
    Failed(ExitReason),
    /// The supervisor is on its way down.
    Stopping,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A child of this id is running.
    AlreadyStarted,
    /// A child of this id is kept, but not running.
    AlreadyPresent,
    /// A fixed sibling has this name; paths are unique.
    NameTaken,
    NotFound,
    Running,
    Restarting,
    /// The request means nothing to a dynamic supervisor.
    SimpleOneForOne,
    /// The supervisor is on its way down.
    Stopping,
}
