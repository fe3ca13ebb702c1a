//! A child that is one task and nothing else: supervised as a worker is, and without a mailbox. Such a child costs a fraction of a
//! worker's memory, most of which is mailboxes: for children of which there are thousands and to whom nobody writes.
//!
//! What lives here: the task, what it is told, and how it is stopped and killed. No actor of ractor's lives here.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use ractor::ActorCell;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::address::Control;
use crate::life::Life;
use crate::reason::{ExitReason, Failure, dispose, failure_text, panic_text};
use crate::runtime::{Spawning, Starter};
use crate::tree::Fault;
use crate::watchdog::{Polling, watched};

type BoxedTask = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Makes the future of an incarnation; `None` when what it is made of is used up.
pub(crate) type MakeTask = Box<dyn Fn(TaskContext) -> Option<BoxedTask> + Send + Sync>;

/// What an incarnation of a task is told.
pub struct TaskContext {
    control: Arc<TaskControl>,
}

impl TaskContext {
    /// Waits until the supervisor asks it to stop. It has the child's shutdown time from then on, and is killed after that. To
    /// return is to stop.
    pub async fn stopping(&self) {
        let mut asked = pin!(self.control.stop.notified());
        asked.as_mut().enable();
        // Looked at after the enabling, so that none is missed between the two.
        if !self.control.stopping.load(Ordering::Acquire) {
            asked.await;
        }
    }
}

#[derive(Default)]
struct TaskControl {
    task: OnceLock<AbortHandle>,
    killed: AtomicBool,
    ended: AtomicBool,
    stopping: AtomicBool,
    stop: Notify,
    /// A fault to act out at the next poll.
    fault: Mutex<Option<Fault>>,
    faulty: AtomicBool,
    waker: AtomicWaker,
}

impl Control for TaskControl {
    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.stop.notify_waiters();
    }

    fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    fn inject(&self, fault: Fault) {
        if matches!(fault, Fault::Kill) {
            return self.kill();
        }
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        self.faulty.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn depth(&self) -> usize {
        0
    }

    fn is_alive(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }
}

impl TaskControl {
    /// Runs a task's future until it is done, and acts out the faults that are injected meanwhile.
    async fn act(
        &self,
        mut future: Pin<&mut (dyn Future<Output = Result<(), Failure>> + Send)>,
    ) -> Result<(), Failure> {
        loop {
            let done = poll_fn(|cx| {
                self.waker.register(cx.waker());
                if self.faulty.swap(false, Ordering::AcqRel) {
                    return Poll::Ready(None);
                }
                future.as_mut().poll(cx).map(Some)
            });
            if let Some(result) = done.await {
                return result;
            }
            let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
            match fault {
                Some(Fault::Stall(time)) => tokio::time::sleep(time).await,
                Some(Fault::Panic | Fault::Kill) => panic!("injected"),
                None => {}
            }
        }
    }
}

/// Starts incarnations of a task.
pub(crate) struct TaskStarter {
    make: Arc<MakeTask>,
    /// Where it runs; `None`: where its supervisor does.
    runtime: Option<Handle>,
}

impl TaskStarter {
    pub(crate) fn new(make: MakeTask, runtime: Option<Handle>) -> Self {
        Self { make: Arc::new(make), runtime }
    }
}

impl Starter for TaskStarter {
    fn spawn(&self, life: Arc<Life>, _: Option<ActorCell>) -> Spawning {
        let make = Arc::clone(&self.make);
        let runtime = self.runtime.clone().unwrap_or_else(Handle::current);
        Box::pin(async move {
            let control = Arc::new(TaskControl::default());
            let shown: Arc<dyn Control> = control.clone();
            life.node.reachable(life.generation, Arc::clone(&shown));
            let task = Running { make: Some(make), future: None, control: Arc::clone(&control), life: Some(life) };
            let handle = runtime.spawn(task.run()).abort_handle();
            let _ = control.task.set(handle); // set once
            if control.killed.load(Ordering::SeqCst) {
                control.kill();
            }
            Some(shown)
        })
    }
}

/// A running incarnation. Its future is dropped first and its life last.
struct Running {
    /// Let go of once the future is made: it may hold what the future took.
    make: Option<Arc<MakeTask>>,
    /// `None` before it is made and once it is dropped.
    future: Option<BoxedTask>,
    control: Arc<TaskControl>,
    life: Option<Arc<Life>>,
}

impl Running {
    async fn run(mut self) {
        let Some(serial) = self.life.as_ref().map(|life| life.serial) else { return };
        let result = watched(serial, AssertUnwindSafe(self.live()).catch_unwind()).await;
        let Some(life) = &self.life else { return };
        match result {
            Ok(Ok(())) => {
                if !self.control.stopping.load(Ordering::Acquire) {
                    life.leave();
                }
                self.let_go();
                if let Some(life) = &self.life {
                    life.stopped();
                }
            }
            Ok(Err(error)) => life.record(ExitReason::Failed(failure_text(error).into())),
            Err(panic) => life.record(ExitReason::Panicked(panic_text(panic))),
        }
    }

    async fn live(&mut self) -> Result<(), Failure> {
        let context = TaskContext { control: Arc::clone(&self.control) };
        let made = self.make.take().and_then(|make| make(context));
        let future = self.future.insert(made.ok_or("it was made for one incarnation only")?);
        if let Some(life) = &self.life {
            life.up();
        }
        self.control.act(future.as_mut()).await
    }

    /// Drops the future, which others wrote.
    fn let_go(&mut self) {
        let Some(life) = &self.life else { return };
        let _polling = Polling::begin(life.serial);
        if !dispose(self.future.take()) {
            life.record(ExitReason::Panicked("a panic as its task was dropped".into()));
        }
        dispose(self.make.take());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control.ended.store(true, Ordering::Release);
        if let Some(life) = &self.life {
            life.ends(); // if nothing was recorded: a kill
        }
        self.let_go();
        if let Some(life) = self.life.take() {
            Life::release(life);
        }
    }
}
