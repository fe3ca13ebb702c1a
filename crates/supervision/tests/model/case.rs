//! Random cases: a tree, its policies and a sequence of steps, all data. Nothing runs here.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use roomcast_supervision::{AutoShutdown, Restart, Shutdown, Strategy};

use crate::world::{Body, ChildSpec, Millis, Plan, Policy, Reason, SLOW, Spec, join};

#[derive(Clone, Debug)]
pub struct Case {
    pub spec: Spec,
    /// For every supervisor that can come up.
    pub policies: BTreeMap<String, Policy>,
    pub plans: BTreeMap<String, VecDeque<Plan>>,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// A worker ends of itself.
    Exit(String, Reason),
    /// A worker or a supervisor is killed, or a supervisor panics.
    Kill(String),
    PanicSupervisor(String),
    /// The next starts of a worker.
    Plan(String, Plan, usize),
    StartChild(String, ChildSpec),
    /// A child whose start is slow, terminated this long after it was asked for.
    StartAndTerminate(String, ChildSpec, Millis),
    TerminateChild(String, String),
    RestartChild(String, String),
    DeleteChild(String, String),
    Wait(Millis),
    /// Until this long after the instant at which a supervisor's oldest restart is as old as its period.
    WaitForPeriod(String, Millis),
    Policies(BTreeMap<String, Policy>),
}

/// What takes time in a case. Not both, so that two things rarely happen at once, where their order is open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Restarts wait; stops and starts are immediate.
    Waits,
    /// Stops and starts take time; restarts do not wait.
    Slow,
}

/// What cases are made of.
#[derive(Clone, Copy, Debug)]
pub struct Plot {
    pub kind: Kind,
    /// Levels of supervisors.
    pub depth: usize,
    pub steps: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn tree(spec: &Spec, path: &str, case: &Case, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Spec { strategy, auto_shutdown, children } = spec;
            writeln!(f, "`{path}`: {strategy:?}, auto_shutdown {auto_shutdown:?}, {:?}", case.policies[path])?;
            for child in children {
                let path = join(path, &child.id);
                write!(f, "`{path}`: {:?}, shutdown {:?}, ", child.restart, child.shutdown)?;
                write!(f, "{}", if child.significant { "significant, " } else { "" })?;
                match &child.body {
                    Body::Worker(stopping) => writeln!(f, "stops in {stopping:?}")?,
                    Body::Supervisor(spec) => {
                        writeln!(f, "supervisor")?;
                        tree(spec, &path, case, f)?;
                    }
                }
            }
            Ok(())
        }
        tree(&self.spec, "", self, f)?;
        writeln!(f, "planned: {:?}", self.plans)?;
        self.steps.iter().enumerate().try_for_each(|(number, step)| writeln!(f, "step {}: {step:?}", number + 1))
    }
}

struct Author {
    rng: Rng,
    plot: Plot,
    policies: BTreeMap<String, Policy>,
    /// Where something is or may be.
    workers: Vec<String>,
    supervisors: Vec<String>,
    /// Workers that come up side by side with others.
    adopted: Vec<String>,
}

/// A case; the same for the same seed.
pub fn write(seed: u64, plot: Plot) -> Case {
    let rng = Rng::with_seed(seed);
    let (policies, workers, supervisors) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut author = Author { rng, plot, policies, workers, supervisors, adopted: Vec::new() };
    let spec = author.supervisor("", plot.depth);
    let mut plans = BTreeMap::new();
    for path in author.workers.clone() {
        if author.rng.usize(..40) == 0
            && let Some(plan) = author.plan(&path)
        {
            plans.insert(path, VecDeque::from([plan]));
        }
    }
    let steps = (0..author.rng.usize(1..=plot.steps)).map(|_| author.step()).collect();
    Case { spec, policies: author.policies, plans, steps }
}

