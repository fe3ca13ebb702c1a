//! A supervisor's children as its machine keeps them: by start order, by id, by timer. The books only; no decision.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use super::terms::Wait;
use super::{ChildRules, Key, Run, Token};
use crate::reason::ExitReason;

#[derive(Debug)]
pub(super) enum State {
    /// Not running, and no restart is due.
    Idle,
    Starting {
        /// It has taken too long and was killed.
        late: bool,
    },
    Running {
        since: Instant,
    },
    /// The timer says when it is started again.
    Waiting(Wait),
    Stopping {
        killed: bool,
    },
    /// It ended of itself, but parts of it (its tasks, its children) are not gone yet.
    Falling {
        /// Since when it had been up; `None` if it never was.
        since: Option<Instant>,
        reason: ExitReason,
    },
}

#[derive(Debug)]
pub(super) struct Child {
    pub(super) rules: ChildRules,
    pub(super) state: State,
    pub(super) run: Run,
    timer: Option<Instant>,
    /// Restarts in a row without a quiet period between them.
    pub(super) attempts: u32,
    /// When its current run, having been up, began to end; how long that takes is not time up.
    pub(super) leaving: Option<Instant>,
    /// It has been up before: a start is a restart.
    pub(super) begun: bool,
    /// Its first start is awaited before the supervisor is ready. Dynamic children only.
    pub(super) awaited: bool,
    /// Who waits for it to be up.
    pub(super) start_reply: Option<Token>,
    /// Its specification stays when a start fails that somebody asked for.
    pub(super) kept: bool,
    /// Who waits for it to be gone.
    pub(super) stop_replies: Vec<Token>,
}

/// See the module. Every step takes at most logarithmic time in the number of children.
#[derive(Debug, Default)]
pub(super) struct Roster {
    children: BTreeMap<Key, Child>,
    ids: HashMap<Arc<str>, Key>,
    timers: BTreeSet<(Instant, Key)>,
    /// Significant children that are not idle.
    significant: usize,
    next_key: Key,
}

impl Roster {
    /// Takes in an idle child; `None` when its id is taken. Names may repeat: a dynamic child may come back under its name
    /// while the one before is still stopping; those of fixed children are checked with their specification.
    pub(super) fn add(&mut self, rules: ChildRules) -> Option<Key> {
        if self.ids.contains_key(&rules.id) {
            return None;
        }
        let key = self.next_key;
        self.next_key += 1;
        self.ids.insert(Arc::clone(&rules.id), key);
        let child = Child {
            rules,
            state: State::Idle,
            run: 0,
            timer: None,
            attempts: 0,
            leaving: None,
            begun: false,
            awaited: false,
            start_reply: None,
            kept: true,
            stop_replies: Vec::new(),
        };
        self.children.insert(key, child);
        Some(key)
    }

    /// Lets go of a child; false when there is none.
    pub(super) fn remove(&mut self, key: Key) -> bool {
        self.set(key, State::Idle);
        self.disarm(key);
        let Some(child) = self.children.remove(&key) else {
            return false;
        };
        self.ids.remove(&child.rules.id);
        true
    }

    pub(super) fn key_of(&self, id: &str) -> Option<Key> {
        self.ids.get(id).copied()
    }

    pub(super) fn get(&self, key: Key) -> Option<&Child> {
        self.children.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Child> {
        self.children.get_mut(&key)
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.children.keys().copied().collect()
    }

    /// Those that wait to be started again.
    pub(super) fn waiting(&self) -> Vec<(Key, Wait)> {
        let wait = |(&key, child): (&Key, &Child)| match child.state {
            State::Waiting(wait) => Some((key, wait)),
            _ => None,
        };
        self.children.iter().filter_map(wait).collect()
    }

    /// The first child from `key` on.
    pub(super) fn first_from(&self, key: Key) -> Option<(Key, &Child)> {
        self.children.range(key..).next().map(|(&key, child)| (key, child))
    }

    /// The last child from `from` on that is before `below`.
    pub(super) fn last_below(&self, from: Key, below: Key) -> Option<(Key, &Child)> {
        let range = (Bound::Included(from), Bound::Excluded(below.max(from)));
        self.children.range(range).next_back().map(|(&key, child)| (key, child))
    }

    /// Changes a child's state.
    pub(super) fn set(&mut self, key: Key, state: State) {
        if let Some(child) = self.children.get_mut(&key) {
            if child.rules.significant {
                self.significant += usize::from(!matches!(state, State::Idle));
                self.significant -= usize::from(!matches!(child.state, State::Idle));
            }
            child.state = state;
        }
    }

    /// Whether any significant child is not idle.
    pub(super) fn any_significant(&self) -> bool {
        self.significant > 0
    }

    /// Sets the child's only timer.
    pub(super) fn arm(&mut self, key: Key, at: Instant) {
        self.disarm(key);
        if let Some(child) = self.children.get_mut(&key) {
            child.timer = Some(at);
            self.timers.insert((at, key));
        }
    }

    pub(super) fn disarm(&mut self, key: Key) {
        if let Some(at) = self.children.get_mut(&key).and_then(|child| child.timer.take()) {
            self.timers.remove(&(at, key));
        }
    }

    /// When the first timer is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// Takes one timer that is due at `now`.
    pub(super) fn due(&mut self, now: Instant) -> Option<Key> {
        let &(at, key) = self.timers.first()?;
        (at <= now).then(|| {
            self.disarm(key);
            key
        })
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.children.len(), self.ids.len(), self.timers.len()]
    }
}
