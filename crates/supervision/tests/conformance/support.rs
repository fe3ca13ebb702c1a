//! What the cases are made of: children that do as they are told, a supervisor under test, a log. No case lives here.
//!
//! Time is tokio's paused clock: it moves only when every task is idle, so [`settle`] means "whatever follows at once has
//! followed". Policies here have no backoff, as OTP has none; where a case is about waits it says so.

use std::fmt::Debug;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) use roomcast_supervision::*;
use tokio::sync::oneshot;
pub(crate) use tokio::time::Instant;

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What a child is told.
pub(crate) enum Do {
    /// Panic.
    Die,
    /// Return an error.
    Fail,
    /// End normally.
    Stop,
    /// Be busy (awaiting) for this long.
    Sleep(Duration),
    /// Say which incarnation is there.
    Ask(oneshot::Sender<u64>),
}

/// How the starts of a child go from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Well,
    Ignore,
    Fail,
    Panic,
    /// It never returns.
    Hang,
    Slowly(Duration),
}

/// How a child ends when it is asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    AtOnce,
    After(Duration),
    Never,
    Panic,
}

struct Part {
    id: String,
    slot: Slot<Do>,
    begin: Mutex<Begin>,
    end: Mutex<End>,
    incarnations: AtomicU64,
    alive: AtomicUsize,
}

/// A child and all its incarnations, which are numbered across supervisors: the number stands where OTP has a pid.
#[derive(Clone)]
pub(crate) struct Child(Arc<Part>);

pub(crate) fn child(id: &str) -> Child {
    Child(Arc::new(Part {
        id: id.to_owned(),
        slot: Slot::new(),
        begin: Mutex::new(Begin::Well),
        end: Mutex::new(End::AtOnce),
        incarnations: AtomicU64::new(0),
        alive: AtomicUsize::new(0),
    }))
}

impl Child {
    pub(crate) fn id(&self) -> &str {
        &self.0.id
    }

    /// A permanent worker with a second to stop.
    pub(crate) fn spec(&self) -> ChildSpec {
        self.bare_spec().shutdown(Shutdown::Timeout(secs(1)))
    }

    /// With nothing said but what must be.
    pub(crate) fn bare_spec(&self) -> ChildSpec {
        let me = self.clone();
        ChildSpec::worker_in::<Actor>(self.id(), &self.0.slot, move || me.clone())
    }

    /// A permanent worker whose arguments are made by `args`, so that a case can see how long that is kept.
    pub(crate) fn spec_from(&self, args: impl Fn() -> Child + Send + Sync + 'static) -> ChildSpec {
        ChildSpec::worker_in::<Actor>(self.id(), &self.0.slot, args).shutdown(Shutdown::Timeout(secs(1)))
    }

    pub(crate) fn restart(&self, restart: Restart) -> ChildSpec {
        self.spec().restart(restart)
    }

    pub(crate) fn begins(&self, how: Begin) -> &Self {
        *self.0.begin.lock().unwrap() = how;
        self
    }

    pub(crate) fn ends(&self, how: End) -> &Self {
        *self.0.end.lock().unwrap() = how;
        self
    }

    pub(crate) fn tell(&self, what: Do) {
        assert!(self.0.slot.send(what).is_ok(), "{} is not there to be told anything", self.id());
    }

    /// Which incarnation answers.
    pub(crate) async fn pid(&self) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        self.0.slot.send(Do::Ask(reply)).ok()?;
        bounded(answer).await.ok()
    }

    /// How many starts there have been.
    pub(crate) fn starts(&self) -> u64 {
        self.0.incarnations.load(Ordering::SeqCst)
    }

    /// Incarnations that are there, whatever the tree says.
    pub(crate) fn living(&self) -> usize {
        self.0.alive.load(Ordering::SeqCst)
    }
}

pub(crate) fn children(ids: &[&str]) -> Vec<Child> {
    ids.iter().map(|id| child(id)).collect()
}

pub(crate) fn specs(children: &[Child]) -> Vec<ChildSpec> {
    children.iter().map(Child::spec).collect()
}

