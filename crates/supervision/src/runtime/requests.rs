//! How a supervisor answers who asks for its children: requests become decisions of its machine, outcomes become answers.

use std::collections::HashMap;

use super::supervisor::Office;
use crate::admin::{Answer, DeleteChildError, Request, RestartChildError, Start, StartChildError, TerminateChildError};
use crate::check::SpecError;
use crate::machine::{Key, Now, Outcome, Refusal, Token};
use crate::spec::ChildSpec;

/// Who waits for an outcome.
pub(super) enum Waiter {
    Start(Answer<Start, StartChildError>),
    Restart(Answer<Start, RestartChildError>),
    Terminate(Answer<(), TerminateChildError>),
}

/// Who asked may have gone; then there is nobody to tell.
fn answer<T, E>(to: Answer<T, E>, result: Result<T, E>) {
    drop(to.send(result));
}

impl Office {
    pub(super) fn serve(&mut self, request: Request, now: Now) {
        match request {
            Request::Start(spec, to) => self.start_child(spec, to, now),
            Request::Terminate(id, to) => {
                let token = self.wait(Waiter::Terminate(to));
                if let Err(refusal) = self.machine.terminate_child(&id, token, now) {
                    self.refuse(token, refusal);
                }
            }
            Request::Restart(id, to) => {
                let token = self.wait(Waiter::Restart(to));
                if let Err(refusal) = self.machine.restart_child(&id, token, now) {
                    self.refuse(token, refusal);
                }
            }
            Request::Delete(id, to) => {
                answer(to, self.machine.delete_child(&id).map_err(DeleteChildError::from));
            }
            Request::Spec(id, to) => {
                let spec = self.machine.rules(&id).and_then(|(key, rules)| {
                    let starter = self.records.get(&key)?.starter.clone();
                    Some(ChildSpec { rules: rules.clone(), starter })
                });
                // Nobody may be there to take it, and it may be the last of its kind.
                self.let_go(to.send(spec));
            }
        }
    }

    fn start_child(&mut self, spec: ChildSpec, to: Answer<Start, StartChildError>, now: Now) {
        match self.accept(&spec) {
            Ok(key) => {
                self.keep(key, spec, &mut HashMap::new());
                let token = self.wait(Waiter::Start(to));
                self.machine.start_child(key, token, now);
            }
            Err(error) => {
                self.let_go(spec);
                answer(to, Err(error));
            }
        }
    }

    /// Checks the child, whether there is room for it, and all below it: in this order, so that what is below is not made
    /// for a child that is refused.
    fn accept(&mut self, spec: &ChildSpec) -> Result<Key, StartChildError> {
        spec.check(self.auto_shutdown).map_err(StartChildError::Invalid)?;
        match self.machine.refuses(&spec.rules) {
            Some(Refusal::NameTaken) => {
                return Err(StartChildError::Invalid(SpecError::Duplicate(spec.id().to_owned())));
            }
            Some(refusal) => return Err(refusal.into()),
            None => {}
        }
        let path = &self.node.path;
        spec.check_below(path).map_err(|fault| StartChildError::Invalid(fault.seen_from(path)))?;
        self.machine.declare(spec.rules.clone()).map_err(StartChildError::from)
    }

    fn wait(&mut self, waiter: Waiter) -> Token {
        let token = self.next_token;
        self.next_token += 1;
        self.waiters.insert(token, waiter);
        token
    }

    fn refuse(&mut self, token: Token, refusal: Refusal) {
        match self.waiters.remove(&token) {
            Some(Waiter::Start(to)) => answer(to, Err(refusal.into())),
            Some(Waiter::Restart(to)) => answer(to, Err(refusal.into())),
            Some(Waiter::Terminate(to)) => answer(to, Err(refusal.into())),
            None => {}
        }
    }

    pub(super) fn reply(&mut self, token: Token, outcome: Outcome) {
        match self.waiters.remove(&token) {
            Some(Waiter::Start(to)) => answer(
                to,
                match outcome {
                    Outcome::Done => Ok(Start::Running),
                    Outcome::Ignored => Ok(Start::Ignored),
                    Outcome::Failed(reason) => Err(StartChildError::Failed(reason)),
                    Outcome::Stopping => Err(StartChildError::NotRunning),
                },
            ),
            Some(Waiter::Restart(to)) => answer(
                to,
                match outcome {
                    Outcome::Done => Ok(Start::Running),
                    Outcome::Ignored => Ok(Start::Ignored),
                    Outcome::Failed(reason) => Err(RestartChildError::Failed(reason)),
                    Outcome::Stopping => Err(RestartChildError::NotRunning),
                },
            ),
            Some(Waiter::Terminate(to)) => answer(to, Ok(())),
            None => {}
        }
    }
}

impl From<Refusal> for StartChildError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::AlreadyStarted => Self::AlreadyStarted,
            Refusal::Stopping => Self::NotRunning,
            _ => Self::AlreadyPresent,
        }
    }
}

impl From<Refusal> for TerminateChildError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Stopping => Self::NotRunning,
            _ => Self::NotFound,
        }
    }
}

impl From<Refusal> for RestartChildError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::NotFound,
            Refusal::Running | Refusal::AlreadyStarted => Self::Running,
            Refusal::Restarting | Refusal::AlreadyPresent | Refusal::NameTaken => Self::Restarting,
            Refusal::SimpleOneForOne => Self::SimpleOneForOne,
            Refusal::Stopping => Self::NotRunning,
        }
    }
}

impl From<Refusal> for DeleteChildError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::NotFound,
            Refusal::Running | Refusal::AlreadyStarted => Self::Running,
            Refusal::Restarting | Refusal::AlreadyPresent | Refusal::NameTaken => Self::Restarting,
            Refusal::SimpleOneForOne => Self::SimpleOneForOne,
            Refusal::Stopping => Self::NotRunning,
        }
    }
}
