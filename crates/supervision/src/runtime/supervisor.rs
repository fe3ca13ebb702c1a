//! A supervisor as a ractor actor: it tells its [`Machine`] what happens and does what that decides.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use futures_util::FutureExt;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::requests::Waiter;
use super::{Spawning, Starter};
use crate::address::Control;
use crate::admin::{Desk, OpenDesk, Request, SupervisorSlot};
use crate::check::{self, SpecError};
use crate::event::EventKind;
use crate::life::{Life, Superior};
use crate::machine::{Action, ChildRules, Key, Machine, Now, Run, Token};
use crate::node::Node;
use crate::path::ActorPath;
use crate::reason::{ExitReason, dispose, panic_text};
use crate::spec::{ChildSpec, SupervisorSpec};
use crate::tree::Fault;
use crate::watchdog::watched;

/// Makes the specification of an incarnation; `None` when the supervisor declines to start.
type MakeSpec = Box<dyn Fn() -> Option<SupervisorSpec> + Send + Sync>;

/// Starts incarnations of a supervisor.
pub(crate) struct SupervisorStarter {
    make: Arc<MakeSpec>,
    /// Made and checked for the incarnation that is about to start, with all below it.
    prepared: Mutex<Option<Option<SupervisorSpec>>>,
}

impl SupervisorStarter {
    pub(crate) fn new(make: MakeSpec) -> Self {
        Self { make: Arc::new(make), prepared: Mutex::new(None) }
    }

    fn prepared(&self) -> MutexGuard<'_, Option<Option<SupervisorSpec>>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner) // one write, which is whole or not there
    }
}

impl Starter for SupervisorStarter {
    fn prepare(&self, path: &ActorPath) -> Result<(), check::Fault> {
        let fault = |error| check::Fault { path: path.clone(), error };
        if path.segments().count() > check::MAX_DEPTH {
            return Err(fault(SpecError::TooDeep));
        }
        let spec = catch_unwind(AssertUnwindSafe(|| (self.make)()))
            .map_err(|panic| fault(SpecError::Panicked(panic_text(panic).to_string())))?;
        if let Some(spec) = &spec {
            spec.check_all(path)?;
        }
        *self.prepared() = Some(spec);
        Ok(())
    }

    fn spawn(&self, life: Arc<Life>, supervisor: Option<ActorCell>) -> Spawning {
        let plan = match self.prepared().take() {
            Some(spec) => Plan::Given(spec.map(Box::new)),
            None => Plan::Made(Arc::clone(&self.make)),
        };
        Box::pin(start(plan, life, supervisor))
    }
}

/// Spawns the root, which lives once and has no supervisor. Its specification has been checked.
pub(crate) async fn start_root(spec: SupervisorSpec, life: Arc<Life>) -> Option<Arc<dyn Control>> {
    start(Plan::Given(Some(Box::new(spec))), life, None).await
}

async fn start(plan: Plan, life: Arc<Life>, supervisor: Option<ActorCell>) -> Option<Arc<dyn Control>> {
    let control = Arc::new(OnceLock::new());
    let seat = Seat { life, plan, control: Arc::clone(&control) };
    super::spawn(SupervisorActor, seat, supervisor).await?;
    control.get().cloned()
}

enum Plan {
    /// Checked, with all below it; `None`: it declines to start.
    Given(Option<Box<SupervisorSpec>>),
    Made(Arc<MakeSpec>),
}

enum Message {
    Started(Key, Run),
    Leaving(Key, Run),
    Fallen(Key, Run, ExitReason),
    Gone(Key, Run, ExitReason),
    Tick,
    Ask(Request),
    Shutdown,
    Fault(Fault),
}

struct Desktop {
    actor: ActorRef<Message>,
    depth: AtomicUsize,
}

