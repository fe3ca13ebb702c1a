//! What the reference works on: specifications as data, the clock, what workers will do and what they noted. No rule of
//! restarting lives here.

use std::collections::{BTreeMap, VecDeque};

use roomcast_supervision::{AutoShutdown, Restart, Shutdown, Strategy};

/// Milliseconds since the beginning.
pub type Millis = u64;

/// A child that was up for this long has recovered: its next restart is the first in a row.
pub const QUIET: Millis = 1000;

/// How long a slow start takes.
pub const SLOW: Millis = 20;

/// Why something ended, in one word.
pub type Reason = &'static str;

/// How one supervisor treats its children.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    pub intensity: usize,
    pub period: Millis,
    pub shutdown: Millis,
    pub start: Millis,
    /// The wait before the second restart in a row; it doubles up to `max_wait`.
    pub first_wait: Millis,
    pub max_wait: Millis,
}

impl Policy {
    pub fn wait(&self, attempt: u32) -> Millis {
        if attempt == 0 { 0 } else { (self.first_wait << (attempt - 1).min(20)).min(self.max_wait) }
    }
}

#[derive(Clone, Debug)]
pub struct Spec {
    pub strategy: Strategy,
    pub auto_shutdown: AutoShutdown,
    /// Of a simple_one_for_one: those that it adopts whenever it starts.
    pub children: Vec<ChildSpec>,
}

#[derive(Clone, Debug)]
pub struct ChildSpec {
    pub id: String,
    pub restart: Restart,
    pub shutdown: Option<Shutdown>,
    pub significant: bool,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    /// How long its orderly stop takes; `None`: for ever.
    Worker(Option<Millis>),
    Supervisor(Spec),
}

/// What a worker's next start does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plan {
    Well,
    /// It takes [`SLOW`].
    Slow,
    Fail,
    Panic,
    Ignore,
    /// It does not return.
    Hang,
}

impl Plan {
    pub fn mark(self) -> &'static str {
        match self {
            Self::Well => "up",
            Self::Slow => "begins",
            Self::Fail => "fails",
            Self::Panic => "panics",
            Self::Ignore => "declines",
            Self::Hang => "hangs",
        }
    }
}

/// What the supervisors share: the clock, what the operator and the workers do, and what is seen of it all.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub now: Millis,
    /// By the supervisor's path.
    pub policies: BTreeMap<String, Policy>,
    /// The next starts of workers, by path; after these they start well.
    pub plans: BTreeMap<String, VecDeque<Plan>>,
    /// What workers noted, in order; what is inside one element may be in any order.
    pub log: Vec<Vec<String>>,
    /// The last incarnation's number and the last end, by path.
    pub memory: BTreeMap<String, (u64, Option<Reason>)>,
    /// All that was noted may be in any order.
    pub loose: bool,
    /// What the last admin call came to, if it did.
    pub answer: Option<String>,
    /// Two things happened at the same instant, and the contract does not say which comes first.
    pub unsure: bool,
}

impl World {
    pub fn next_generation(&mut self, path: &str) {
        self.memory.entry(path.to_owned()).or_default().0 += 1;
    }

    pub fn start_worker(&mut self, path: &str) -> Plan {
        let plan = self.plans.get_mut(path).and_then(VecDeque::pop_front).unwrap_or(Plan::Well);
        self.note(plan.mark(), path);
        plan
    }

    pub fn ended(&mut self, path: &str, reason: Reason) {
        self.memory.entry(path.to_owned()).or_default().1 = Some(reason);
    }

    pub fn note(&mut self, mark: &str, path: &str) {
        self.unsure |= self.loose && mark != "up"; // what else fails meanwhile may come before or after
        let generation = self.memory[path].0;
        self.log.push(vec![format!("{mark} {path}#{generation}")]);
    }

    /// What is done in here is done side by side.
    pub fn together<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.log.len();
        let result = what(self);
        self.merge(before);
        result
    }

    /// What was noted from this place on may be in any order.
    pub fn merge(&mut self, before: usize) {
        let notes = self.log.split_off(before).concat();
        if !notes.is_empty() {
            self.log.push(notes);
        }
    }

    pub fn forget(&mut self, path: &str) {
        self.memory.retain(|other, _| !is_at_or_below(other, path));
    }

    /// Forgets all below `path` but these children and what is below them.
    pub fn forget_below(&mut self, path: &str, children: &[&str]) {
        let kept = |other: &str| children.iter().any(|child| is_at_or_below(other, child));
        self.memory.retain(|other, _| other == path || !is_at_or_below(other, path) || kept(other));
    }
}

pub fn join(path: &str, id: &str) -> String {
    if path.is_empty() { id.to_owned() } else { format!("{path}/{id}") }
}

fn is_at_or_below(path: &str, above: &str) -> bool {
    above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
