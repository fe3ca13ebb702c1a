//! The life of one incarnation. Everything that belongs to it holds its [`Life`], its children's lives included; when the
//! last holder lets go, the end is reported, once, whatever the cause. So nobody restarts what is not gone, and nothing
//! depends on a callback that a panic or kill skips.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, SystemTime};

use crate::event::{Event, EventKind, Observer};
use crate::machine::{Key, Run};
use crate::node::Node;
use crate::path::ActorPath;
use crate::policy::Policies;
use crate::reason::{ExitReason, contain};
use crate::spec::Shutdown;
use crate::watchdog;

/// What all actors of a system share.
pub(crate) struct Shared {
    pub(crate) policies: Arc<Policies>,
    pub(crate) observer: Option<Observer>,
    watchdog: OnceLock<Thread>,
}

impl Shared {
    /// What a system begins with: its watchdog included, which looks at the tree below `root`.
    pub(crate) fn new(policies: Arc<Policies>, observer: Option<Observer>, root: &Arc<Node>) -> Arc<Self> {
        let shared = Arc::new(Self { policies, observer, watchdog: OnceLock::new() });
        if let Some(thread) = watchdog::start(&shared, root) {
            let _ = shared.watchdog.set(thread); // set once
        }
        shared
    }

    #[cfg(test)]
    pub(crate) fn watchdog(&self) -> Option<&Thread> {
        self.watchdog.get()
    }

    pub(crate) fn emit(&self, path: &ActorPath, kind: EventKind) {
        let Some(observer) = &self.observer else {
            return;
        };
        let event = Event { at: SystemTime::now(), path: path.clone(), kind };
        if !contain(|| observer(&event)) {
            tracing::error!(actor = %event.path, "the observer panicked at {:?}", event.kind);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(watchdog) = self.watchdog.get() {
            watchdog.unpark(); // to end
        }
    }
}

/// Who is told of an incarnation.
pub(crate) trait Superior: Send + Sync {
    fn started(&self, key: Key, run: Run);
    /// It begins to end, which may take long. Told once, before `fallen` and `gone`.
    fn leaving(&self, key: Key, run: Run);
    /// It has ended, but parts of it are still there.
    fn fallen(&self, key: Key, run: Run, reason: ExitReason);
    fn gone(&self, key: Key, run: Run, reason: ExitReason);
}

/// See the module.
pub(crate) struct Life {
    pub(crate) key: Key,
    pub(crate) run: Run,
    pub(crate) generation: u64,
    /// For the watchdog.
    pub(crate) serial: u64,
    pub(crate) node: Arc<Node>,
    pub(crate) shared: Arc<Shared>,
    shutdown: Option<Shutdown>,
    up: AtomicBool,
    /// It ends of itself and in order, unless something happens meanwhile.
    leaving: AtomicBool,
    /// Its supervisor knows that it has begun to end.
    ending: AtomicBool,
    reason: Mutex<Option<ExitReason>>,
    superior: Arc<dyn Superior>,
    /// The supervisor's life, which lasts as long as those of its children. Dropped after the report.
    _parent: Option<Arc<Life>>,
}

impl Life {
    /// Begins the next incarnation at `node`.
    pub(crate) fn begin(
        (key, run): (Key, Run),
        node: Arc<Node>,
        shutdown: Option<Shutdown>,
        shared: Arc<Shared>,
        superior: Arc<dyn Superior>,
        parent: Option<Arc<Life>>,
    ) -> Arc<Self> {
        let serial = watchdog::next_serial();
        Arc::new(Self {
            key,
            run,
            generation: node.begin(serial),
            serial,
            node,
            shared,
            shutdown,
            up: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            reason: Mutex::new(None),
            superior,
            _parent: parent,
        })
    }

    /// Does `act`, which shows this incarnation to others, unless it was abandoned and another is in its place.
    pub(crate) fn publish<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        self.node.if_current(self.generation, act)
    }

    /// It is up. One that was abandoned, and comes up beside its successor, is not counted.
    pub(crate) fn up(&self) {
        if self.publish(|| ()).is_none() {
            return;
        }
        let after = self.node.up(self.generation);
        self.up.store(true, Ordering::Release);
        let generation = self.generation;
        self.shared.emit(&self.node.path, EventKind::Started { generation, after });
        self.superior.started(self.key, self.run);
    }

