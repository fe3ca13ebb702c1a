//! One supervisor's decisions: what to start, stop and restart, and when to give up. Pure: no clock, no actors, no
//! tasks. The runtime tells it what happened, then does what [`Machine::next_action`] says until it says nothing.
//!
//! A child's incarnations are numbered by [`Run`]; what is told about another run than the current one is stale and
//! changes nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::policy::{ABANDON_AFTER, QUIET_PERIOD};
use crate::reason::ExitReason;
use crate::spec::{AutoShutdown, Kind, Restart, Shutdown, Strategy};
use crate::window::RestartWindow;
use roster::{Child, Roster, State};

pub(crate) use terms::{Action, ChildRules, Key, Now, Outcome, Refusal, Run, Token};

mod roster;
mod terms;

#[derive(Debug)]
enum Stage {
    /// Stopping one by one, last first; those from this key on are down.
    Stopping { below: Key },
    /// All down; starting begins at this time.
    Waiting { until: Instant },
    /// Starting one by one; those before this key are up.
    Starting { next: Key },
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
        resume_at: Instant,
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

    // --- What happens --------------------------------------------------------------------------------------------

    /// Takes a child in without starting it.
    pub(crate) fn declare(&mut self, rules: ChildRules) -> Result<Key, Refusal> {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Ended) {
            return Err(Refusal::Stopping);
        }
        self.roster.add(rules).ok_or(Refusal::AlreadyPresent)
    }

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
            self.phase = Phase::Group { from: 0, stage: Stage::Starting { next: 0 }, resume_at: now.at };
        }
        self.advance(now);
    }

    /// Starts a declared child out of turn, for `token`.
    pub(crate) fn start_child(&mut self, key: Key, token: Token, now: Now) {
        self.child(key).start_reply = Some(token);
        self.launch(key, now);
    }

    /// Stops the child called `id`, for `token`; a dynamic or temporary one is forgotten. False when there is none.
    pub(crate) fn terminate_child(&mut self, id: &str, token: Token, now: Now) -> bool {
        let Some(key) = self.roster.key_of(id) else {
            return false;
        };
        if let Some(earlier) = self.child(key).stop_reply.replace(token) {
            self.reply(earlier, Outcome::Done);
        }
        match self.child(key).state {
            State::Idle | State::Waiting => self.stopped(key),
            State::Starting { .. } | State::Running { .. } | State::Falling { .. } => self.stop(key, now),
            State::Stopping { .. } => {}
        }
        self.advance(now);
        true
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
        let token = child.start_reply.take();
        self.roster.set(key, State::Running { since: now.at });
        self.roster.disarm(key);
        if let Some(token) = token {
            self.reply(token, Outcome::Done);
        }
        self.tried(key);
        self.advance(now);
    }

    /// Incarnation `run` has ended of itself, but parts of it are still there; `gone` follows, if they ever end.
    pub(crate) fn fallen(&mut self, key: Key, run: Run, reason: ExitReason, now: Now) {
        let Some(child) = self.roster.get_mut(key).filter(|child| child.run == run) else {
            return;
        };
        let since = match child.state {
            State::Starting { late: false } => None,
            State::Running { since } => Some(since),
            // Its end is awaited already; without a bound (shutdown: infinity) one is set here.
            State::Stopping { .. } => {
                self.roster.set(key, State::Stopping { killed: true });
                self.roster.arm(key, now.at + ABANDON_AFTER);
                return;
            }
            _ => return,
        };
        self.roster.set(key, State::Falling { since, reason });
        self.roster.arm(key, now.at + ABANDON_AFTER);
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
                State::Waiting => self.launch(key, now),
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
            Phase::Group { stage: Stage::Waiting { until }, .. } => Some(until),
            _ => None,
        };
        group.into_iter().chain(self.roster.deadline()).min()
    }

    // --- Decisions -----------------------------------------------------------------------------------------------

    fn ended(&mut self, key: Key, reason: ExitReason, now: Now) {
        self.roster.disarm(key);
        let Some(child) = self.roster.get_mut(key) else {
            return;
        };
        let state = std::mem::replace(&mut child.state, State::Idle);
        let (since, reason) = match state {
            State::Idle | State::Waiting => {
                child.state = state;
                return;
            }
            // From here on `child.state` is still the old one for the books; `set` changes both.
            State::Stopping { .. } => {
                child.state = state;
                return self.stopped(key);
            }
            State::Starting { late: true } => {
                let text = format!("did not start within {:?}", now.policy.start);
                (None, ExitReason::Failed(text.into()))
            }
            State::Starting { late: false } => (None, reason),
            State::Running { since } => (Some(since), reason),
            State::Falling { since, ref reason } => (since, reason.clone()),
        };
        child.state = state;
        if since.is_some_and(|since| now.at.saturating_duration_since(since) >= QUIET_PERIOD) {
            child.attempts = 0;
        }
        match since {
            None => self.start_failed(key, reason, now),
            Some(_) => self.exited(key, &reason, now),
        }
    }

    /// It ended because it was to.
    fn stopped(&mut self, key: Key) {
        self.roster.disarm(key);
        self.roster.set(key, State::Idle);
        self.tried(key);
        let dynamic = self.dynamic();
        let Some(child) = self.roster.get_mut(key) else {
            return;
        };
        let (stop_reply, start_reply) = (child.stop_reply.take(), child.start_reply.take());
        if dynamic || child.rules.restart == Restart::Temporary {
            self.forget(key);
        }
        if let Some(token) = start_reply {
            self.reply(token, Outcome::Stopping);
        }
        if let Some(token) = stop_reply {
            // It was to go, so a group that is coming up does not bring it back.
            if let Phase::Group { stage: Stage::Starting { next }, .. } = &mut self.phase
                && *next == key
            {
                *next += 1;
            }
            self.reply(token, Outcome::Done);
        }
    }

    fn start_failed(&mut self, key: Key, reason: ExitReason, now: Now) {
        let dynamic = self.dynamic();
        let child = self.child(key);
        let (restart, first) = (child.rules.restart, !child.begun);
        let asked = child.start_reply.take();
        if let Some(token) = asked {
            self.reply(token, Outcome::Failed(reason));
            self.roster.set(key, State::Idle);
            self.forget(key);
        } else if matches!(self.phase, Phase::Ending { .. }) {
            self.stopped(key);
        } else if first && !self.ready && !dynamic {
            let id = Arc::clone(&self.child(key).rules.id);
            self.roster.set(key, State::Idle);
            self.end(ExitReason::Failed(format!("child `{id}`: {reason}").into()), now);
        } else {
            self.tried(key);
            if restart == Restart::Temporary {
                self.roster.set(key, State::Idle);
                self.forget(key);
            } else {
                self.restart(key, now);
            }
        }
    }

    fn exited(&mut self, key: Key, reason: &ExitReason, now: Now) {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Ended) {
            return self.stopped(key);
        }
        let rules = &self.child(key).rules;
        let (restart, significant) = (rules.restart, rules.significant);
        let again = match restart {
            Restart::Permanent => true,
            Restart::Transient => reason.is_abnormal(),
            Restart::Temporary => false,
        };
        if again {
            return self.restart(key, now);
        }
        self.roster.set(key, State::Idle);
        if restart == Restart::Temporary || self.dynamic() {
            self.forget(key);
        }
        let over = match self.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::Any => significant,
            AutoShutdown::All => significant && !self.roster.any_significant(),
        };
        if over && self.ready {
            self.end(ExitReason::AutoShutdown, now);
        } else {
            self.over |= over;
        }
    }

    /// `key` is down and is to come up again, by the strategy, if the intensity allows.
    fn restart(&mut self, key: Key, now: Now) {
        self.roster.set(key, State::Idle);
        let from = match self.strategy {
            Strategy::OneForOne | Strategy::SimpleOneForOne => None,
            Strategy::OneForAll => Some(0),
            Strategy::RestForOne => Some(key),
        };
        // A group on its way down takes along those that fall meanwhile: they would have been stopped anyway.
        if let (Some(_), Phase::Group { from, stage, .. }) = (from, &self.phase)
            && key >= *from
            && matches!(stage, Stage::Stopping { .. } | Stage::Waiting { .. })
        {
            return;
        }
        if self.window.exceeds(now.at, now.policy.intensity, now.policy.period) {
            self.actions.push_back(Action::GaveUp);
            return self.end(ExitReason::GaveUp, now);
        }
        let dice = self.dice.f64();
        let child = self.child(key);
        let delay = now.policy.backoff.delay(child.attempts, dice);
        child.attempts = child.attempts.saturating_add(1);
        self.actions.push_back(Action::Scheduled { key, delay });
        let resume_at = now.at + delay;
        match from {
            None if delay.is_zero() => self.launch(key, now),
            None => {
                self.roster.set(key, State::Waiting);
                self.roster.arm(key, resume_at);
            }
            // This may replace a group that is coming up: what was before `key` in it is up and stays.
            Some(from) => {
                self.phase = Phase::Group { from, stage: Stage::Stopping { below: Key::MAX }, resume_at };
            }
        }
    }

    fn end(&mut self, why: ExitReason, now: Now) {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Ended) {
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
                Phase::Settled if std::mem::take(&mut self.over) => self.end(ExitReason::AutoShutdown, now),
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
                Phase::Group { from, stage, resume_at } => {
                    let (from, resume_at) = (*from, *resume_at);
                    let next = match *stage {
                        Stage::Stopping { below } => match self.roster.last_below(from, below).map(|(key, _)| key) {
                            None => Stage::Waiting { until: resume_at },
                            Some(key) if self.bring_down(key, now) => Stage::Stopping { below: key },
                            Some(_) => return,
                        },
                        Stage::Waiting { until } if until > now.at => return,
                        Stage::Waiting { .. } => Stage::Starting { next: from },
                        Stage::Starting { next } => {
                            let Some((key, child)) = self.roster.first_from(next) else {
                                self.phase = Phase::Settled;
                                self.check_ready();
                                continue;
                            };
                            match child.state {
                                State::Idle => return self.launch(key, now),
                                State::Running { .. } => Stage::Starting { next: key + 1 },
                                _ => return,
                            }
                        }
                    };
                    self.phase = Phase::Group { from, stage: next, resume_at };
                }
            }
        }
    }

    /// Makes sure that `key` is on its way down; true when it is down.
    fn bring_down(&mut self, key: Key, now: Now) -> bool {
        let dynamic = self.dynamic();
        match self.child(key).state {
            State::Idle if !dynamic => true,
            State::Idle | State::Waiting => {
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
        if child.rules.kind == Kind::Worker {
            self.roster.arm(key, now.at + now.policy.start);
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
            self.roster.arm(key, now.at + ABANDON_AFTER);
        } else if at_once || shutdown == Shutdown::Kill {
            self.roster.set(key, State::Stopping { killed: true });
            self.kill(key, now);
        } else {
            self.roster.set(key, State::Stopping { killed: false });
            if let Shutdown::Timeout(time) = shutdown {
                self.roster.arm(key, now.at + time);
            }
            self.actions.push_back(Action::Stop { key });
        }
    }

    fn kill(&mut self, key: Key, now: Now) {
        self.roster.arm(key, now.at + ABANDON_AFTER);
        self.actions.push_back(Action::Kill { key });
    }

    fn forget(&mut self, key: Key) {
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
