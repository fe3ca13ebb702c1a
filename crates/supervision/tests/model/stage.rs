//! The real thing: a [`System`] made from a case, workers that do what the case plans, and what is seen of them. It judges
//! nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use roomcast_supervision::{
    Backoff, ChildCounts, ChildSpec, Context, DeleteChildError, Entry, Failure, Fault, Flow, PathPattern, Policies,
    Policy, PolicyPatch, PolicySet, RestartChildError, Slot, Start, StartChildError, StartError, Strategy,
    SupervisorSlot, SupervisorSpec, System, SystemOptions, TerminateChildError, Worker,
};

use crate::calls::{Answer, Row};
use crate::world::{self, Body, Millis, Plan, Reason, SLOW, Spec, join};

/// What a worker is told.
pub enum Do {
    Stop,
    Fail,
    Panic,
}

/// What workers share with the driver.
#[derive(Default)]
pub struct Backstage {
    pub plans: Mutex<BTreeMap<String, VecDeque<Plan>>>,
    log: Mutex<Vec<String>>,
    slots: Mutex<BTreeMap<String, Slot<Do>>>,
    desks: Mutex<BTreeMap<String, SupervisorSlot>>,
}

impl Backstage {
    fn note(&self, mark: &str, path: &str, generation: u64) {
        self.log.lock().unwrap().push(format!("{mark} {path}#{generation}"));
    }

    fn slot(&self, path: &str) -> Slot<Do> {
        self.slots.lock().unwrap().entry(path.to_owned()).or_default().clone()
    }

    pub fn desk(&self, path: &str) -> SupervisorSlot {
        self.desks.lock().unwrap().entry(path.to_owned()).or_default().clone()
    }

    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

struct Puppet {
    backstage: Arc<Backstage>,
    path: String,
    generation: u64,
    stopping: Option<Millis>,
    stopped: bool,
}

impl Worker for Puppet {
    type Message = Do;
    type Args = (Arc<Backstage>, Option<Millis>);

    async fn start((backstage, stopping): Self::Args, ctx: &Context<Self>) -> Result<Self, StartError> {
        let (path, generation) = (ctx.path().as_str().to_owned(), ctx.generation());
        let plan = backstage.plans.lock().unwrap().get_mut(&path).and_then(VecDeque::pop_front);
        match plan.unwrap_or(Plan::Well) {
            Plan::Well => backstage.note("up", &path, generation),
            Plan::Slow => {
                backstage.note("begins", &path, generation);
                tokio::time::sleep(Duration::from_millis(SLOW)).await;
            }
            Plan::Fail => {
                backstage.note("fails", &path, generation);
                return Err("told to fail".into());
            }
            Plan::Panic => {
                backstage.note("panics", &path, generation);
                panic!("told to panic");
            }
            Plan::Ignore => {
                backstage.note("declines", &path, generation);
                return Err(StartError::ignore());
            }
            Plan::Hang => {
                backstage.note("hangs", &path, generation);
                std::future::pending::<()>().await;
            }
        }
        Ok(Self { backstage, path, generation, stopping, stopped: false })
    }

    async fn handle(&mut self, message: Do, _: &Context<Self>) -> Result<Flow, Failure> {
        match message {
            Do::Stop => Ok(Flow::Stop),
            Do::Fail => Err("told to fail".into()),
            Do::Panic => panic!("told to panic"),
        }
    }

    async fn stop(&mut self) {
        match self.stopping {
            Some(0) => {}
            Some(time) => tokio::time::sleep(Duration::from_millis(time)).await,
            None => std::future::pending().await,
        }
        self.stopped = true;
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.backstage.note(if self.stopped { "stopped" } else { "torn" }, &self.path, self.generation);
    }
}

fn supervisor(path: &str, spec: &Spec, backstage: &Arc<Backstage>) -> SupervisorSpec {
    let children = {
        let (path, children, backstage) = (path.to_owned(), spec.children.clone(), Arc::clone(backstage));
        move || children.iter().map(|spec| child(&path, spec, &backstage)).collect::<Vec<_>>()
    };
    let made = match spec.strategy {
        Strategy::OneForOne => SupervisorSpec::one_for_one(children()),
        Strategy::OneForAll => SupervisorSpec::one_for_all(children()),
        Strategy::RestForOne => SupervisorSpec::rest_for_one(children()),
        Strategy::SimpleOneForOne => SupervisorSpec::dynamic(children, &backstage.desk(path)),
    };
    made.auto_shutdown(spec.auto_shutdown).in_slot(&backstage.desk(path))
}

fn child(above: &str, spec: &world::ChildSpec, backstage: &Arc<Backstage>) -> ChildSpec {
    let (path, backstage) = (join(above, &spec.id), Arc::clone(backstage));
    let made = match spec.body.clone() {
        Body::Worker(stopping) => {
            let slot = backstage.slot(&path);
            ChildSpec::worker_in::<Puppet>(&spec.id, &slot, move || (Arc::clone(&backstage), stopping))
        }
        Body::Supervisor(inner) => ChildSpec::supervisor(&spec.id, move || supervisor(&path, &inner, &backstage)),
    };
    let made = made.restart(spec.restart);
    let made = if spec.significant { made.significant() } else { made };
    match spec.shutdown {
        Some(shutdown) => made.shutdown(shutdown),
        None => made,
    }
}

fn policy_set(policies: &BTreeMap<String, world::Policy>) -> PolicySet {
    let ms = Duration::from_millis;
    policies.iter().fold(PolicySet::new(Policy::default()), |set, (path, policy)| {
        let patch = PolicyPatch {
            intensity: Some(u32::try_from(policy.intensity).unwrap()),
            period: Some(ms(policy.period)),
            shutdown: Some(ms(policy.shutdown)),
            start: Some(ms(policy.start)),
            backoff: Some(Backoff::new(ms(policy.first_wait), 2.0, ms(policy.max_wait), 0.0).unwrap()),
        };
        set.with(PathPattern::parse(path).unwrap(), patch)
    })
}

/// A running system.
pub struct Stage {
    pub backstage: Arc<Backstage>,
    policies: Arc<Policies>,
    begin: tokio::time::Instant,
    system: Result<System, StartError>,
}

impl Stage {
    pub async fn start(
        spec: &Spec,
        policies: &BTreeMap<String, world::Policy>,
        plans: &BTreeMap<String, VecDeque<Plan>>,
    ) -> Self {
        let begin = tokio::time::Instant::now();
        let backstage = Arc::new(Backstage { plans: Mutex::new(plans.clone()), ..Backstage::default() });
        let policies = Arc::new(Policies::new(policy_set(policies)));
        let options = SystemOptions { policies: Arc::clone(&policies), ..SystemOptions::default() };
        let system = System::start(supervisor("", spec, &backstage), options).await;
        Self { backstage, policies, begin, system }
    }

