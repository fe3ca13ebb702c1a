//! How workers are reached: addresses of incarnations, and slots that outlive them. How a supervisor is reached lives in
//! `admin`; no actor lives here.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::tree::Fault;

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

    /// Gives what was there, so that the caller says when it is dropped.
    pub(crate) fn publish(&self, address: Address<M>) -> Option<Arc<Address<M>>> {
        self.current.swap(Some(Arc::new(address)))
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