impl Author {
    fn one_of<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())].clone()
    }

    fn policy(&mut self) -> Policy {
        // Waits of different lengths, so that different supervisors' timers seldom meet.
        let first_wait = if self.plot.kind == Kind::Waits { 10 + self.rng.u64(..30) } else { 0 };
        Policy {
            intensity: self.one_of(&[0, 1, 1, 2, 2, 3, 4]),
            period: self.one_of(&[20, 100, 1000, 1000, 5000]),
            shutdown: 55,
            start: 45,
            first_wait,
            max_wait: first_wait * self.one_of(&[1, 3, 20]),
        }
    }

    fn supervisor(&mut self, path: &str, depth: usize) -> Spec {
        let policy = self.policy();
        self.policies.insert(path.to_owned(), policy);
        self.supervisors.push(path.to_owned());
        let strategy = self.one_of(&[
            Strategy::OneForOne,
            Strategy::OneForAll,
            Strategy::RestForOne,
            Strategy::RestForOne,
            Strategy::SimpleOneForOne,
        ]);
        let auto_shutdown = match strategy {
            Strategy::SimpleOneForOne => AutoShutdown::Never, // anything else is refused
            _ => self.one_of(&[AutoShutdown::Never, AutoShutdown::Never, AutoShutdown::Any, AutoShutdown::All]),
        };
        let count = self.rng.usize(..=4);
        let children = (0..count)
            .map(|number| {
                let child = self.child(path, &format!("c{number}"), depth, auto_shutdown);
                if strategy == Strategy::SimpleOneForOne {
                    self.adopted.push(join(path, &child.id));
                }
                child
            })
            .collect();
        Spec { strategy, auto_shutdown, children }
    }

    fn child(&mut self, above: &str, id: &str, depth: usize, auto_shutdown: AutoShutdown) -> ChildSpec {
        let path = join(above, id);
        let some = [Restart::Permanent, Restart::Transient, Restart::Temporary, Restart::Permanent, Restart::Transient];
        let restart = match auto_shutdown {
            AutoShutdown::All => self.one_of(&some[1..]), // fewer that cannot be significant
            _ => self.one_of(&some),
        };
        let significant =
            restart != Restart::Permanent && auto_shutdown != AutoShutdown::Never && self.rng.usize(..4) != 0;
        let timeout = |time| Some(Shutdown::Timeout(Duration::from_millis(time)));
        if depth > 1 && self.rng.usize(..3) == 0 {
            let shutdown = self.one_of(&[None, None, None, timeout(75), Some(Shutdown::Kill)]);
            let body = Body::Supervisor(self.supervisor(&path, depth - 1));
            return ChildSpec { id: id.to_owned(), restart, shutdown, significant, body };
        }
        let shutdown = self.one_of(&[None, None, timeout(25), Some(Shutdown::Infinity), Some(Shutdown::Kill)]);
        let stopping = match (self.plot.kind, shutdown) {
            (Kind::Waits, _) => Some(0),
            (Kind::Slow, Some(Shutdown::Infinity)) => self.one_of(&[Some(0), Some(30)]),
            (Kind::Slow, _) => self.one_of(&[Some(0), Some(10), Some(40), None]),
        };
        self.workers.push(path);
        ChildSpec { id: id.to_owned(), restart, shutdown, significant, body: Body::Worker(stopping) }
    }

    /// What a start at `path` may do.
    fn plan(&mut self, path: &str) -> Option<Plan> {
        let plan = match self.plot.kind {
            Kind::Waits => self.one_of(&[Plan::Fail, Plan::Fail, Plan::Panic, Plan::Ignore]),
            Kind::Slow => self.one_of(&[Plan::Fail, Plan::Panic, Plan::Ignore, Plan::Hang]),
        };
        // Side by side with slow ones, who fails first is open.
        let adopted = self.adopted.iter().any(|adopted| path.starts_with(adopted.as_str()));
        (!(adopted && self.plot.kind == Kind::Slow)).then_some(plan)
    }

    fn step(&mut self) -> Step {
        let worker = if self.workers.is_empty() { "none".to_owned() } else { self.one_of(&self.workers.clone()) };
        let supervisor = self.one_of(&self.supervisors.clone());
        let child = if self.rng.bool() && self.supervisors.len() > 1 {
            let below_the_root = self.supervisors[1..].to_vec();
            self.one_of(&below_the_root)
        } else {
            worker.clone()
        };
        let (above, id) = child.rsplit_once('/').unwrap_or(("", &child));
        let (above, id) = (above.to_owned(), id.to_owned());
        match self.rng.usize(..100) {
            0..15 => Step::Exit(worker, "normal"),
            15..25 => Step::Exit(worker, "failed"),
            25..35 => Step::Exit(worker, "panicked"),
            35..42 => Step::Kill(worker),
            42..46 if !supervisor.is_empty() => Step::Kill(supervisor),
            46..48 if !supervisor.is_empty() => Step::PanicSupervisor(supervisor),
            48..58 => match self.plan(&worker) {
                Some(plan) => Step::Plan(worker, plan, self.rng.usize(1..=3)),
                None => Step::Exit(worker, "failed"),
            },
            58..60 if self.plot.kind == Kind::Slow => {
                let id = format!("c{}", self.rng.usize(3..7));
                let child = self.child(&supervisor, &id, 1, AutoShutdown::Never);
                Step::StartAndTerminate(supervisor, child, self.one_of(&[0, SLOW / 2, SLOW, SLOW]))
            }
            58..68 => {
                let id = format!("c{}", self.rng.usize(..7));
                let mut child = self.child(&supervisor, &id, 1, AutoShutdown::Never);
                // What is a supervisor once is one again.
                if self.supervisors.contains(&join(&supervisor, &id)) {
                    let inner = self.child(&join(&supervisor, &id), "c0", 1, AutoShutdown::Never);
                    let (strategy, auto_shutdown) = (Strategy::OneForAll, AutoShutdown::Never);
                    child.body = Body::Supervisor(Spec { strategy, auto_shutdown, children: vec![inner] });
                }
                Step::StartChild(supervisor, child)
            }
            68..73 => Step::TerminateChild(above, id),
            73..78 => Step::RestartChild(above, id),
            78..81 => Step::DeleteChild(above, id),
            81..92 => Step::Wait(self.one_of(&[1, 5, 10, 15, 30, 60, 120, 400, 999, 1000, 1001, 3000])),
            92..96 => Step::WaitForPeriod(supervisor, self.one_of(&[0, 1])),
            _ => {
                let policies = self.supervisors.clone().into_iter().map(|path| (path, self.policy())).collect();
                Step::Policies(policies)
            }
        }
    }
}