    pub fn now(&self) -> Millis {
        Millis::try_from(self.begin.elapsed().as_millis()).unwrap()
    }

    pub async fn wait_until(&self, end: Millis) {
        tokio::time::sleep_until(self.begin + Duration::from_millis(end)).await;
    }

    pub fn replace(&self, policies: &BTreeMap<String, world::Policy>) {
        self.policies.replace(policy_set(policies));
    }

    /// Tells a worker; false when nobody is there.
    pub fn tell(&self, path: &str, what: Do) -> bool {
        self.backstage.slot(path).send(what).is_ok()
    }

    pub fn inject(&self, path: &str, fault: Fault) -> bool {
        self.system.as_ref().is_ok_and(|system| system.tree().inject(path, fault).is_ok())
    }

    pub async fn stop(&self) {
        if let Ok(system) = &self.system {
            system.stop().await;
        }
    }

    // --- Admin calls ---------------------------------------------------------------------------------------------

    pub async fn start_child(&self, path: &str, spec: &world::ChildSpec) -> Answer {
        match self.backstage.desk(path).start_child(child(path, spec, &self.backstage)).await {
            Ok(start) => started(start),
            Err(StartChildError::AlreadyStarted) => "already started".to_owned(),
            Err(StartChildError::AlreadyPresent) => "already present".to_owned(),
            Err(StartChildError::NotRunning) => "no supervisor".to_owned(),
            Err(StartChildError::Failed(reason)) => format!("failed: {}", reason.kind()),
            Err(other) => other.to_string(),
        }
    }

    pub async fn terminate_child(&self, path: &str, id: &str) -> Answer {
        match self.backstage.desk(path).terminate_child(id).await {
            Ok(()) => "done".to_owned(),
            Err(TerminateChildError::NotFound) => "not found".to_owned(),
            Err(TerminateChildError::NotRunning) => "no supervisor".to_owned(),
            Err(other) => other.to_string(),
        }
    }

    pub async fn restart_child(&self, path: &str, id: &str) -> Answer {
        match self.backstage.desk(path).restart_child(id).await {
            Ok(start) => started(start),
            Err(RestartChildError::NotFound) => "not found".to_owned(),
            Err(RestartChildError::Running) => "running".to_owned(),
            Err(RestartChildError::Restarting) => "restarting".to_owned(),
            Err(RestartChildError::SimpleOneForOne) => "simple_one_for_one".to_owned(),
            Err(RestartChildError::NotRunning) => "no supervisor".to_owned(),
            Err(RestartChildError::Failed(reason)) => format!("failed: {}", reason.kind()),
            Err(other) => other.to_string(),
        }
    }

    pub async fn delete_child(&self, path: &str, id: &str) -> Answer {
        match self.backstage.desk(path).delete_child(id).await {
            Ok(()) => "done".to_owned(),
            Err(DeleteChildError::NotFound) => "not found".to_owned(),
            Err(DeleteChildError::Running) => "running".to_owned(),
            Err(DeleteChildError::Restarting) => "restarting".to_owned(),
            Err(DeleteChildError::SimpleOneForOne) => "simple_one_for_one".to_owned(),
            Err(DeleteChildError::NotRunning) => "no supervisor".to_owned(),
            Err(other) => other.to_string(),
        }
    }

    pub fn count_children(&self, path: &str) -> ChildCounts {
        self.backstage.desk(path).count_children()
    }

    pub fn which_children(&self, path: &str) -> Vec<Row> {
        self.backstage.desk(path).which_children().iter().map(row).collect()
    }

    // --- What is seen --------------------------------------------------------------------------------------------

    /// Why the root has ended, if it has.
    pub fn over(&self) -> Option<Reason> {
        match &self.system {
            Ok(system) => system.wait().now_or_never().map(|reason| reason.kind()),
            Err(StartError::Ended { reason, .. }) => Some(reason.kind()),
            Err(_) => Some("refused"),
        }
    }

    pub fn rows(&self) -> Vec<Row> {
        match &self.system {
            Ok(system) if self.over().is_none() => system.tree().snapshot().iter().skip(1).map(row).collect(),
            _ => Vec::new(),
        }
    }
}

fn started(start: Start) -> Answer {
    match start {
        Start::Running => "up".to_owned(),
        Start::Ignored => "ignored".to_owned(),
    }
}

fn row(entry: &Entry) -> Row {
    let reason = entry.last_reason.as_ref().map(|reason| reason.kind());
    (entry.path.as_str().to_owned(), entry.kind, entry.state, entry.generation, reason)
}