    /// Notes why it ends. The first reason stays, but a crash outweighs an orderly end.
    pub(crate) fn record(&self, reason: ExitReason) {
        self.ends();
        let mut slot = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            None => *slot = Some(reason),
            Some(earlier) if reason.is_abnormal() && !earlier.is_abnormal() => *slot = Some(reason),
            Some(_) => {}
        }
    }

    /// It begins to end of itself. How that ends is not known yet: a kill on the way is a kill.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.ends();
    }

    /// It begins to end, for whatever reason.
    pub(crate) fn ends(&self) {
        if !self.ending.swap(true, Ordering::AcqRel) {
            self.superior.leaving(self.key, self.run);
        }
    }

    /// Its orderly end has come to its end.
    pub(crate) fn stopped(&self) {
        let leaving = self.leaving.load(Ordering::Acquire);
        self.record(if leaving { ExitReason::Normal } else { ExitReason::Shutdown });
    }

    /// The actor stops in an orderly way. When it does so of itself, nobody watches how long that takes: gives the bound
    /// that it has to keep.
    pub(crate) fn stop_bound(&self) -> Option<Duration> {
        if !self.leaving.load(Ordering::Acquire) {
            return None; // asked by its supervisor, which watches
        }
        match self.shutdown {
            Some(Shutdown::Timeout(time)) => Some(time),
            Some(Shutdown::Infinity) => None,
            Some(Shutdown::Kill) | None => Some(self.shared.policies.policy(&self.node.path.parent()).shutdown),
        }
    }

    /// An end without a reason was a kill.
    fn reason(&self) -> ExitReason {
        let slot = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone().unwrap_or(ExitReason::Killed)
    }

    /// The actor itself has ended.
    pub(crate) fn release(life: Arc<Self>) {
        // A holder that goes between the question and the drop only makes this notice superfluous.
        if Arc::strong_count(&life) > 1 {
            life.superior.fallen(life.key, life.run, life.reason());
        }
        drop(life); // reports the end, unless somebody still holds it
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let (reason, generation) = (self.reason(), self.generation);
        self.node.down(generation, &reason);
        let kind = match &reason {
            _ if *self.up.get_mut() => EventKind::Exited { generation, reason: reason.clone() },
            ExitReason::Ignored => EventKind::Ignored { generation },
            _ => EventKind::StartFailed { generation, reason: reason.clone() },
        };
        self.shared.emit(&self.node.path, kind);
        self.superior.gone(self.key, self.run, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Superior for Nobody {
        fn started(&self, _: Key, _: Run) {}
        fn leaving(&self, _: Key, _: Run) {}
        fn fallen(&self, _: Key, _: Run, _: ExitReason) {}
        fn gone(&self, _: Key, _: Run, _: ExitReason) {}
    }

    fn begin(run: Run, node: &Arc<Node>, shared: &Arc<Shared>) -> Arc<Life> {
        Life::begin((7, run), Arc::clone(node), None, Arc::clone(shared), Arc::new(Nobody), None)
    }

    #[test]
    fn an_abandoned_start_that_returns_late_shows_itself_to_nobody() {
        let root = Node::root(ActorPath::root("root"));
        let node = root.place(7, "a", crate::spec::Kind::Worker, &mut std::collections::HashMap::new());
        let events = Arc::<Mutex<Vec<EventKind>>>::default();
        let log = Arc::clone(&events);
        let observer: Observer = Arc::new(move |event| log.lock().unwrap().push(event.kind.clone()));
        let shared = Shared::new(Arc::default(), Some(observer), &root);
        let late = begin(1, &node, &shared);
        assert!(late.publish(|| ()).is_some());
        let next = begin(2, &node, &shared);
        assert!(late.publish(|| ()).is_none());
        late.up();
        assert_eq!(*events.lock().unwrap(), []);
        drop(late);
        let failed = EventKind::StartFailed { generation: 1, reason: ExitReason::Killed };
        assert_eq!(*events.lock().unwrap(), [failed]);
        root.remove(7);
        assert!(next.publish(|| ()).is_none(), "another may be where it was");
    }
}