/// The incarnations that answer.
pub(crate) async fn pids(children: &[Child]) -> Vec<Option<u64>> {
    let mut pids = Vec::new();
    for child in children {
        pids.push(child.pid().await);
    }
    pids
}

struct Actor {
    child: Child,
    pid: u64,
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.child.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Worker for Actor {
    type Message = Do;
    type Args = Child;

    async fn start(child: Child, _: &Context<Self>) -> Result<Self, StartError> {
        let pid = child.0.incarnations.fetch_add(1, Ordering::SeqCst) + 1;
        let begin = *child.0.begin.lock().unwrap();
        match begin {
            Begin::Well => {}
            Begin::Ignore => return Err(StartError::ignore()),
            Begin::Fail => return Err("told to fail".into()),
            Begin::Panic => panic!("told to panic"),
            Begin::Hang => std::future::pending().await,
            Begin::Slowly(time) => tokio::time::sleep(time).await,
        }
        child.0.alive.fetch_add(1, Ordering::SeqCst);
        Ok(Self { child, pid })
    }

    async fn handle(&mut self, message: Do, _: &Context<Self>) -> Result<Flow, Failure> {
        match message {
            Do::Die => panic!("told to die"),
            Do::Fail => return Err("told to fail".into()),
            Do::Stop => return Ok(Flow::Stop),
            Do::Sleep(time) => tokio::time::sleep(time).await,
            Do::Ask(reply) => drop(reply.send(self.pid)), // who asked may have gone
        }
        Ok(Flow::Continue)
    }

    async fn stop(&mut self) {
        let end = *self.child.0.end.lock().unwrap();
        match end {
            End::AtOnce => {}
            End::After(time) => tokio::time::sleep(time).await,
            End::Never => std::future::pending().await,
            End::Panic => panic!("told to panic when it stops"),
        }
    }
}

/// All events so far, as `path: what`; reasons as their one word. What is told of stuck actors is left out: that goes by the
/// real clock, and so by what else the machine does.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Event>>>);

impl Log {
    pub(crate) fn observer(&self) -> Observer {
        let log = self.clone();
        Arc::new(move |event| {
            if !matches!(event.kind, EventKind::Stuck { .. } | EventKind::Unstuck { .. }) {
                log.0.lock().unwrap().push(event.clone());
            }
        })
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.events().iter().map(line).collect()
    }

    /// Forgets what was.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    pub(crate) fn count(&self, wanted: &str) -> usize {
        self.lines().iter().filter(|line| *line == wanted).count()
    }

    /// The lines that end so, without that end: who it happened to, in order.
    pub(crate) fn who(&self, what: &str) -> Vec<String> {
        let end = format!(": {what}");
        self.lines().iter().filter_map(|line| line.strip_suffix(&end)).map(str::to_owned).collect()
    }

    /// Why the incarnations at `path` that were up have ended.
    pub(crate) fn exits(&self, path: &str) -> Vec<ExitReason> {
        let of = |event: &Event| match &event.kind {
            EventKind::Exited { reason, .. } if event.path.to_string() == path => Some(reason.clone()),
            _ => None,
        };
        self.events().iter().filter_map(of).collect()
    }

    /// The exits at `path` as their words.
    pub(crate) fn exit_kinds(&self, path: &str) -> Vec<&'static str> {
        self.exits(path).iter().map(ExitReason::kind).collect()
    }
}

fn line(event: &Event) -> String {
    let what = match &event.kind {
        EventKind::Started { .. } => "started".to_owned(),
        EventKind::Exited { reason, .. } => format!("exited {}", reason.kind()),
        EventKind::StartFailed { reason, .. } => format!("start failed {}", reason.kind()),
        EventKind::RestartScheduled { .. } => "restart".to_owned(),
        EventKind::GaveUp => "gave up".to_owned(),
        EventKind::Ignored { .. } => "ignored".to_owned(),
        other => format!("{other:?}"),
    };
    format!("{}: {what}", event.path)
}

/// How a child is made to end; OTP's `terminate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Normal,
    /// A panic.
    Abnormal,
    /// An error.
    Failing,
    Kill,
    /// By its supervisor's `terminate_child`.
    Supervisor,
}

