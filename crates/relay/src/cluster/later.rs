//! Changes of a roster that came before what they follow: kept for a while, within bounds, until the rest has come.

use std::collections::VecDeque;
use std::time::Duration;

use super::MAX_ENTRIES;
use super::wire::Change;
use crate::Time;

/// Changes of twelve seconds, at the pace at which they are told: longer than a whole roster is on its way.
const MAX_CHANGES: usize = 256;
/// Longer than a whole roster is waited for; what does not fit then, fits nothing.
const KEPT: Duration = Duration::from_secs(10);

/// The oldest first.
#[derive(Debug, Default)]
pub(super) struct Later {
    changes: VecDeque<(Time, Change)>,
    /// Members in all of them.
    members: usize,
}

impl Later {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Keeps a change; those before it that there is no room for are part of the whole roster that is asked for.
    pub(super) fn keep(&mut self, change: Change, now: Time) {
        self.members += change.members();
        self.changes.push_back((now, change));
        while self.changes.len() > MAX_CHANGES || (self.members > MAX_ENTRIES && self.changes.len() > 1) {
            self.forget_first();
        }
    }

    /// The change that follows a revision, if it is here. What comes before that revision is forgotten.
    pub(super) fn take(&mut self, known: u64) -> Option<Change> {
        self.changes.retain(|(_, change)| change.to > known);
        let next = self.changes.iter().position(|(_, change)| change.from == known);
        let next = next.and_then(|next| self.changes.remove(next));
        self.members = self.changes.iter().map(|(_, change)| change.members()).sum();
        next.map(|(_, change)| change)
    }

    pub(super) fn forget_old(&mut self, now: Time) {
        while self.changes.front().is_some_and(|(kept, _)| now.since(*kept) > KEPT) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, change)) = self.changes.pop_front() {
            self.members -= change.members();
        }
    }
}
