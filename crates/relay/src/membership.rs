//! Who is in a room: the truth that fan-out tables are made from. What lives here: members, revisions and generations. What does not: the
//! table in use, the actor that publishes it, locks.

use std::collections::BTreeMap;

use roomcast_protocol::SessionId;

/// Why a session could not enter a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnterError {
    /// As many members as allowed are in.
    #[error("the room is full")]
    Full,
    /// The room was closed when its last member had left. A new room of the same name takes its place.
    #[error("the room is closed")]
    Closed,
    /// The session is in already. Its first entry stays; to a retry, this is success.
    #[error("the session is in the room already")]
    Present,
}

/// The members of one room, each with a handle `M` by which packets reach it.
///
/// - Every change makes a new **revision**, one higher than the last; a revision stands for one exact set of members.
/// - Every incarnation of the actor that publishes fan-out tables is a **generation**. Only the latest may publish: an older one, still
///   running after it was replaced, gets no snapshot any more.
///
/// For this to hold, take the snapshot and publish the table made of it under the same lock.
#[derive(Clone, Debug)]
pub struct Membership<M> {
    members: BTreeMap<SessionId, M>,
    revision: u64,
    generation: u64,
    closed: bool,
}

impl<M: Clone> Default for Membership<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Clone> Membership<M> {
    /// An empty room at revision 0, before its first generation.
    #[must_use]
    pub const fn new() -> Self {
        Self { members: BTreeMap::new(), revision: 0, generation: 0, closed: false }
    }

    /// Lets a session in, and says at which revision it is in.
    ///
    /// # Errors
    ///
    /// [`EnterError`]; nothing has changed then.
    pub fn enter(&mut self, session: SessionId, handle: M, max_members: usize) -> Result<u64, EnterError> {
        if self.closed {
            return Err(EnterError::Closed);
        }
        if self.members.contains_key(&session) {
            return Err(EnterError::Present);
        }
        if self.members.len() >= max_members {
            return Err(EnterError::Full);
        }
        self.members.insert(session, handle);
        self.revision += 1;
        Ok(self.revision)
    }

    /// Lets a session out, and says at which revision it is out; `None` where it was not in.
    pub fn leave(&mut self, session: SessionId) -> Option<u64> {
        self.members.remove(&session)?;
        self.revision += 1;
        Some(self.revision)
    }

    /// Begins a generation; the earlier ones may publish no more. Its number is one higher than the last.
    pub fn begin_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// The newest generation, from 1; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether this generation may publish a fan-out table.
    #[must_use]
    pub fn may_publish(&self, generation: u64) -> bool {
        generation == self.generation
    }

    /// The members, in the order of their sessions, and their revision; `None` for a generation that may not publish.
    #[must_use]
    pub fn snapshot(&self, generation: u64) -> Option<(u64, Vec<(SessionId, M)>)> {
        self.may_publish(generation)
            .then(|| (self.revision, self.members.iter().map(|(session, handle)| (*session, handle.clone())).collect()))
    }

    /// Closes the room for good if nobody is in it, at the word of a generation that may publish. False: it is open.
    pub fn close_if_empty(&mut self, generation: u64) -> bool {
        if self.may_publish(generation) && self.members.is_empty() {
            self.closed = true;
        }
        self.closed
    }

    /// Whether the room was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The revision of the members as they are now.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A member's handle.
    #[must_use]
    pub fn get(&self, session: SessionId) -> Option<&M> {
        self.members.get(&session)
    }

    /// The members, in the order of their sessions.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &M)> {
        self.members.iter().map(|(session, handle)| (*session, handle))
    }

    /// How many members are in.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