impl Desktop {
    /// A message to a dead supervisor is dropped: its children die with it, and replies are dropped, which tells.
    fn put(&self, message: Message) {
        self.depth.fetch_add(1, Ordering::Relaxed);
        if self.actor.send_message(message).is_err() {
            self.depth.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Control for Desktop {
    /// Not ractor's stop, after which an actor serves no messages: stopping children is serving messages.
    fn stop(&self) {
        self.put(Message::Shutdown);
    }

    fn kill(&self) {
        self.actor.kill();
    }

    fn inject(&self, fault: Fault) {
        match fault {
            Fault::Kill => self.actor.kill(),
            fault => self.put(Message::Fault(fault)),
        }
    }

    fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    fn is_alive(&self) -> bool {
        self.actor.get_status() <= ActorStatus::Running
    }
}

impl Superior for Desktop {
    fn started(&self, key: Key, run: Run) {
        self.put(Message::Started(key, run));
    }

    fn leaving(&self, key: Key, run: Run) {
        self.put(Message::Leaving(key, run));
    }

    fn fallen(&self, key: Key, run: Run, reason: ExitReason) {
        self.put(Message::Fallen(key, run, reason));
    }

    fn gone(&self, key: Key, run: Run, reason: ExitReason) {
        self.put(Message::Gone(key, run, reason));
    }
}

impl Desk for Desktop {
    fn ask(&self, request: Request) {
        self.put(Message::Ask(request));
    }
}

/// What is kept for a child beside what the machine knows.
pub(super) struct Record {
    pub(super) starter: Arc<dyn Starter>,
    shutdown: Option<crate::spec::Shutdown>,
    node: Arc<Node>,
    /// The current incarnation.
    control: Option<Arc<dyn Control>>,
}

struct Seat {
    life: Arc<Life>,
    plan: Plan,
    control: Arc<OnceLock<Arc<dyn Control>>>,
}

/// A running supervisor.
pub(super) struct Office {
    desk: Arc<Desktop>,
    /// `None` once released.
    life: Option<Arc<Life>>,
    serial: u64,
    pub(super) node: Arc<Node>,
    plan: Option<Plan>,
    pub(super) machine: Machine,
    pub(super) records: HashMap<Key, Record>,
    pub(super) waiters: HashMap<Token, Waiter>,
    pub(super) next_token: Token,
    alarm: Option<(Instant, AbortHandle)>,
    /// Replacements of the policies.
    changes: watch::Receiver<()>,
    open: Option<(SupervisorSlot, Arc<OpenDesk>)>,
    /// Dropped with all this, which tells those who wait for an answer.
    over: watch::Sender<()>,
    pub(super) auto_shutdown: crate::spec::AutoShutdown,
}

impl Office {
    fn now(&self) -> Now {
        let policy = self.life.as_ref().map(|life| life.shared.policies.policy(&self.node.path)).unwrap_or_default();
        Now { at: tokio::time::Instant::now().into_std(), policy }
    }

    /// Drops specifications and what goes with them. They hold what others wrote, whose drop may panic.
    pub(super) fn let_go<T>(&self, what: T) {
        if !dispose(what) {
            tracing::error!(actor = %self.node.path, "a child specification panicked when it was dropped");
        }
    }

    fn emit(&self, path: &ActorPath, kind: EventKind) {
        if let Some(life) = &self.life {
            life.shared.emit(path, kind);
        }
    }

    /// Reads the specification and begins to start the children.
    async fn begin(&mut self, myself: &ActorRef<Message>) -> Result<(), ExitReason> {
        let (spec, mut checked) = match self.plan.take() {
            Some(Plan::Given(spec)) => (spec.map(|spec| *spec), true),
            Some(Plan::Made(make)) => (make(), false),
            None => return Err(ExitReason::Failed("it has begun already".into())),
        };
        let mut spec = spec.ok_or(ExitReason::Ignored)?;
        if let Some(adopt) = &spec.adopt {
            spec.children = adopt();
            checked = false;
        }
        if !checked {
            spec.check_all(&self.node.path).map_err(|check::Fault { path, error }| {
                ExitReason::Failed(format!("supervisor `{path}`: {error}").into())
            })?;
        }
        self.machine = Machine::new(spec.strategy, spec.auto_shutdown, fastrand::u64(..));
        self.auto_shutdown = spec.auto_shutdown;
        let mut former = self.node.take_children();
        for child in spec.children {
            // Cannot be refused: the ids were checked, and nothing has ended it yet.
            if let Ok(key) = self.machine.declare(child.rules.clone()) {
                self.keep(key, child, &mut former);
            }
        }
        self.let_go(former);
        if let Some(slot) = spec.slot {
            let open = Arc::new(OpenDesk {
                desk: Arc::clone(&self.desk) as Arc<dyn Desk>,
                node: Arc::clone(&self.node),
                over: self.over.subscribe(),
            });
            if let Some(life) = &self.life {
                drop(life.publish(|| slot.publish(Arc::clone(&open))));
            }
            self.open = Some((slot, open));
        }
        let now = self.now();
        self.machine.begin(now);
        self.act(myself).await;
        Ok(())
    }

    pub(super) fn keep(&mut self, key: Key, child: ChildSpec, former: &mut HashMap<ActorPath, Arc<Node>>) {
        let ChildRules { name, kind, shutdown, .. } = child.rules;
        let record =
            Record { starter: child.starter, shutdown, node: self.node.place(key, &name, kind, former), control: None };
        self.records.insert(key, record);
    }

    async fn receive(&mut self, message: Message, myself: &ActorRef<Message>) {
        let revised = self.changes.has_changed().unwrap_or(false); // the sender lives as long as the system
        if revised {
            self.changes.mark_unchanged(); // before the policy is looked up, so that no replacement is missed
        }
        let now = self.now();
        if revised {
            self.machine.revise(now);
        }
        match message {
            Message::Started(key, run) => self.machine.started(key, run, now),
            Message::Leaving(key, run) => self.machine.leaving(key, run, now),
            Message::Fallen(key, run, reason) => self.machine.fallen(key, run, reason, now),
            Message::Gone(key, run, reason) => self.machine.gone(key, run, reason, now),
            Message::Tick => {
                self.alarm = None;
                self.machine.tick(now);
            }
            Message::Ask(request) => self.serve(request, now),
            Message::Shutdown => self.machine.shutdown(now),
            Message::Fault(Fault::Stall(time)) => tokio::time::sleep(time).await,
            Message::Fault(Fault::Panic | Fault::Kill) => panic!("injected"),
        }
        self.act(myself).await;
    }

    /// Does what the machine has decided.
    async fn act(&mut self, myself: &ActorRef<Message>) {
        // Before the children are brought down: how long that takes is no time up.
        if let Some(life) = self.life.as_ref().filter(|_| self.machine.ending()) {
            life.ends();
        }
        while let Some(action) = self.machine.next_action() {
            match action {
                Action::Start { key, run } => self.spawn(key, run, myself).await,
                Action::Stop { key } => self.command(key, |control| control.stop()),
                Action::Kill { key } => self.command(key, |control| control.kill()),
                Action::Abandon { key } => {
                    if let Some(record) = self.records.get_mut(&key) {
                        record.control = None;
                        let path = record.node.path.clone();
                        tracing::error!(actor = %path, "does not end though killed: something in it never awaits");
                        self.emit(&path, EventKind::Abandoned);
                    }
                }
                Action::Due { key } => {
                    if let Some(record) = self.records.get_mut(&key) {
                        record.control = None;
                        record.node.due();
                    }
                }
                Action::Rests { key } => {
                    if let Some(record) = self.records.get_mut(&key) {
                        record.control = None;
                        record.node.rest();
                    }
                }
                Action::Revised { key, left } => {
                    if let Some(record) = self.records.get(&key) {
                        record.node.resume_in(left);
                    }
                }
                Action::Scheduled { key, reason, delay, attempt } => {
                    if let Some(record) = self.records.get_mut(&key) {
                        record.control = None;
                        record.node.restarting(delay, attempt);
                        let path = record.node.path.clone();
                        self.emit(&path, EventKind::RestartScheduled { reason, delay });
                    }
                }
                Action::Forget { key } => {
                    let record = self.records.remove(&key);
                    self.node.remove(key);
                    self.let_go(record);
                }
                Action::Ready => {
                    if let Some(life) = &self.life {
                        life.up();
                    }
                }
                Action::GaveUp => self.emit(&self.node.path, EventKind::GaveUp),
                Action::Reply { token, outcome } => self.reply(token, outcome),
                Action::End(reason) => {
                    if let Some(life) = &self.life {
                        life.record(reason);
                    }
                    myself.stop(None);
                }
            }
        }
        self.set_alarm();
    }

    async fn spawn(&mut self, key: Key, run: Run, myself: &ActorRef<Message>) {
        let (Some(record), Some(mine)) = (self.records.get_mut(&key), &self.life) else {
            return;
        };
        let superior = Arc::clone(&self.desk) as Arc<dyn Superior>;
        let life = Life::begin(
            (key, run),
            Arc::clone(&record.node),
            record.shutdown,
            Arc::clone(&mine.shared),
            superior,
            Some(Arc::clone(mine)),
        );
        record.control = record.starter.spawn(life, Some(myself.get_cell())).await;
    }

    fn command(&self, key: Key, command: impl FnOnce(&dyn Control)) {
        if let Some(record) = self.records.get(&key) {
            record.node.stopping();
            if let Some(control) = &record.control {
                command(&**control);
            }
        }
    }

    /// One timer for all that is due; a timer that comes too early does no harm, so it is moved only forward.
    fn set_alarm(&mut self) {
        let Some(deadline) = self.machine.deadline() else {
            return;
        };
        match &self.alarm {
            Some((set, _)) if *set <= deadline => return,
            Some((_, task)) => task.abort(),
            None => {}
        }
        let desk = Arc::downgrade(&self.desk);
        let mut changes = self.changes.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => {}
                // Another policy may make the wait shorter; whoever waits for nothing need not know of it.
                _ = changes.changed() => {}
            }
            if let Some(desk) = desk.upgrade() {
                desk.put(Message::Tick);
            }
        });
        self.alarm = Some((deadline, task.abort_handle()));
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        if let Some((slot, open)) = self.open.take() {
            slot.clear(&open);
        }
        if let Some((_, task)) = self.alarm.take() {
            task.abort();
        }
        self.node.rest_children();
        // ractor kills linked children too, but not those that are just in their orderly stop.
        for control in self.records.values().filter_map(|record| record.control.as_ref()) {
            control.kill();
        }
        let (records, waiters) = (std::mem::take(&mut self.records), std::mem::take(&mut self.waiters));
        self.let_go((records, waiters));
        if let Some(life) = self.life.take() {
            Life::release(life);
        }
    }
}

