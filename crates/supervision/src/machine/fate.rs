//! What becomes of a child that ended, and of its siblings: restarted, kept, forgotten, or the supervisor's end.

use std::sync::Arc;

use super::terms::Wait;
use super::{Action, Key, Machine, Now, Outcome, Phase, Resume, Stage, State};
use crate::policy::QUIET_PERIOD;
use crate::reason::ExitReason;
use crate::spec::{AutoShutdown, Restart, Strategy};

impl Machine {
    pub(super) fn ended(&mut self, key: Key, reason: ExitReason, now: Now) {
        let Some(child) = self.roster.get_mut(key) else {
            return;
        };
        let (since, reason) = match child.state {
            // An abandoned one that has ended after all. If a timer runs, it is that of the wait to start the next.
            State::Idle | State::Waiting(_) => return,
            State::Stopping { .. } => return self.stopped(key),
            State::Starting { late: true } => {
                let text = format!("did not start within {:?}", now.policy.start);
                (None, ExitReason::Failed(text.into()))
            }
            State::Starting { late: false } => (None, reason),
            State::Running { since } => (Some(since), reason),
            State::Falling { since, ref reason } => (since, reason.clone()),
        };
        let until = child.leaving.unwrap_or(now.at);
        if since.is_some_and(|since| until.saturating_duration_since(since) >= QUIET_PERIOD) {
            child.attempts = 0;
        }
        self.roster.disarm(key);
        match since {
            None if reason == ExitReason::Ignored => self.ignored(key),
            None => self.start_failed(key, reason, now),
            Some(_) => self.exited(key, &reason, now),
        }
    }

    /// It is down because it was to be.
    pub(super) fn stopped(&mut self, key: Key) {
        self.roster.disarm(key);
        self.roster.set(key, State::Idle);
        self.tried(key);
        let (dynamic, ending) = (self.dynamic(), self.ending());
        let child = self.child(key);
        let waiting = std::mem::take(&mut child.stop_replies);
        let terminated = !waiting.is_empty();
        let forget = dynamic || child.rules.restart == Restart::Temporary || (terminated && !child.kept);
        if (forget || terminated || ending)
            && let Some(token) = child.start_reply.take()
        {
            let outcome = if ending { Outcome::Stopping } else { Outcome::Failed(ExitReason::Shutdown) };
            self.reply(token, outcome);
        }
        if terminated {
            self.child(key).attempts = 0;
            self.hold(key);
        }
        if forget {
            self.forget(key);
        } else {
            self.actions.push_back(if self.due(key) { Action::Due { key } } else { Action::Rests { key } });
        }
        for token in waiting {
            self.reply(token, Outcome::Done);
        }
    }

    /// It has declined to start: no failure, and its siblings go on.
    fn ignored(&mut self, key: Key) {
        self.roster.set(key, State::Idle);
        if let Phase::Group { stage: Stage::Starting { next }, .. } = &mut self.phase
            && *next == key
        {
            *next += 1;
        }
        self.tried(key);
        let child = self.child(key);
        child.kept = true;
        child.attempts = 0;
        if let Some(token) = child.start_reply.take() {
            self.reply(token, Outcome::Ignored);
        }
        if self.dynamic() || self.child(key).rules.restart == Restart::Temporary {
            self.forget(key);
        }
    }

    fn start_failed(&mut self, key: Key, reason: ExitReason, now: Now) {
        let (dynamic, ending, ready) = (self.dynamic(), self.ending(), self.ready);
        let child = self.child(key);
        let (restart, first, kept) = (child.rules.restart, !child.begun, child.kept);
        if ending {
            self.stopped(key);
        } else if let Some(token) = child.start_reply.take() {
            // Who asked is told, and decides; a group that is on its way does not try again.
            self.reply(token, Outcome::Failed(reason));
            self.roster.set(key, State::Idle);
            if !kept {
                self.forget(key);
            } else {
                self.hold(key);
            }
        } else if first && !ready && !dynamic {
            let id = Arc::clone(&child.rules.id);
            self.roster.set(key, State::Idle);
            self.end(ExitReason::Failed(format!("child `{id}`: {reason}").into()), now);
        } else {
            self.tried(key);
            if restart == Restart::Temporary {
                self.roster.set(key, State::Idle);
                self.forget(key);
            } else {
                self.restart(key, reason, now);
            }
        }
    }

    fn exited(&mut self, key: Key, reason: &ExitReason, now: Now) {
        if self.ending() {
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
            return self.restart(key, reason.clone(), now);
        }
        self.roster.set(key, State::Idle);
        if restart == Restart::Temporary || self.dynamic() {
            self.forget(key);
        }
        let over = match self.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::Any => significant,
            AutoShutdown::All => significant && !self.roster.any_significant() && !self.significant_due(),
        };
        if over && self.ready {
            self.end(ExitReason::AutoShutdown, now);
        } else {
            self.over |= over;
        }
    }

    /// The group that is on its way, if `key` is of it, is not to bring it up. A later crash before `key` is another matter.
    fn hold(&mut self, key: Key) {
        if matches!(self.phase, Phase::Group { from, .. } if key >= from) {
            self.held.insert(key);
        }
    }

    /// Whether a significant child is down only until its group comes up again.
    fn significant_due(&self) -> bool {
        let Phase::Group { mut from, .. } = self.phase else {
            return false;
        };
        while let Some((key, child)) = self.roster.first_from(from) {
            if child.rules.significant && self.due(key) {
                return true;
            }
            from = key + 1;
        }
        false
    }

    /// `key` is down and is to come up again, by the strategy, if the intensity allows. Each attempt counts, also one
    /// that follows a start that failed.
    fn restart(&mut self, key: Key, reason: ExitReason, now: Now) {
        self.roster.set(key, State::Idle);
        let from = match self.strategy {
            Strategy::OneForOne | Strategy::SimpleOneForOne => None,
            Strategy::OneForAll => Some(0),
            Strategy::RestForOne => Some(key),
        };
        // A group on its way down takes along those that fall meanwhile: they would have been stopped anyway.
        if let (Some(_), Phase::Group { from, stage, .. }) = (from, &self.phase)
            && key >= *from
            && matches!(stage, Stage::Stopping { .. } | Stage::Waiting)
        {
            self.actions.push_back(Action::Due { key });
            return;
        }
        if self.window.exceeds(now.at, now.policy.intensity, now.policy.period) {
            self.actions.push_back(Action::GaveUp);
            return self.end(ExitReason::GaveUp, now);
        }
        let dice = self.dice.f64();
        let child = self.child(key);
        let wait = Wait { since: now.at, attempt: child.attempts, dice };
        child.attempts = child.attempts.saturating_add(1);
        let (delay, attempt) = (wait.delay(&now.policy), child.attempts);
        self.actions.push_back(Action::Scheduled { key, reason, delay, attempt });
        match from {
            None if delay.is_zero() => self.launch(key, now),
            None => {
                self.roster.set(key, State::Waiting(wait));
                self.roster.arm(key, now.after(delay));
            }
            // This may replace a group that is coming up: what was before `key` in it is up and stays.
            Some(from) => {
                let resume = Resume { at: now.after(delay), wait: Some((key, wait)) };
                self.phase = Phase::Group { from, stage: Stage::Stopping { below: Key::MAX }, resume };
            }
        }
    }
}
