//! Child and supervisor specifications: data. What a right one is lives in `check`, how a child is started in `runtime`.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::address::Slot;
use crate::admin::SupervisorSlot;
use crate::machine::ChildRules;
use crate::reason::Failure;
use crate::runtime::{Starter, SupervisorStarter, WorkerStarter};
use crate::task::{TaskContext, TaskStarter};
use crate::worker::Worker;

/// When a child that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Restart {
    /// Always.
    Permanent,
    /// When it ended abnormally ([`ExitReason::is_abnormal`](crate::ExitReason::is_abnormal)).
    Transient,
    /// Never, not even by a sibling's strategy; it is forgotten when it ends.
    Temporary,
}

/// How a child is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shutdown {
    /// Asked, then killed after this time. Zero is allowed, as in OTP: asked, and killed unless it is gone at once.
    Timeout(Duration),
    /// Asked, and waited for without a bound. The default of supervisors, whose children have bounds.
    Infinity,
    /// Killed at once.
    Kill,
}

/// Who is restarted when a child has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// That child.
    OneForOne,
    /// All children.
    OneForAll,
    /// That child and those after it in start order.
    RestForOne,
    /// That child; the children are many alike, come and go at run time and are stopped in parallel.
    SimpleOneForOne,
}

/// Whether a supervisor ends with its significant children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AutoShutdown {
    /// No.
    Never,
    /// When one of them has ended of itself and is not restarted.
    Any,
    /// When the last of them has.
    All,
}

/// What a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Does the work.
    Worker,
    /// Has children.
    Supervisor,
}

impl Kind {
    /// `worker` or `supervisor`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Supervisor => "supervisor",
        }
    }
}

/// One child: how it is called, started, stopped and restarted. Cheap to clone.
#[derive(Clone)]
pub struct ChildSpec {
    pub(crate) rules: ChildRules,
    pub(crate) starter: Arc<dyn Starter>,
}

impl ChildSpec {
    fn new(id: impl Into<String>, kind: Kind, restart: Restart, starter: Arc<dyn Starter>) -> Self {
        let id: Arc<str> = id.into().into();
        Self {
            rules: ChildRules { name: Arc::clone(&id), id, kind, restart, shutdown: None, significant: false },
            starter,
        }
    }

    /// A permanent worker. `args` is called for each incarnation, in the new worker's own task.
    pub fn worker<W: Worker>(id: impl Into<String>, args: impl Fn() -> W::Args + Send + Sync + 'static) -> Self {
        let starter = WorkerStarter::<W>::new(Box::new(move || Some(args())), None);
        Self::new(id, Kind::Worker, Restart::Permanent, Arc::new(starter))
    }

    /// A [`worker`](Self::worker) whose address is in `slot` from the end of its start to its own end.
    pub fn worker_in<W: Worker>(
        id: impl Into<String>,
        slot: &Slot<W::Message>,
        args: impl Fn() -> W::Args + Send + Sync + 'static,
    ) -> Self {
        let starter = WorkerStarter::<W>::new(Box::new(move || Some(args())), Some(slot.clone()));
        Self::new(id, Kind::Worker, Restart::Permanent, Arc::new(starter))
    }

    /// A temporary worker of one incarnation, for arguments that cannot be made twice, such as a socket. Clones of the
    /// spec share them: only the first start succeeds.
    pub fn once<W: Worker>(id: impl Into<String>, args: W::Args) -> Self {
        Self::once_with::<W>(id, args, None)
    }

    /// [`once`](Self::once), with its address in `slot`.
    pub fn once_in<W: Worker>(id: impl Into<String>, slot: &Slot<W::Message>, args: W::Args) -> Self {
        Self::once_with::<W>(id, args, Some(slot.clone()))
    }

    fn once_with<W: Worker>(id: impl Into<String>, args: W::Args, slot: Option<Slot<W::Message>>) -> Self {
        let args = Mutex::new(Some(args));
        let take = move || args.lock().unwrap_or_else(PoisonError::into_inner).take();
        let starter = WorkerStarter::<W>::new(Box::new(take), slot);
        Self::new(id, Kind::Worker, Restart::Temporary, Arc::new(starter))
    }

    /// A permanent child that is a task and has no mailbox: see [`TaskContext`]. It counts as up when it is first polled. It runs
    /// where its supervisor does.
    pub fn task<F>(id: impl Into<String>, make: impl Fn(TaskContext) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let starter = TaskStarter::new(Box::new(move |context| Some(Box::pin(make(context)))), None);
        Self::new(id, Kind::Worker, Restart::Permanent, Arc::new(starter))
    }

    /// A temporary [`task`](Self::task) of one incarnation, on a runtime of its own choice.
    pub fn task_once<F>(
        id: impl Into<String>,
        runtime: &Handle,
        make: impl FnOnce(TaskContext) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        // Boxed, so that no room is kept for what it was made of.
        let make = Mutex::new(Some(Box::new(make)));
        let take = move |context| {
            let make = make.lock().unwrap_or_else(PoisonError::into_inner).take()?;
            Some(Box::pin(make(context)) as _)
        };
        let starter = TaskStarter::new(Box::new(take), Some(runtime.clone()));
        Self::new(id, Kind::Worker, Restart::Temporary, Arc::new(starter))
    }