struct SupervisorActor;

impl Actor for SupervisorActor {
    type Msg = Message;
    type State = Option<Office>;
    type Arguments = Seat;

    async fn pre_start(&self, myself: ActorRef<Message>, seat: Seat) -> Result<Self::State, ActorProcessingErr> {
        let desk = Arc::new(Desktop { actor: myself, depth: AtomicUsize::new(0) });
        let control: Arc<dyn Control> = desk.clone();
        seat.life.node.reachable(seat.life.generation, Arc::clone(&control));
        let _ = seat.control.set(control); // set once: a seat is taken once
        Ok(Some(Office {
            desk,
            node: Arc::clone(&seat.life.node),
            changes: seat.life.shared.policies.changes(),
            serial: seat.life.serial,
            life: Some(seat.life),
            plan: Some(seat.plan),
            machine: Machine::new(crate::spec::Strategy::OneForOne, crate::spec::AutoShutdown::Never, 0),
            records: HashMap::new(),
            waiters: HashMap::new(),
            next_token: 0,
            alarm: None,
            open: None,
            over: watch::Sender::new(()),
            auto_shutdown: crate::spec::AutoShutdown::Never,
        }))
    }

    async fn post_start(&self, myself: ActorRef<Message>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        let Some(office) = state else { return Ok(()) };
        let reason = match watched(office.serial, AssertUnwindSafe(office.begin(&myself)).catch_unwind()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => reason,
            Err(panic) => ExitReason::Panicked(panic_text(panic)),
        };
        fail(office, reason)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let Some(office) = state else { return Ok(()) };
        office.desk.depth.fetch_sub(1, Ordering::Relaxed);
        match watched(office.serial, AssertUnwindSafe(office.receive(message, &myself)).catch_unwind()).await {
            Ok(()) => Ok(()),
            Err(panic) => fail(office, ExitReason::Panicked(panic_text(panic))),
        }
    }

    async fn post_stop(&self, _: ActorRef<Message>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        drop(state.take());
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Message>,
        _: SupervisionEvent,
        _: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// Ends the supervisor as a crash: ractor then kills its children.
fn fail(office: &Office, reason: ExitReason) -> Result<(), ActorProcessingErr> {
    let text = reason.to_string();
    if let Some(life) = &office.life {
        life.record(reason);
    }
    Err(text.into())
}
