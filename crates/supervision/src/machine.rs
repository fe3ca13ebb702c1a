//! One supervisor's decisions: what to start, stop and restart, and when to give up. Pure: no clock, no actors, no
//! tasks. The runtime tells it what happened, then does what [`Machine::next_action`] says until it says nothing.
//!
//! Here is what happens to a supervisor and in which order its children come and go; what becomes of a child that ended
//! is in `fate`, what others ask for in `admin`.
//!
//! A child's incarnations are numbered by [`Run`]; what is told about another run than the current one is stale and
//! changes nothing.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::policy::ABANDON_AFTER;
use crate::reason::ExitReason;
use crate::spec::{AutoShutdown, Kind, Shutdown, Strategy};
use crate::window::RestartWindow;
use roster::{Child, Roster, State};
use terms::Wait;

pub(crate) use terms::{Action, ChildRules, Key, Now, Outcome, Refusal, Run, Token};

mod admin;
mod fate;
mod roster;
mod terms;

#[derive(Debug)]
enum Stage {
    /// Stopping one by one, last first; those from this key on are down.
    Stopping { below: Key },
    /// All down; starting begins when the wait is over.
    Waiting,
    /// Starting one by one; those before this key are up.
    Starting { next: Key },
}

/// When a group starts to come up.
#[derive(Debug, Clone, Copy)]
struct Resume {
    at: Instant,
    /// Whose wait that is.
    wait: Option<(Key, Wait)>,
}

#[derive(Debug)]
enum Phase {
    New,
    /// Children live independently of each other.
    Settled,
    /// The children from a key on are brought down and up together. The first start is one of these.
    Group {
        from: Key,
        stage: Stage,
        resume: Resume,
    },
    Ending {
        why: ExitReason,
        below: Key,
    },
    Ended,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Machine {
    strategy: Strategy,
    auto_shutdown: AutoShutdown,
    roster: Roster,
    window: RestartWindow,
    phase: Phase,
    /// Children of the group on its way that somebody terminated, or could not start by hand: it does not bring them up.
    held: BTreeSet<Key>,
    /// The names of a fixed supervisor's children.
    names: HashSet<Arc<str>>,
    ready: bool,
    /// Its significant children ended before the others were up: it comes up all the same, and then ends, so that whoever
    /// started it does not take this for a start that failed.
    over: bool,
    /// Dynamic only: adopted children whose first start has no outcome yet.
    unready: usize,
    next_run: Run,
    dice: fastrand::Rng,
    actions: VecDeque<Action>,
}

impl Machine {
    pub(crate) fn new(strategy: Strategy, auto_shutdown: AutoShutdown, seed: u64) -> Self {
        Self {
            strategy,
            auto_shutdown,
            roster: Roster::default(),
            window: RestartWindow::default(),
            phase: Phase::New,
            held: BTreeSet::new(),
            names: HashSet::new(),
            ready: false,
            over: false,
            unready: 0,
            next_run: 1,
            dice: fastrand::Rng::with_seed(seed),
            actions: VecDeque::new(),
        }
    }

    fn dynamic(&self) -> bool {
        self.strategy == Strategy::SimpleOneForOne
    }