/// What OTP's supervisor flags say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flags {
    strategy: Strategy,
    intensity: u32,
    period: Duration,
    auto_shutdown: AutoShutdown,
    backoff: Option<Backoff>,
}

/// Strategy, intensity, and period in seconds.
pub(crate) fn flags(strategy: Strategy, intensity: u32, period: u64) -> Flags {
    Flags { strategy, intensity, period: secs(period), auto_shutdown: AutoShutdown::Never, backoff: None }
}

/// No waits between restarts.
pub(crate) fn no_backoff() -> Backoff {
    Backoff::new(Duration::ZERO, 1.0, Duration::ZERO, 0.0).unwrap()
}

/// The same wait before each restart but the first in a row.
pub(crate) fn steady_backoff(wait: Duration) -> Backoff {
    Backoff::new(wait, 1.0, wait, 0.0).unwrap()
}

impl Flags {
    pub(crate) fn auto_shutdown(self, auto_shutdown: AutoShutdown) -> Self {
        Self { auto_shutdown, ..self }
    }

    pub(crate) fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff: Some(backoff), ..self }
    }

    pub(crate) fn policy(&self) -> Policy {
        let backoff = self.backoff.unwrap_or_else(no_backoff);
        Policy { intensity: self.intensity, period: self.period, backoff, ..Policy::default() }
    }

    /// A supervisor that is reached by `slot`.
    pub(crate) fn spec(&self, children: Vec<ChildSpec>, slot: &SupervisorSlot) -> SupervisorSpec {
        let spec = match self.strategy {
            Strategy::OneForOne => SupervisorSpec::one_for_one(children).in_slot(slot),
            Strategy::OneForAll => SupervisorSpec::one_for_all(children).in_slot(slot),
            Strategy::RestForOne => SupervisorSpec::rest_for_one(children).in_slot(slot),
            Strategy::SimpleOneForOne => SupervisorSpec::dynamic(move || children.clone(), slot),
        };
        spec.auto_shutdown(self.auto_shutdown)
    }

    /// Starts a supervisor that is its system's root.
    pub(crate) async fn start(self, children: Vec<ChildSpec>) -> Sup {
        self.try_start(children).await.unwrap()
    }

    pub(crate) async fn try_start(self, children: Vec<ChildSpec>) -> Result<Sup, StartError> {
        let slot = SupervisorSlot::new();
        start_spec(self.spec(children, &slot), slot, self.policy()).await
    }
}

/// Starts a system whose root is this.
pub(crate) async fn start_spec(spec: SupervisorSpec, slot: SupervisorSlot, policy: Policy) -> Result<Sup, StartError> {
    let (log, policies) = (Log::default(), Arc::new(Policies::new(PolicySet::new(policy))));
    let options =
        SystemOptions { policies: Arc::clone(&policies), observer: Some(log.observer()), label: "root".to_owned() };
    let system = bounded(System::start(spec, options)).await?;
    Ok(Sup { system, slot, log, policies })
}

/// A supervisor under test.
pub(crate) struct Sup {
    pub(crate) system: System,
    pub(crate) slot: SupervisorSlot,
    pub(crate) log: Log,
    pub(crate) policies: Arc<Policies>,
}

impl Debug for Sup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.tree()).finish()
    }
}

impl Sup {
    pub(crate) async fn start_child(&self, spec: ChildSpec) -> Result<Start, StartChildError> {
        bounded(self.slot.start_child(spec)).await
    }

    /// Starts a child that has to come up.
    pub(crate) async fn add(&self, spec: ChildSpec) {
        let started = self.start_child(spec).await;
        assert!(matches!(started, Ok(Start::Running)), "{started:?}");
    }

    pub(crate) async fn terminate_child(&self, id: &str) -> Result<(), TerminateChildError> {
        bounded(self.slot.terminate_child(id)).await
    }

    pub(crate) async fn restart_child(&self, id: &str) -> Result<Start, RestartChildError> {
        bounded(self.slot.restart_child(id)).await
    }

