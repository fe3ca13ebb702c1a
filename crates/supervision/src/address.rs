//! How actors are reached: addresses of incarnations, and slots that outlive them. No actor lives here.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::oneshot;

use crate::reason::ExitReason;
use crate::spec::{ChildSpec, Kind};
use crate::tree::{ActorState, Entry, Fault, Node};

/// What can be done to any actor, whatever its messages.
pub(crate) trait Control: Send + Sync {
    fn stop(&self);
    fn kill(&self);
    fn inject(&self, fault: Fault);
    /// Messages put in and not yet taken.
    fn depth(&self) -> usize;
    fn is_alive(&self) -> bool;
}

/// An actor's mailbox.
pub(crate) trait Mailbox<M>: Control {
    fn put(&self, message: M) -> Result<(), M>;
    /// The actor has taken a message out.
    fn taken(&self);
}

/// One incarnation of a worker. It stays valid, and refuses messages, when the incarnation has ended.
pub struct Address<M> {
    pub(crate) mailbox: Arc<dyn Mailbox<M>>,
}

/// The message came too late or too early: there is no living incarnation. It is handed back.
#[derive(PartialEq, Eq, thiserror::Error)]
#[error("the actor is not running")]
pub struct SendError<M>(pub M);

impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendError(..)")
    }
}

impl<M: Send + 'static> Address<M> {
    /// Puts a message into the mailbox, which is unbounded; see [`depth`](Self::depth). `Ok` means put in, not handled:
    /// an incarnation that ends drops what it has not taken.
    ///
    /// # Errors
    /// When the incarnation has ended; the message is handed back.
    pub fn send(&self, message: M) -> Result<(), SendError<M>> {
        self.mailbox.put(message).map_err(SendError)
    }

    /// Messages put in and not yet taken.
    pub fn depth(&self) -> usize {
        self.mailbox.depth()
    }

    /// Whether the incarnation still takes messages.
    pub fn is_alive(&self) -> bool {
        self.mailbox.is_alive()
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mailbox, &other.mailbox)
    }
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { mailbox: Arc::clone(&self.mailbox) }
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("depth", &self.mailbox.depth()).finish()
    }
}

/// Where the current incarnation of a worker is found. It outlives incarnations: empty until the first is up, between
/// two, and after the last. Clones are the same slot.
pub struct Slot<M> {
    current: Arc<ArcSwapOption<Address<M>>>,
}

impl<M: Send + 'static> Slot<M> {
    /// An empty slot.
    pub fn new() -> Self {
        Self { current: Arc::new(ArcSwapOption::empty()) }
    }

    /// Sends to the current incarnation.
    ///
    /// # Errors
    /// When there is none, or it has just ended; the message is handed back.
    pub fn send(&self, message: M) -> Result<(), SendError<M>> {
        match &*self.current.load() {
            Some(address) => address.send(message),
            None => Err(SendError(message)),
        }
    }

    /// The current incarnation.
    pub fn current(&self) -> Option<Address<M>> {
        self.current.load().as_deref().cloned()
    }

    pub(crate) fn publish(&self, address: Address<M>) {
        self.current.store(Some(Arc::new(address)));
    }

    /// Empties the slot if it still holds this incarnation.
    pub(crate) fn clear(&self, mine: &Address<M>) {
        self.current.rcu(|current| match current {
            Some(address) if address.is(mine) => None,
            other => other.clone(),
        });
    }
}

impl<M: Send + 'static> Default for Slot<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> Clone for Slot<M> {
    fn clone(&self) -> Self {
        Self { current: Arc::clone(&self.current) }
    }
}

impl<M> fmt::Debug for Slot<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("current", &self.current.load()).finish()
    }
}

/// Why a child was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartChildError {
    /// A child of this id is there already.
    #[error("a child of this id is already present")]
    AlreadyPresent,
    /// The supervisor is not up, or on its way down. If it died while the child was starting, so did the child.
    #[error("the supervisor is not running")]
    NotRunning,
    /// The specification cannot be right.
    #[error(transparent)]
    Invalid(crate::spec::SpecError),
    /// The child's start failed, or it ended during its start. Its specification is not kept.
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

/// How many children there are.
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

pub(crate) type StartChildReply = oneshot::Sender<Result<(), StartChildError>>;
pub(crate) type TerminateChildReply = oneshot::Sender<Result<(), TerminateChildError>>;

/// Where a running supervisor takes requests.
pub(crate) trait Desk: Send + Sync {
    fn start_child(&self, spec: ChildSpec, reply: StartChildReply);
    fn terminate_child(&self, id: String, reply: TerminateChildReply);
}

pub(crate) struct OpenDesk {
    pub(crate) desk: Arc<dyn Desk>,
    pub(crate) node: Arc<Node>,
}

/// Where a dynamic supervisor is found. It outlives the supervisor's incarnations. Clones are the same slot; a slot
/// belongs to one supervisor.
#[derive(Clone, Default)]
pub struct DynamicSlot {
    current: Arc<ArcSwapOption<OpenDesk>>,
}

impl DynamicSlot {
    /// An empty slot, for [`SupervisorSpec::dynamic`](crate::SupervisorSpec::dynamic).
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a child and waits until it is up.
    ///
    /// # Errors
    /// When it is not up; see the variants.
    pub async fn start_child(&self, spec: ChildSpec) -> Result<(), StartChildError> {
        let open = self.current.load_full().ok_or(StartChildError::NotRunning)?;
        let (reply, outcome) = oneshot::channel();
        open.desk.start_child(spec, reply);
        outcome.await.unwrap_or(Err(StartChildError::NotRunning))
    }

    /// Stops a child, as its shutdown says, waits until it is gone, and forgets it.
    ///
    /// # Errors
    /// When there is no such child or no supervisor.
    pub async fn terminate_child(&self, id: impl Into<String>) -> Result<(), TerminateChildError> {
        let open = self.current.load_full().ok_or(TerminateChildError::NotRunning)?;
        let (reply, outcome) = oneshot::channel();
        open.desk.terminate_child(id.into(), reply);
        outcome.await.unwrap_or(Err(TerminateChildError::NotRunning))
    }

    /// How many children there are now; none when the supervisor is not running. Takes time in their number.
    pub fn count_children(&self) -> ChildCounts {
        let mut counts = ChildCounts::default();
        for entry in self.children() {
            counts.specs += 1;
            counts.active += usize::from(entry.state == ActorState::Running);
            match entry.kind {
                Kind::Worker => counts.workers += 1,
                Kind::Supervisor => counts.supervisors += 1,
            }
        }
        counts
    }

    /// The children, in start order; none when the supervisor is not running.
    pub fn children(&self) -> Vec<Entry> {
        self.current.load().as_ref().map_or_else(Vec::new, |open| open.node.child_entries())
    }

    /// Whether the supervisor is there to take requests.
    pub fn is_running(&self) -> bool {
        self.current.load().is_some()
    }

    pub(crate) fn publish(&self, open: Arc<OpenDesk>) {
        self.current.store(Some(open));
    }

    pub(crate) fn clear(&self, mine: &Arc<OpenDesk>) {
        self.current.rcu(|current| match current {
            Some(open) if Arc::ptr_eq(open, mine) => None,
            other => other.clone(),
        });
    }
}

impl fmt::Debug for DynamicSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamicSlot").field("running", &self.is_running()).finish()
    }
}
