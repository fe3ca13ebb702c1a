//! What others ask of a supervisor: children started, terminated, restarted and deleted, with OTP's refusals.

use std::sync::Arc;

use super::{Action, ChildRules, Key, Machine, Now, Refusal, State, Token};

/// How a child stands towards a request.
enum Standing {
    /// Starting for the first time, running, or just ended with its end not told yet.
    Up,
    /// On its way down because somebody terminated it.
    Leaving,
    /// Down or going down, and to be started again.
    Coming,
    /// Down, and nobody starts it unless asked.
    Down,
}

impl Machine {
    /// What is kept of a child.
    pub(crate) fn rules(&self, id: &str) -> Option<(Key, &ChildRules)> {
        let key = self.roster.key_of(id)?;
        self.roster.get(key).map(|child| (key, &child.rules))
    }

    /// Why such a child would not be taken in now.
    pub(crate) fn refuses(&self, rules: &ChildRules) -> Option<Refusal> {
        if self.ending() {
            return Some(Refusal::Stopping);
        }
        let Some(key) = self.roster.key_of(&rules.id) else {
            // Dynamic children may share a name for a moment; those of a fixed supervisor stand at a path each.
            return self.names.contains(&rules.name).then_some(Refusal::NameTaken);
        };
        Some(match self.standing(key) {
            Standing::Up => Refusal::AlreadyStarted,
            Standing::Leaving | Standing::Coming | Standing::Down => Refusal::AlreadyPresent,
        })
    }

    /// Takes a child in without starting it.
    pub(crate) fn declare(&mut self, rules: ChildRules) -> Result<Key, Refusal> {
        if let Some(refusal) = self.refuses(&rules) {
            return Err(refusal);
        }
        if !self.dynamic() {
            self.names.insert(Arc::clone(&rules.name));
        }
        self.roster.add(rules).ok_or(Refusal::AlreadyPresent)
    }

    /// Starts a child that was declared last, for `token`. While a group is on its way, it is the last of it.
    pub(crate) fn start_child(&mut self, key: Key, token: Token, now: Now) {
        let child = self.child(key);
        child.kept = false;
        child.start_reply = Some(token);
        if !self.due(key) {
            self.launch(key, now);
        }
    }

    /// Stops the child called `id`, for `token`. A dynamic or temporary one is forgotten; another keeps its
    /// specification and is started again only by a request or with its siblings, by their strategy.
    pub(crate) fn terminate_child(&mut self, id: &str, token: Token, now: Now) -> Result<(), Refusal> {
        let key = self.roster.key_of(id).ok_or(Refusal::NotFound)?;
        self.child(key).stop_replies.push(token);
        self.bring_down(key, now);
        self.advance(now);
        Ok(())
    }

    /// Starts the child called `id`, which is down, for `token`.
    pub(crate) fn restart_child(&mut self, id: &str, token: Token, now: Now) -> Result<(), Refusal> {
        let key = self.at_rest(id)?;
        self.held.remove(&key);
        self.child(key).start_reply = Some(token);
        if self.due(key) {
            self.actions.push_back(Action::Due { key });
        } else {
            self.launch(key, now);
        }
        Ok(())
    }

    /// Forgets the child called `id`, which is down.
    pub(crate) fn delete_child(&mut self, id: &str) -> Result<(), Refusal> {
        let key = self.at_rest(id)?;
        self.forget(key);
        Ok(())
    }

    /// The child called `id` if it is down and nobody is about to start it.
    fn at_rest(&self, id: &str) -> Result<Key, Refusal> {
        if self.dynamic() {
            return Err(Refusal::SimpleOneForOne);
        }
        if self.ending() {
            return Err(Refusal::Stopping);
        }
        let key = self.roster.key_of(id).ok_or(Refusal::NotFound)?;
        match self.standing(key) {
            Standing::Up | Standing::Leaving => Err(Refusal::Running),
            Standing::Coming => Err(Refusal::Restarting),
            Standing::Down => Ok(key),
        }
    }

    fn standing(&self, key: Key) -> Standing {
        let Some(child) = self.roster.get(key) else {
            return Standing::Down;
        };
        match child.state {
            State::Running { .. } | State::Falling { .. } => Standing::Up,
            State::Starting { .. } if child.begun && child.start_reply.is_none() => Standing::Coming,
            State::Starting { .. } => Standing::Up,
            State::Stopping { .. } if child.stop_replies.is_empty() => Standing::Coming,
            State::Stopping { .. } => Standing::Leaving,
            State::Waiting(_) => Standing::Coming,
            State::Idle if child.start_reply.is_some() => Standing::Up,
            State::Idle if self.due(key) => Standing::Coming,
            State::Idle => Standing::Down,
        }
    }
}