    pub(crate) async fn delete_child(&self, id: &str) -> Result<(), DeleteChildError> {
        bounded(self.slot.delete_child(id)).await
    }

    /// Makes a child end, sees that it ended so, and lets follow what follows at once.
    pub(crate) async fn terminate(&self, child: &Child, how: How) {
        let path = child.id();
        let before = self.log.exits(path).len();
        match how {
            How::Normal => child.tell(Do::Stop),
            How::Abnormal => child.tell(Do::Die),
            How::Failing => child.tell(Do::Fail),
            How::Kill => assert_eq!(self.system.tree().inject(path, Fault::Kill), Ok(1)),
            How::Supervisor => assert_eq!(self.terminate_child(path).await, Ok(())),
        }
        settle().await;
        let kind = match how {
            How::Normal => "normal",
            How::Abnormal => "panicked",
            How::Failing => "failed",
            How::Kill => "killed",
            How::Supervisor => "shutdown",
        };
        let exits = self.log.exit_kinds(path);
        assert_eq!(exits.get(before), Some(&kind), "{path} was to end once more: {exits:?}");
    }

    /// The children as `id state`, in start order.
    pub(crate) fn which(&self) -> Vec<String> {
        which(&self.slot)
    }

    pub(crate) fn counts(&self) -> [usize; 4] {
        counts(&self.slot)
    }

    /// The whole tree below the root, as `path state`.
    pub(crate) fn tree(&self) -> Vec<String> {
        let entries = self.system.tree().snapshot();
        let line = |entry: &Entry| format!("{} {}", entry.path, entry.state.as_str());
        entries.iter().skip(1).map(line).collect()
    }

    /// Whether it is up and not on its way down.
    pub(crate) async fn is_up(&self) -> bool {
        settle().await;
        self.slot.is_running() && self.system.tree().find("").is_some_and(|root| root.state == ActorState::Running)
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> ExitReason {
        bounded(self.system.wait()).await
    }

    pub(crate) async fn stop(&self) -> ExitReason {
        bounded(self.system.stop()).await
    }

    /// Stops it and sees that it ended in order and that nothing is left.
    pub(crate) async fn stop_well(&self) {
        assert_eq!(self.stop().await, ExitReason::Shutdown);
        assert!(!self.slot.is_running());
    }
}

/// The children of the supervisor in `slot`, as `id state`, in start order.
pub(crate) fn which(slot: &SupervisorSlot) -> Vec<String> {
    let line = |entry: &Entry| format!("{} {}", entry.path.name(), entry.state.as_str());
    slot.which_children().iter().map(line).collect()
}

/// Specs, active, supervisors, workers: the order in which OTP's suite has them.
pub(crate) fn counts(slot: &SupervisorSlot) -> [usize; 4] {
    let ChildCounts { specs, active, supervisors, workers, .. } = slot.count_children();
    [specs, active, supervisors, workers]
}

/// Lets everything happen that needs no time.
pub(crate) async fn settle() {
    pass(ms(1)).await;
}

/// Lets simulated time pass, and happen what happens meanwhile.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Waits for what has to come; by the paused clock a day is over at once when nothing can come any more.
pub(crate) async fn bounded<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(secs(24 * 3600), future).await.expect("this was to end, and never did")
}

/// Whether `time` is what it should be, as exactly as timers are.
#[track_caller]
pub(crate) fn assert_took(time: Duration, expected: Duration) {
    assert!(time >= expected && time < expected + ms(20), "took {time:?}, not {expected:?}");
}

pub(crate) const FIXED: [Strategy; 3] = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];
pub(crate) const RESTARTS: [Restart; 3] = [Restart::Permanent, Restart::Transient, Restart::Temporary];

/// How long this thread has been on a processor, which another load on the machine hardly changes; where the system does
/// not say, how long it has been at all.
pub(crate) fn cpu_time() -> Duration {
    use std::sync::LazyLock;
    static BEGUN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    let of_thread = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = of_thread.and_then(|text| text.split_whitespace().next()?.parse().ok());
    nanos.map_or_else(|| BEGUN.elapsed(), Duration::from_nanos)
}
