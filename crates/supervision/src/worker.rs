//! What a worker is, and what it is given: its context. How it runs lives in `runtime`.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::address::{Address, Control};
use crate::life::Life;
use crate::path::ActorPath;
use crate::reason::{ExitReason, Failure, StartError, dispose, failure_text, panic_text};
use crate::watchdog::{Polling, watched};

/// What a handler wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The next message.
    Continue,
    /// To end normally. Messages still in the mailbox are dropped; [`Worker::stop`] is called.
    Stop,
}

/// An actor that does work. One value is one incarnation: a restart makes a new one from new arguments.
///
/// Panics are contained in all three functions and in `Drop`. A kill takes effect at an await, so none of them may run
/// for long without one.
pub trait Worker: Sized + Send + 'static {
    /// What is put into its mailbox.
    type Message: Send + 'static;
    /// What an incarnation is made from.
    type Args: Send + 'static;

    /// Makes an incarnation. Its supervisor counts it as up, and starts the next child, when this returns. It is
    /// killed when it takes longer than [`Policy::start`](crate::Policy::start) or when a stop comes meanwhile; messages
    /// sent to [`Context::address`] are kept for after it.
    fn start(args: Self::Args, ctx: &Context<Self>) -> impl Future<Output = Result<Self, StartError>> + Send;

    /// Handles one message. An error ends the incarnation as a crash.
    fn handle(
        &mut self,
        message: Self::Message,
        ctx: &Context<Self>,
    ) -> impl Future<Output = Result<Flow, Failure>> + Send;

    /// The end of an orderly life: asked to stop, [`Flow::Stop`], or an attached task that was done. Attached tasks
    /// still run. It has the child's shutdown time. Not called on a panic, an error or a kill: owe nothing here that a
    /// guard (`Drop`) must do.
    fn stop(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// What an incarnation knows of itself.
pub struct Context<W: Worker> {
    address: Address<W::Message>,
    control: Arc<dyn Control>,
    tasks: Mutex<Option<JoinSet<()>>>,
    /// `None` once released.
    life: Option<Arc<Life>>,
    path: ActorPath,
    generation: u64,
    serial: u64,
}

impl<W: Worker> Context<W> {
    pub(crate) fn new(address: Address<W::Message>, control: Arc<dyn Control>, life: Arc<Life>) -> Self {
        Self {
            address,
            control,
            tasks: Mutex::new(None),
            path: life.node.path.clone(),
            generation: life.generation,
            serial: life.serial,
            life: Some(life),
        }
    }

    /// Where it stands in the tree.
    pub fn path(&self) -> &ActorPath {
        &self.path
    }

    /// Which incarnation of this path it is, from 1. A later one has a greater number, also when the supervisor was
    /// restarted in between. A child that was forgotten (temporary, or terminated) and comes again counts from 1; nothing
    /// of its earlier life is left then, unless a dynamic child was given another id and the same name while the one
    /// before was still stopping.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Its own address.
    pub fn address(&self) -> Address<W::Message> {
        self.address.clone()
    }

    /// Runs a task that belongs to this incarnation. The task's end is the incarnation's end: `Ok` stops it in an
    /// orderly way (exit normal), an error or a panic crashes it with that reason. When the incarnation ends in
    /// whatever way, the task is aborted, and the end is reported to the supervisor only when the task is gone.
    pub fn attach(&self, name: &'static str, task: impl Future<Output = Result<(), Failure>> + Send + 'static) {
        self.spawn(name, task, true, None);
    }

    /// As [`attach`](Self::attach), on another runtime than the actor's: its panics, its end and the actor's end mean the same.
    pub fn attach_on(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), Failure>> + Send + 'static,
        runtime: &Handle,
    ) {
        self.spawn(name, task, true, Some(runtime));
    }

    /// As [`attach`](Self::attach), but `Ok` means nothing: for tasks that may be done before the worker is.
    pub fn attach_helper(&self, name: &'static str, task: impl Future<Output = Result<(), Failure>> + Send + 'static) {
        self.spawn(name, task, false, None);
    }

    fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), Failure>> + Send + 'static,
        vital: bool,
        runtime: Option<&Handle>,
    ) {
        let Some(life) = &self.life else {
            return;
        };
        let task = Attached {
            name,
            vital,
            future: Some(Box::pin(AssertUnwindSafe(task).catch_unwind())),
            control: Arc::clone(&self.control),
            life: Arc::clone(life),
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = tasks.get_or_insert_default();
        while tasks.try_join_next().is_some() {} // let go of those that are done
        match runtime {
            Some(runtime) => tasks.spawn_on(task.run(), runtime),
            None => tasks.spawn(task.run()),
        };
    }

    pub(crate) fn record(&self, reason: ExitReason) {
        if let Some(life) = &self.life {
            life.record(reason);
        }
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn life(&self) -> Option<&Arc<Life>> {
        self.life.as_ref()
    }

    pub(crate) fn taken(&self) {
        self.address.mailbox.taken();
    }

    /// Aborts the attached tasks; each is gone at its next await.
    pub(crate) fn abort_tasks(&mut self) {
        *self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Lets go of the incarnation's life: the last thing to do.
    pub(crate) fn release(&mut self) {
        if let Some(life) = self.life.take() {
            Life::release(life);
        }
    }
}

impl<W: Worker> fmt::Debug for Context<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("path", &self.path)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

type TaskResult = Result<Result<(), Failure>, Box<dyn std::any::Any + Send>>;

/// An attached task. Its future is dropped first and its life last.
struct Attached {
    name: &'static str,
    vital: bool,
    /// `None` once dropped.
    future: Option<Pin<Box<dyn Future<Output = TaskResult> + Send>>>,
    control: Arc<dyn Control>,
    life: Arc<Life>,
}

impl Attached {
    async fn run(mut self) {
        let Some(future) = &mut self.future else { return };
        let result = watched(self.life.serial, future).await;
        let name = self.name;
        let reason = match result {
            Ok(Ok(())) if self.vital => {
                self.life.leave();
                self.control.stop();
                return;
            }
            Ok(Ok(())) => return,
            Ok(Err(error)) => ExitReason::Failed(format!("task `{name}`: {}", failure_text(error)).into()),
            Err(panic) => ExitReason::Panicked(format!("task `{name}`: {}", panic_text(panic)).into()),
        };
        self.life.record(reason);
        self.control.kill();
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _polling = Polling::begin(self.life.serial);
        dispose(self.future.take());
    }
}
