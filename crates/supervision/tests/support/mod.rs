//! Workers that do what a test tells them, and a log of the events. No test lives here.
#![allow(dead_code, unreachable_pub)] // each test file uses its part of this

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use roomcast_supervision::{
    ChildSpec, Context, Event, EventKind, ExitReason, Failure, Flow, Observer, Policies, Policy, PolicySet, Slot,
    StartError, SupervisorSpec, System, SystemOptions, Worker,
};

/// What a [`Puppet`] is told.
#[derive(Debug)]
pub enum Do {
    Crash,
    Fail,
    Stop,
    /// Never return from this handler (it awaits).
    Hang,
    /// Block the thread for this long.
    Block(Duration),
    Ping(tokio::sync::oneshot::Sender<u64>),
    /// Attach a task that ends so: `Ok(true)` vital and fine, `Ok(false)` helper and fine, `Err` fails.
    Attach(Result<bool, &'static str>),
    AttachForever(Arc<()>),
}

/// How a [`Puppet`] behaves.
#[derive(Clone, Default)]
pub struct Script {
    pub start: Arc<Mutex<Start>>,
    pub stop: Stop,
    pub drop_panics: bool,
    pub alive: Arc<AtomicUsize>,
}

#[derive(Clone, Default, PartialEq)]
pub enum Start {
    #[default]
    Well,
    Fails,
    Panics,
    Hangs,
    Declines,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub enum Stop {
    #[default]
    AtOnce,
    After(Duration),
    Hangs,
    Panics,
}

impl Script {
    pub fn starting(start: Start) -> Self {
        Self { start: Arc::new(Mutex::new(start)), ..Self::default() }
    }

    pub fn stopping(stop: Stop) -> Self {
        Self { stop, ..Self::default() }
    }

    pub fn set_start(&self, start: Start) {
        *self.start.lock().unwrap() = start;
    }

    /// Incarnations that are up or on their way down.
    pub fn living(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }
}

pub struct Puppet {
    script: Script,
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.script.alive.fetch_sub(1, Ordering::SeqCst);
        if self.script.drop_panics {
            panic!("told to panic in drop");
        }
    }
}

impl Worker for Puppet {
    type Message = Do;
    type Args = Script;

    async fn start(script: Script, _: &Context<Self>) -> Result<Self, StartError> {
        let start = script.start.lock().unwrap().clone();
        match start {
            Start::Well => {}
            Start::Fails => return Err("told to fail".into()),
            Start::Panics => panic!("told to panic in start"),
            Start::Hangs => std::future::pending().await,
            Start::Declines => return Err(StartError::ignore()),
        }
        script.alive.fetch_add(1, Ordering::SeqCst);
        Ok(Self { script })
    }

    async fn handle(&mut self, message: Do, ctx: &Context<Self>) -> Result<Flow, Failure> {
        match message {
            Do::Crash => panic!("told to crash"),
            Do::Fail => return Err("told to fail".into()),
            Do::Stop => return Ok(Flow::Stop),
            Do::Hang => std::future::pending().await,
            Do::Block(time) => std::thread::sleep(time),
            Do::Ping(reply) => drop(reply.send(ctx.generation())),
            Do::Attach(Ok(true)) => ctx.attach("task", async { Ok(()) }),
            Do::Attach(Ok(false)) => ctx.attach_helper("task", async { Ok(()) }),
            Do::Attach(Err("panic")) => ctx.attach("task", async { panic!("told to panic") }),
            Do::Attach(Err(text)) => ctx.attach("task", async move { Err(text.into()) }),
            Do::AttachForever(token) => ctx.attach("task", async move {
                let _token = token;
                std::future::pending().await
            }),
        }
        Ok(Flow::Continue)
    }

    async fn stop(&mut self) {
        match self.script.stop {
            Stop::AtOnce => {}
            Stop::After(time) => tokio::time::sleep(time).await,
            Stop::Hangs => std::future::pending().await,
            Stop::Panics => panic!("told to panic in stop"),
        }
    }
}

/// All events so far, as `path: what`.
#[derive(Clone, Default)]
pub struct Log {
    events: Arc<Mutex<Vec<Event>>>,
    bell: Arc<tokio::sync::Notify>,
}

impl Log {
    pub fn observer(&self) -> Observer {
        let log = self.clone();
        Arc::new(move |event| {
            log.events.lock().unwrap().push(event.clone());
            log.bell.notify_waiters();
        })
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.events().iter().map(line).collect()
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.events.lock().unwrap()).iter().map(line).collect()
    }

    pub fn count(&self, wanted: &str) -> usize {
        self.lines().iter().filter(|line| *line == wanted).count()
    }

    /// Waits until there have been `times` such lines.
    pub async fn wait_for(&self, wanted: &str, times: usize) {
        self.wait_until(&format!("{times} × {wanted}"), |log| log.count(wanted) >= times).await;
    }

    pub async fn wait_until(&self, what: &str, mut is: impl FnMut(&Log) -> bool) {
        let wait = async {
            loop {
                let rung = self.bell.notified();
                tokio::pin!(rung);
                rung.as_mut().enable();
                if is(self) {
                    return;
                }
                rung.await;
            }
        };
        // Long, since under paused time it passes at once when nothing else can happen.
        if tokio::time::timeout(Duration::from_secs(3600), wait).await.is_err() {
            panic!("never saw {what}; saw {:#?}", self.lines());
        }
    }
}

fn line(event: &Event) -> String {
    let what = match &event.kind {
        EventKind::Started { generation, .. } => format!("started {generation}"),
        EventKind::Exited { reason, .. } => format!("exited, {reason}"),
        EventKind::StartFailed { reason, .. } => format!("start failed, {reason}"),
        EventKind::RestartScheduled { .. } => "restart".to_owned(),
        EventKind::GaveUp => "gave up".to_owned(),
        EventKind::Abandoned => "abandoned".to_owned(),
        other => format!("{other:?}"),
    };
    format!("{}: {what}", event.path)
}

pub fn policies(change: impl FnOnce(&mut Policy)) -> Arc<Policies> {
    let mut policy = Policy::default();
    change(&mut policy);
    Arc::new(Policies::new(PolicySet::new(policy)))
}

pub fn options(log: &Log) -> SystemOptions {
    SystemOptions { observer: Some(log.observer()), ..SystemOptions::default() }
}

/// A well-behaved puppet in a slot.
pub fn puppet(id: &str, slot: &Slot<Do>) -> ChildSpec {
    scripted(id, slot, &Script::default())
}

pub fn scripted(id: &str, slot: &Slot<Do>, script: &Script) -> ChildSpec {
    let script = script.clone();
    ChildSpec::worker_in::<Puppet>(id, slot, move || script.clone())
}

pub async fn start(spec: SupervisorSpec, log: &Log) -> System {
    System::start(spec, options(log)).await.unwrap()
}

pub async fn start_with(spec: SupervisorSpec, log: &Log, change: impl FnOnce(&mut Policy)) -> System {
    let options = SystemOptions { policies: policies(change), ..options(log) };
    System::start(spec, options).await.unwrap()
}

/// The generation that answers.
pub async fn ping(slot: &Slot<Do>) -> Option<u64> {
    let (reply, answer) = tokio::sync::oneshot::channel();
    slot.send(Do::Ping(reply)).ok()?;
    answer.await.ok()
}

pub fn states(system: &System) -> Vec<String> {
    system.tree().snapshot().iter().map(|entry| format!("{} {}", entry.path, entry.state.as_str())).collect()
}

pub const SHUTDOWN: ExitReason = ExitReason::Shutdown;
