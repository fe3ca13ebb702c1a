//! How a running supervisor is asked to start, stop and show its children: the slot that finds it, and its refusals. What
//! comes of a request is decided in `machine`.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::{oneshot, watch};

use crate::node::Node;
use crate::reason::ExitReason;
use crate::spec::{ChildSpec, Kind};
use crate::tree::{ActorState, Entry};

/// How a start that was asked for went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The child is up.
    Running,
    /// It declined to start ([`StartError::Ignore`](crate::StartError::Ignore)). Its specification is kept, and it is
    /// down; a temporary or dynamic child is forgotten.
    Ignored,
}

/// Why a child was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartChildError {
    /// A child of this id is running.
    #[error("a child of this id is already running")]
    AlreadyStarted,
    /// A child of this id is kept, but down, going down or waiting to be restarted; as in OTP, use
    /// [`restart_child`](SupervisorSlot::restart_child), or delete it first.
    #[error("a child of this id is already present")]
    AlreadyPresent,
    /// The supervisor is not up, or on its way down. If it died while the child was starting, so did the child.
    #[error("the supervisor is not running")]
    NotRunning,
    /// The specification cannot be right, the child's or one below it; nothing was started.
    #[error(transparent)]
    Invalid(crate::check::SpecError),
    /// The child's start failed, or the child was stopped before it was up. Its specification is not kept.
    #[error("the child did not start: {0}")]
    Failed(ExitReason),
}

/// Why a child was not terminated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TerminateChildError {
    /// There is no such child.
    #[error("there is no child of this id")]
    NotFound,
    /// The supervisor is not up; its children are gone with it.
    #[error("the supervisor is not running")]
    NotRunning,
}

/// Why a child was not started again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestartChildError {
    /// There is no such child.
    #[error("there is no child of this id")]
    NotFound,
    /// It is running, or still on its way down.
    #[error("the child is running")]
    Running,
    /// Its supervisor is about to restart it.
    #[error("the child is being restarted")]
    Restarting,
    /// A dynamic supervisor keeps no specification of a child that is down.
    #[error("a dynamic supervisor keeps no child that is down")]
    SimpleOneForOne,
    /// The child's start failed, or the child was stopped before it was up. Its specification is kept, and it is down.
    #[error("the child did not start: {0}")]
    Failed(ExitReason),
    /// The supervisor is not up, or on its way down.
    #[error("the supervisor is not running")]
    NotRunning,
}

/// Why a child was not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteChildError {
    /// There is no such child.
    #[error("there is no child of this id")]
    NotFound,
    /// It is running, or still on its way down; terminate it first.
    #[error("the child is running")]
    Running,
    /// Its supervisor is about to restart it; terminate it first.
    #[error("the child is being restarted")]
    Restarting,
    /// A dynamic supervisor keeps no specification of a child that is down.
    #[error("a dynamic supervisor keeps no child that is down")]
    SimpleOneForOne,
    /// The supervisor is not up, or on its way down.
    #[error("the supervisor is not running")]
    NotRunning,
}

/// How many children a supervisor has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChildCounts {
    /// All, whatever their state.
    pub specs: usize,
    /// Those that are up.
    pub active: usize,
    /// The workers among all.
    pub workers: usize,
    /// The supervisors among all.
    pub supervisors: usize,
}

pub(crate) type Answer<T, E> = oneshot::Sender<Result<T, E>>;

/// What can be asked of a running supervisor.
pub(crate) enum Request {
    Start(ChildSpec, Answer<Start, StartChildError>),
    Terminate(String, Answer<(), TerminateChildError>),
    Restart(String, Answer<Start, RestartChildError>),
    Delete(String, Answer<(), DeleteChildError>),
    Spec(String, oneshot::Sender<Option<ChildSpec>>),
}

/// Where a running supervisor takes requests.
pub(crate) trait Desk: Send + Sync {
    fn ask(&self, request: Request);
}

pub(crate) struct OpenDesk {
    pub(crate) desk: Arc<dyn Desk>,
    pub(crate) node: Arc<Node>,
    /// Its sender goes with the incarnation.
    pub(crate) over: watch::Receiver<()>,
}

/// Where a supervisor is found, to start, stop and see its children. It outlives the supervisor's incarnations: empty until
/// the first begins to start its children, between two, and after the last. Clones are the same slot; a slot belongs to
/// one supervisor ([`SupervisorSpec::in_slot`](crate::SupervisorSpec::in_slot),
/// [`SupervisorSpec::dynamic`](crate::SupervisorSpec::dynamic)).
///
/// What is changed here holds for one incarnation: a supervisor that is restarted begins with the children of its
/// specification, as in OTP.
#[derive(Clone, Default)]
pub struct SupervisorSlot {
    current: Arc<ArcSwapOption<OpenDesk>>,
}

impl SupervisorSlot {
    /// An empty slot.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a child, after all others in start order, starts it and waits until it is up. While the supervisor starts
    /// its first children or restarts a group of them (one_for_all, rest_for_one), the child waits for its turn.
    ///
    /// # Errors
    /// When it is not up; see the variants.
    pub async fn start_child(&self, spec: ChildSpec) -> Result<Start, StartChildError> {
        let asked = self.ask(|answer| Request::Start(spec, answer)).await;
        asked.unwrap_or(Err(StartChildError::NotRunning))
    }

