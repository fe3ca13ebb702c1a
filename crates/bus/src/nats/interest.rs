//! What this node wants to hear: its rooms and inboxes, whatever connection there is. What lives here: that list and its changes. What
//! does not: the subscriptions at the broker, which follow it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roomcast_protocol::{RoomId, Subject};
use tokio::sync::Notify;

use crate::buffer::Buffer;
use crate::{BufferLimits, Delivery, Letter, SubscribeError};

/// Names one subscription or inbox for the life of the bus.
pub(super) type Id = u64;

/// One thing wanted.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// A room's packets.
    Room(Subject, Arc<Buffer<Delivery>>),
    /// What is sent on some subjects.
    Inbox(Vec<Subject>, Arc<Buffer<Letter>>),
}

impl Wanted {
    fn close(&self) {
        match self {
            Self::Room(_, buffer) => buffer.close(),
            Self::Inbox(_, buffer) => buffer.close(),
        }
    }

    /// Counts what was lost on the way to the buffer.
    pub(super) fn lose(&self, count: u64) {
        match self {
            Self::Room(_, buffer) => buffer.lose(count),
            Self::Inbox(_, buffer) => buffer.lose(count),
        }
    }
}

/// All that is wanted.
#[derive(Debug, Default)]
pub(super) struct Interest {
    list: Mutex<List>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct List {
    last: Id,
    wanted: HashMap<Id, Wanted>,
    /// Which rooms are among them, by key.
    rooms: HashMap<String, Id>,
    /// What has come or gone since the last look. No more than was wanted at that look or is now.
    changes: HashSet<Id>,
    closed: bool,
}

impl Interest {
    /// No code that holds the lock leaves a change half done, so a poisoned one is as good as new.
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_room(
        &self,
        room: &RoomId,
        limits: BufferLimits,
    ) -> Result<(Id, Arc<Buffer<Delivery>>), SubscribeError> {
        let mut list = self.lock();
        if !list.closed && list.rooms.contains_key(room.key()) {
            return Err(SubscribeError::AlreadySubscribed);
        }
        let buffer = Arc::new(Buffer::new(limits));
        let id = list.add(Wanted::Room(Subject::room(room), Arc::clone(&buffer)))?;
        list.rooms.insert(room.key().to_owned(), id);
        drop(list);
        self.changed.notify_one();
        Ok((id, buffer))
    }

    pub(super) fn add_inbox(
        &self,
        subjects: Vec<Subject>,
        limits: BufferLimits,
    ) -> Result<(Id, Arc<Buffer<Letter>>), SubscribeError> {
        let buffer = Arc::new(Buffer::new(limits));
        let id = self.lock().add(Wanted::Inbox(subjects, Arc::clone(&buffer)))?;
        self.changed.notify_one();
        Ok((id, buffer))
    }

    pub(super) fn remove(&self, id: Id, room: Option<&str>) {
        let mut list = self.lock();
        // What came since the last look and is gone again was never seen.
        if list.wanted.remove(&id).is_some() && !list.changes.remove(&id) {
            list.changes.insert(id);
        }
        if let Some(room) = room
            && list.rooms.get(room) == Some(&id)
        {
            list.rooms.remove(room);
        }
        drop(list);
        self.changed.notify_one();
    }

    /// Ends everything that is wanted; nothing more is taken.
    pub(super) fn close(&self) {
        let mut list = self.lock();
        list.closed = true;
        list.rooms.clear();
        for (_, wanted) in list.wanted.drain() {
            wanted.close();
        }
    }

    /// All that is wanted now; what changed before is no longer told.
    pub(super) fn all(&self) -> Vec<(Id, Wanted)> {
        let mut list = self.lock();
        list.changes.clear();
        list.wanted.iter().map(|(id, wanted)| (*id, wanted.clone())).collect()
    }

    /// What has come (`Some`) or gone since the last look.
    pub(super) fn take_changes(&self) -> Vec<(Id, Option<Wanted>)> {
        let mut list = self.lock();
        let List { wanted, changes, .. } = &mut *list;
        changes.drain().map(|id| (id, wanted.get(&id).cloned())).collect()
    }

    /// Returns once something may have changed. Cancel-safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl List {
    fn add(&mut self, wanted: Wanted) -> Result<Id, SubscribeError> {
        if self.closed {
            return Err(SubscribeError::Closed);
        }
        self.last += 1;
        self.wanted.insert(self.last, wanted);
        self.changes.insert(self.last);
        Ok(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> RoomId {
        RoomId::parse(name).unwrap()
    }

    #[test]
    fn changes_are_told_once_and_what_came_and_went_unseen_is_not() {
        let interest = Interest::default();
        let limits = BufferLimits::default();
        let (one, _) = interest.add_room(&room("one"), limits).unwrap();
        let (two, _) = interest.add_room(&room("two"), limits).unwrap();
        interest.remove(two, Some("two"));
        let told: Vec<_> = interest.take_changes().into_iter().map(|(id, wanted)| (id, wanted.is_some())).collect();
        assert_eq!(told, [(one, true)]);
        interest.remove(one, Some("one"));
        let told: Vec<_> = interest.take_changes().into_iter().map(|(id, wanted)| (id, wanted.is_some())).collect();
        assert_eq!(told, [(one, false)]);
        assert!(interest.take_changes().is_empty());
    }

    #[test]
    fn an_outage_in_which_rooms_come_and_go_leaves_nothing_behind() {
        let interest = Interest::default();
        for _ in 0..1_000 {
            let (id, _) = interest.add_room(&room("same"), BufferLimits::default()).unwrap();
            interest.remove(id, Some("same"));
        }
        let list = interest.lock();
        assert_eq!((list.changes.len(), list.wanted.len(), list.rooms.len()), (0, 0, 0));
    }

    #[test]
    fn an_old_subscription_that_is_dropped_late_does_not_free_the_rooms_new_one() {
        let interest = Interest::default();
        let (old, _) = interest.add_room(&room("a"), BufferLimits::default()).unwrap();
        interest.remove(old, Some("a"));
        let (_new, _) = interest.add_room(&room("a"), BufferLimits::default()).unwrap();
        interest.remove(old, Some("a"));
        let again = interest.add_room(&room("a"), BufferLimits::default());
        assert!(matches!(again, Err(SubscribeError::AlreadySubscribed)));
    }
}