    /// A permanent supervisor. `spec` is called once for each incarnation: when its own supervisor's specification is checked
    /// (before any child of that one is started), or, if only this one is restarted, in its own task. It should be quick
    /// and must not rely on what its siblings do in their starts; arguments of workers may.
    pub fn supervisor(id: impl Into<String>, spec: impl Fn() -> SupervisorSpec + Send + Sync + 'static) -> Self {
        Self::supervisor_or_ignore(id, move || Some(spec()))
    }

    /// A [`supervisor`](Self::supervisor) that declines to start when `spec` gives `None`, as a worker does with
    /// [`StartError::Ignore`](crate::StartError::Ignore).
    pub fn supervisor_or_ignore(
        id: impl Into<String>,
        spec: impl Fn() -> Option<SupervisorSpec> + Send + Sync + 'static,
    ) -> Self {
        let starter = SupervisorStarter::new(Box::new(spec));
        Self::new(id, Kind::Supervisor, Restart::Permanent, Arc::new(starter))
    }

    /// The name in the path, where it is not the id. Unique among fixed siblings; dynamic ones may share it for a moment,
    /// while one stops and the next begins.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.rules.name = name.into().into();
        self
    }

    /// When it is restarted. A child made by [`once`](Self::once) that is restarted cannot start.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.rules.restart = restart;
        self
    }

    /// How it is stopped. By default a worker has the policy's shutdown time and a supervisor all the time it needs.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.rules.shutdown = Some(shutdown);
        self
    }

    /// Its end counts for the supervisor's [`AutoShutdown`].
    #[must_use]
    pub fn significant(mut self) -> Self {
        self.rules.significant = true;
        self
    }

    /// What it is called among its siblings.
    pub fn id(&self) -> &str {
        &self.rules.id
    }

    /// Worker or supervisor.
    pub fn kind(&self) -> Kind {
        self.rules.kind
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rules.fmt(f)
    }
}

/// Gives the children that should exist now.
pub(crate) type Adopt = Box<dyn Fn() -> Vec<ChildSpec> + Send + Sync>;

/// A supervisor: its strategy and its children. Intensity, period, times and backoff are not here: they are the
/// policy's, by path, and change while running.
pub struct SupervisorSpec {
    pub(crate) strategy: Strategy,
    pub(crate) auto_shutdown: AutoShutdown,
    pub(crate) children: Vec<ChildSpec>,
    /// Dynamic only.
    pub(crate) adopt: Option<Adopt>,
    pub(crate) slot: Option<SupervisorSlot>,
}

impl SupervisorSpec {
    fn fixed(strategy: Strategy, children: Vec<ChildSpec>) -> Self {
        Self { strategy, auto_shutdown: AutoShutdown::Never, children, adopt: None, slot: None }
    }

    /// Restarts the child that ended.
    pub fn one_for_one(children: Vec<ChildSpec>) -> Self {
        Self::fixed(Strategy::OneForOne, children)
    }

    /// Restarts all children when one ended.
    pub fn one_for_all(children: Vec<ChildSpec>) -> Self {
        Self::fixed(Strategy::OneForAll, children)
    }

    /// Restarts the child that ended and those after it.
    pub fn rest_for_one(children: Vec<ChildSpec>) -> Self {
        Self::fixed(Strategy::RestForOne, children)
    }

    /// A supervisor of children that are added at run time through `slot` (simple_one_for_one).
    ///
    /// `adopt` is called at each start of this supervisor, in its own task, and gives the children that should exist
    /// now: what a store that outlives the supervisor remembers. They are started at once, side by side; one that cannot
    /// start is treated as one that crashed.
    ///
    /// As in OTP, a child that is down is forgotten: there is none to restart or delete by hand. Unlike there, the children need
    /// not be of one specification, and each has its own id.
    pub fn dynamic(adopt: impl Fn() -> Vec<ChildSpec> + Send + Sync + 'static, slot: &SupervisorSlot) -> Self {
        Self { adopt: Some(Box::new(adopt)), ..Self::fixed(Strategy::SimpleOneForOne, Vec::new()).in_slot(slot) }
    }

    /// Where it is found while it runs, to start, stop and see its children.
    #[must_use]
    pub fn in_slot(mut self, slot: &SupervisorSlot) -> Self {
        self.slot = Some(slot.clone());
        self
    }

    /// Whether it ends with its significant children; by default it never does, and a dynamic one cannot.
    #[must_use]
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.auto_shutdown = auto_shutdown;
        self
    }
}

impl fmt::Debug for SupervisorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorSpec")
            .field("strategy", &self.strategy)
            .field("auto_shutdown", &self.auto_shutdown)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}