    /// Whether it is on its way down, or at its end.
    pub(crate) fn ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. } | Phase::Ended)
    }

    // --- What happens --------------------------------------------------------------------------------------------

    /// Starts what was declared: left to right, each when the one before is up; dynamic children all at once.
    pub(crate) fn begin(&mut self, now: Now) {
        if self.dynamic() {
            self.phase = Phase::Settled;
            let keys = self.roster.keys();
            self.unready = keys.len();
            for key in keys {
                self.child(key).awaited = true;
                self.launch(key, now);
            }
            self.check_ready();
        } else {
            let resume = Resume { at: now.at, wait: None };
            self.phase = Phase::Group { from: 0, stage: Stage::Starting { next: 0 }, resume };
        }
        self.advance(now);
    }

    /// Incarnation `run` is up.
    pub(crate) fn started(&mut self, key: Key, run: Run, now: Now) {
        let Some(child) = self.roster.get_mut(key).filter(|child| child.run == run) else {
            return;
        };
        if !matches!(child.state, State::Starting { .. }) {
            return;
        }
        child.begun = true;
        child.kept = true;
        let token = child.start_reply.take();
        self.roster.set(key, State::Running { since: now.at });
        self.roster.disarm(key);
        if let Some(token) = token {
            self.reply(token, Outcome::Done);
        }
        self.tried(key);
        self.advance(now);
    }

    /// Incarnation `run` begins to end; it may be long in that. `gone` follows.
    pub(crate) fn leaving(&mut self, key: Key, run: Run, now: Now) {
        if let Some(child) = self.roster.get_mut(key).filter(|child| child.run == run) {
            child.leaving.get_or_insert(now.at);
        }
    }

    /// Incarnation `run` has ended of itself, but parts of it are still there; `gone` follows, if they ever end.
    pub(crate) fn fallen(&mut self, key: Key, run: Run, reason: ExitReason, now: Now) {
        self.leaving(key, run, now);
        let Some(child) = self.roster.get_mut(key).filter(|child| child.run == run) else {
            return;
        };
        let since = match child.state {
            State::Starting { late: false } => None,
            State::Running { since } => Some(since),
            // Its end is awaited already; without a bound (shutdown: infinity) one is set here.
            State::Stopping { .. } => {
                self.roster.set(key, State::Stopping { killed: true });
                self.roster.arm(key, now.after(ABANDON_AFTER));
                return;
            }
            _ => return,
        };
        self.roster.set(key, State::Falling { since, reason });
        self.roster.arm(key, now.after(ABANDON_AFTER));
    }

    /// Incarnation `run` is gone with all its parts.
    pub(crate) fn gone(&mut self, key: Key, run: Run, reason: ExitReason, now: Now) {
        if self.roster.get(key).is_some_and(|child| child.run == run) {
            self.ended(key, reason, now);
            self.advance(now);
        }
    }

    /// Time has passed; see [`deadline`](Self::deadline).
    pub(crate) fn tick(&mut self, now: Now) {
        while let Some(key) = self.roster.due(now.at) {
            match self.child(key).state {
                State::Waiting(_) => self.launch(key, now),
                State::Starting { late: false } => {
                    self.roster.set(key, State::Starting { late: true });
                    self.kill(key, now);
                }
                State::Stopping { killed: false } => {
                    self.roster.set(key, State::Stopping { killed: true });
                    self.kill(key, now);
                }
                State::Starting { late: true } | State::Stopping { killed: true } | State::Falling { .. } => {
                    self.actions.push_back(Action::Abandon { key });
                    self.ended(key, ExitReason::Killed, now);
                }
                State::Idle | State::Running { .. } => {}
            }
        }
        self.advance(now);
    }

    /// Another policy is in force: waits that are under way become what it makes of them.
    pub(crate) fn revise(&mut self, now: Now) {
        for (key, wait) in self.roster.waiting() {
            let until = wait.until(&now.policy);
            self.roster.arm(key, until);
            self.actions.push_back(Action::Revised { key, left: until.saturating_duration_since(now.at) });
        }
        if let Phase::Group { stage: Stage::Stopping { .. } | Stage::Waiting, resume, .. } = &mut self.phase
            && let Some((key, wait)) = resume.wait
        {
            resume.at = wait.until(&now.policy);
            let left = resume.at.saturating_duration_since(now.at);
            self.actions.push_back(Action::Revised { key, left });
        }
        self.tick(now);
    }

    /// Stop all children, last first (dynamic ones at once), and end. Always gets through, whatever is under way.
    pub(crate) fn shutdown(&mut self, now: Now) {
        self.end(ExitReason::Shutdown, now);
        self.advance(now);
    }

    // --- What to do ----------------------------------------------------------------------------------------------

    /// The next thing to do, in order.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`tick`](Self::tick) has to be called next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let group = match self.phase {
            Phase::Group { stage: Stage::Waiting, resume, .. } => Some(resume.at),
            _ => None,
        };
        group.into_iter().chain(self.roster.deadline()).min()
    }

    // --- Order ---------------------------------------------------------------------------------------------------

    fn end(&mut self, why: ExitReason, now: Now) {
        if self.ending() {
            return;
        }
        self.phase = Phase::Ending { why, below: Key::MAX };
        if self.dynamic() {
            // In parallel: the same instant is the deadline of all, which makes it one timer.
            for key in self.roster.keys() {
                self.bring_down(key, now);
            }
        }
    }

    /// Goes on with what is under way as far as it can without waiting.
    fn advance(&mut self, now: Now) {
        loop {
            match &mut self.phase {
                Phase::Settled if self.ready && std::mem::take(&mut self.over) => {
                    self.end(ExitReason::AutoShutdown, now);
                }
                Phase::New | Phase::Settled | Phase::Ended => return,
                Phase::Ending { why, below } => {
                    let (why, below) = (why.clone(), *below);
                    match self.roster.last_below(0, below).map(|(key, _)| key) {
                        None => {
                            self.phase = Phase::Ended;
                            self.actions.push_back(Action::End(why));
                        }
                        Some(_) if self.dynamic() => return,
                        Some(key) => {
                            if !self.bring_down(key, now) {
                                return;
                            }
                            self.phase = Phase::Ending { why, below: key };
                        }
                    }
                }
                Phase::Group { from, stage, resume } => {
                    let (from, resume) = (*from, *resume);
                    let next = match *stage {
                        Stage::Stopping { below } => match self.roster.last_below(from, below).map(|(key, _)| key) {
                            None => Stage::Waiting,
                            Some(key) if self.bring_down(key, now) => Stage::Stopping { below: key },
                            Some(_) => return,
                        },
                        Stage::Waiting if resume.at > now.at => return,
                        Stage::Waiting => Stage::Starting { next: from },
                        Stage::Starting { next } => {
                            let Some((key, child)) = self.roster.first_from(next) else {
                                self.phase = Phase::Settled;
                                self.held.clear();
                                self.check_ready();
                                continue;
                            };
                            match child.state {
                                State::Idle if !self.held.contains(&key) => {
                                    // Keys have gaps: from here on `next` is the one whose turn it is.
                                    self.phase = Phase::Group { from, stage: Stage::Starting { next: key }, resume };
                                    return self.launch(key, now);
                                }
                                State::Idle | State::Running { .. } => Stage::Starting { next: key + 1 },
                                _ => return,
                            }
                        }
                    };
                    self.phase = Phase::Group { from, stage: next, resume };
                }
            }
        }
    }

    /// Whether a group that is on its way starts `key` again when its turn comes.
    fn due(&self, key: Key) -> bool {
        match self.phase {
            Phase::Group { from, ref stage, .. } if key >= from && !self.held.contains(&key) => match *stage {
                Stage::Stopping { .. } | Stage::Waiting => true,
                Stage::Starting { next } => key >= next,
            },
            _ => false,
        }
    }

    /// Makes sure that `key` is on its way down; true when it is down.
    fn bring_down(&mut self, key: Key, now: Now) -> bool {
        let ending = self.ending();
        let child = self.child(key);
        match child.state {
            // It waits for its first turn, which a group on its way down does not take.
            State::Idle if child.start_reply.is_some() && child.stop_replies.is_empty() && !ending => true,
            State::Idle | State::Waiting(_) => {
                self.stopped(key);
                true
            }
            State::Stopping { .. } => false,
            State::Starting { .. } | State::Running { .. } | State::Falling { .. } => {
                self.stop(key, now);
                false
            }
        }
    }

    /// A first start has an outcome. A supervisor of many does not wait for the one that cannot start.
    fn tried(&mut self, key: Key) {
        if let Some(child) = self.roster.get_mut(key)
            && std::mem::take(&mut child.awaited)
        {
            self.unready -= 1;
            self.check_ready();
        }
    }

    fn check_ready(&mut self) {
        if !self.ready && self.unready == 0 && !matches!(self.phase, Phase::Ending { .. }) {
            self.ready = true;
            self.actions.push_back(Action::Ready);
        }
    }

    /// A child that is known to be there.
    fn child(&mut self, key: Key) -> &mut Child {
        self.roster.get_mut(key).expect("keys that are passed around inside the machine are those of its children")
    }

    // --- Small steps ---------------------------------------------------------------------------------------------

    fn launch(&mut self, key: Key, now: Now) {
        let run = self.next_run;
        self.next_run += 1;
        self.roster.set(key, State::Starting { late: false });
        let child = self.child(key);
        child.run = run;
        child.leaving = None;
        if child.rules.kind == Kind::Worker {
            self.roster.arm(key, now.after(now.policy.start));
        }
        self.actions.push_back(Action::Start { key, run });
    }

    fn stop(&mut self, key: Key, now: Now) {
        let child = self.child(key);
        let kind = child.rules.kind;
        let shutdown = child.rules.shutdown.unwrap_or(match kind {
            Kind::Worker => Shutdown::Timeout(now.policy.shutdown),
            Kind::Supervisor => Shutdown::Infinity,
        });
        let falling = matches!(child.state, State::Falling { .. });
        // A worker that is still starting has promised nothing yet and does not listen to a stop.
        let at_once = matches!(child.state, State::Starting { .. }) && kind == Kind::Worker;
        self.roster.disarm(key);
        if falling {
            self.roster.set(key, State::Stopping { killed: true });
            self.roster.arm(key, now.after(ABANDON_AFTER));
        } else if at_once || shutdown == Shutdown::Kill {
            self.roster.set(key, State::Stopping { killed: true });
            self.kill(key, now);
        } else {
            self.roster.set(key, State::Stopping { killed: false });
            if let Shutdown::Timeout(time) = shutdown {
                self.roster.arm(key, now.after(time));
            }
            self.actions.push_back(Action::Stop { key });
        }
    }

    fn kill(&mut self, key: Key, now: Now) {
        self.roster.arm(key, now.after(ABANDON_AFTER));
        self.actions.push_back(Action::Kill { key });
    }

    fn forget(&mut self, key: Key) {
        self.held.remove(&key);
        if let Some(child) = self.roster.get(key) {
            self.names.remove(&child.rules.name);
        }
        if self.roster.remove(key) {
            self.actions.push_back(Action::Forget { key });
        }
    }

    fn reply(&mut self, token: Token, outcome: Outcome) {
        self.actions.push_back(Action::Reply { token, outcome });
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_admin;
#[cfg(test)]
mod world;