    /// Stops a child, as its shutdown says, and waits until it is gone. A temporary or dynamic one is forgotten; another
    /// keeps its specification and is down until [`restart_child`](Self::restart_child), or until its siblings' strategy
    /// restarts it with them, as in OTP. One that waits to be restarted is not restarted; one that is down stays so (`Ok`).
    ///
    /// # Errors
    /// When there is no such child or no supervisor.
    pub async fn terminate_child(&self, id: impl Into<String>) -> Result<(), TerminateChildError> {
        let asked = self.ask(|answer| Request::Terminate(id.into(), answer)).await;
        asked.unwrap_or(Err(TerminateChildError::NotRunning))
    }

    /// Starts a child that is down and waits until it is up. It does not count for the restart intensity.
    ///
    /// # Errors
    /// When it is not up, or was not down; see the variants.
    pub async fn restart_child(&self, id: impl Into<String>) -> Result<Start, RestartChildError> {
        let asked = self.ask(|answer| Request::Restart(id.into(), answer)).await;
        asked.unwrap_or(Err(RestartChildError::NotRunning))
    }

    /// Forgets a child that is down.
    ///
    /// # Errors
    /// When there is none, or it is not down; see the variants.
    pub async fn delete_child(&self, id: impl Into<String>) -> Result<(), DeleteChildError> {
        let asked = self.ask(|answer| Request::Delete(id.into(), answer)).await;
        asked.unwrap_or(Err(DeleteChildError::NotRunning))
    }

    /// The specification of a child (OTP's `get_childspec`); `None` when there is no such child or no supervisor.
    pub async fn child_spec(&self, id: impl Into<String>) -> Option<ChildSpec> {
        self.ask(|answer| Request::Spec(id.into(), answer)).await?
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let mut over = {
            // Not held while waiting: a request that came in just after the mailbox was emptied goes with the last sender.
            let open = self.current.load_full()?;
            open.desk.ask(request(reply));
            open.over.clone()
        };
        tokio::select! {
            biased;
            answer = answer => answer.ok(),
            // Others may hold a sender too. Nothing is ever sent here.
            _ = over.changed() => None,
        }
    }

    /// How many children there are now; none when the supervisor is not running. Takes time in their number.
    pub fn count_children(&self) -> ChildCounts {
        let mut counts = ChildCounts::default();
        let current = self.current.load();
        let Some(open) = &*current else {
            return counts;
        };
        open.node.each_child(|state, kind| {
            counts.specs += 1;
            counts.active += usize::from(state == ActorState::Running);
            match kind {
                Kind::Worker => counts.workers += 1,
                Kind::Supervisor => counts.supervisors += 1,
            }
        });
        counts
    }

    /// The children, in start order, those that are down included; none when the supervisor is not running.
    pub fn which_children(&self) -> Vec<Entry> {
        self.current.load().as_ref().map_or_else(Vec::new, |open| open.node.child_entries())
    }

    /// Whether the supervisor is there to take requests.
    pub fn is_running(&self) -> bool {
        self.current.load().is_some()
    }

    /// Gives what was there, so that the caller says when it is dropped.
    pub(crate) fn publish(&self, open: Arc<OpenDesk>) -> Option<Arc<OpenDesk>> {
        self.current.swap(Some(open))
    }

    pub(crate) fn clear(&self, mine: &Arc<OpenDesk>) {
        self.current.rcu(|current| match current {
            Some(open) if Arc::ptr_eq(open, mine) => None,
            other => other.clone(),
        });
    }
}

impl fmt::Debug for SupervisorSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorSlot").field("running", &self.is_running()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::path::ActorPath;

    /// As the mailbox of a dead supervisor that a request came into after it was emptied.
    #[derive(Default)]
    struct Deaf(Mutex<Vec<Request>>);

    impl Desk for Deaf {
        fn ask(&self, request: Request) {
            self.0.lock().unwrap().push(request);
        }
    }

    fn open(desk: &Arc<Deaf>) -> (SupervisorSlot, Arc<OpenDesk>, watch::Sender<()>) {
        let (life, over) = watch::channel(());
        let desk = Arc::clone(desk) as Arc<dyn Desk>;
        let open = Arc::new(OpenDesk { desk, node: Node::root(ActorPath::root("root")), over });
        let slot = SupervisorSlot::new();
        slot.publish(Arc::clone(&open));
        (slot, open, life)
    }

    async fn told(slot: &SupervisorSlot, end: impl Future<Output = ()>) -> Result<(), TerminateChildError> {
        let ask = tokio::time::timeout(Duration::from_secs(60), slot.terminate_child("a"));
        tokio::join!(biased; ask, end).0.expect("waits for a dead supervisor")
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_does_not_keep_the_mailbox_of_a_supervisor_that_has_ended() {
        let desk = Arc::<Deaf>::default();
        let (slot, open, life) = open(&desk);
        let end = async {
            slot.clear(&open);
            drop((open, desk));
        };
        assert_eq!(told(&slot, end).await, Err(TerminateChildError::NotRunning));
        drop(life);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_is_told_of_the_end_though_others_keep_the_mailbox() {
        let desk = Arc::<Deaf>::default();
        let (slot, open, life) = open(&desk);
        let end = async {
            slot.clear(&open);
            drop(life);
        };
        assert_eq!(told(&slot, end).await, Err(TerminateChildError::NotRunning));
        assert_eq!(desk.0.lock().unwrap().len(), 1);
    }
}
