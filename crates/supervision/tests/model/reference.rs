//! The contract as a program: what supervisors do, said as plainly as possible and without looking at how they do it.
//! A supervisor here is a list of children and a list of restart times; nothing runs, and time is a number that moves on
//! when something takes time. What is planned and noted is in `world`, what is asked from outside in `calls`.

use roomcast_supervision::{AutoShutdown, Kind, Restart, Shutdown, Strategy};

use crate::world::{Body, ChildSpec, Millis, Plan, QUIET, Reason, SLOW, Spec, World, join};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    Down,
    Up {
        since: Millis,
    },
    /// It is restarted when the wait is over.
    Waiting(Wait),
    /// It is started with its group.
    Due,
}

/// Since when, and after how many restarts in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wait {
    pub since: Millis,
    pub attempt: u32,
}

/// What somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ask {
    /// A new child, which is forgotten if it does not start.
    Start,
    /// One that was down.
    Restart,
}

#[derive(Clone, Debug)]
pub struct Child {
    pub spec: ChildSpec,
    pub path: String,
    pub state: State,
    /// Restarts in a row.
    pub attempts: u32,
    /// Somebody terminated it while it was of a group that is down, or started it in vain; that group does not bring it up.
    pub held: bool,
    /// Somebody waits for it to be up.
    pub asked: Option<Ask>,
    /// The supervisor that it is, while it is up.
    pub inner: Option<Supervisor>,
}

impl Child {
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    pub fn kind(&self) -> Kind {
        if matches!(self.spec.body, Body::Worker(_)) { Kind::Worker } else { Kind::Supervisor }
    }

    /// How long it may take to stop; `default` is the policy's.
    pub fn patience(&self, default: Millis) -> Option<Millis> {
        match self.spec.shutdown {
            Some(Shutdown::Timeout(time)) => Some(Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)),
            Some(Shutdown::Kill) => Some(default),
            Some(Shutdown::Infinity) => None,
            None => (self.kind() == Kind::Worker).then_some(default),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Supervisor {
    pub path: String,
    pub strategy: Strategy,
    pub auto_shutdown: AutoShutdown,
    /// In start order.
    pub children: Vec<Child>,
    /// When children were restarted.
    pub restarts: Vec<Millis>,
    /// From which place on children are down until a wait is over.
    pub group: Option<(usize, Wait)>,
}

impl Supervisor {
    /// A new incarnation. Children start left to right, each when the one before is up; one that fails takes down those
    /// before it, and the start has failed. Of a simple_one_for_one they start side by side and one that fails has
    /// crashed.
    pub fn start(path: &str, spec: &Spec, world: &mut World) -> Result<Self, Reason> {
        let Spec { strategy, auto_shutdown, ref children } = *spec;
        let mut new =
            Self { path: path.to_owned(), strategy, auto_shutdown, children: vec![], restarts: vec![], group: None };
        new.children = children.iter().map(|spec| new.declare(spec)).collect();
        world.forget_below(path, &new.children.iter().map(|child| child.path.as_str()).collect::<Vec<_>>());
        let ids = new.ids_from(0);
        if new.simple() {
            let start = |world: &mut World| ids.into_iter().filter(|id| new.start_child(id, world).is_err()).collect();
            let failed: Vec<_> = world.together(start);
            for id in failed {
                world.loose = true; // it is up by now, and what is to start after it goes on meanwhile
                if let Some(end) = new.failed_again(&id, world) {
                    world.unsure = true; // so whether it was up when it gave up is open
                    return Err(end);
                }
            }
            return Ok(new);
        }
        for id in ids {
            if new.start_child(&id, world).is_err() {
                new.stop(None, world);
                return Err("failed");
            }
        }
        Ok(new)
    }

    pub fn simple(&self) -> bool {
        self.strategy == Strategy::SimpleOneForOne
    }

    pub fn place(&self, id: &str) -> Option<usize> {
        self.children.iter().position(|child| child.spec.id == id)
    }

    pub fn child(&mut self, id: &str) -> &mut Child {
        let place = self.place(id).expect("the child is there");
        &mut self.children[place]
    }

    fn ids_from(&self, first: usize) -> Vec<String> {
        self.children[first..].iter().map(|child| child.spec.id.clone()).collect()
    }

    pub fn declare(&self, spec: &ChildSpec) -> Child {
        let path = join(&self.path, &spec.id);
        Child { spec: spec.clone(), path, state: State::Down, attempts: 0, held: false, asked: None, inner: None }
    }

    // --- Starting ------------------------------------------------------------------------------------------------

    /// One start. True: it is up. False: it declined.
    pub fn start_child(&mut self, id: &str, world: &mut World) -> Result<bool, Reason> {
        let bound = world.policies[&self.path].start;
        let child = self.child(id);
        let path = child.path.clone();
        world.next_generation(&path);
        let (outcome, end) = match child.spec.body.clone() {
            Body::Supervisor(spec) => match Self::start(&path, &spec, world) {
                Ok(inner) => {
                    child.inner = Some(inner);
                    (Ok(true), None)
                }
                Err(reason) => (Err(reason), Some(reason)),
            },
            Body::Worker(_) => match world.start_worker(&path) {
                Plan::Well => (Ok(true), None),
                Plan::Slow => {
                    world.now += SLOW;
                    (Ok(true), None)
                }
                Plan::Fail => (Err("failed"), Some("failed")),
                Plan::Panic => (Err("panicked"), Some("panicked")),
                Plan::Ignore => (Ok(false), Some("ignored")),
                Plan::Hang => {
                    world.now += bound;
                    (Err("failed"), Some("killed"))
                }
            },
        };
        let child = self.child(id);
        child.state = if outcome == Ok(true) { State::Up { since: world.now } } else { State::Down };
        if let Some(end) = end {
            world.ended(&path, end);
        }
        if child.asked.take().is_some() {
            world.answer = Some(match outcome {
                Ok(true) => "up".to_owned(),
                Ok(false) => "ignored".to_owned(),
                Err(reason) => format!("failed: {reason}"),
            });
        }
        if outcome == Ok(false) {
            child.attempts = 0;
            self.forget_unless_kept(id, world);
        }
        outcome
    }

    /// A temporary child is forgotten when it is down, and so is every child of a simple_one_for_one.
    fn forget_unless_kept(&mut self, id: &str, world: &mut World) {
        if self.simple() || self.child(id).spec.restart == Restart::Temporary {
            self.forget(id, world);
        }
    }

    pub fn forget(&mut self, id: &str, world: &mut World) {
        let place = self.place(id).expect("the child is there");
        let gone = self.children.remove(place);
        world.forget(&gone.path);
        if gone.asked.is_some() {
            world.answer = Some("failed: shutdown".to_owned());
        }
        if let Some((first, _)) = &mut self.group {
            *first -= usize::from(place < *first);
        }
    }

    // --- Restarting ----------------------------------------------------------------------------------------------

    /// A child that was up has ended. The answer, here and below: why this supervisor ended, if it did.
    pub fn exited(&mut self, id: &str, reason: Reason, world: &mut World) -> Option<Reason> {
        let child = self.child(id);
        let State::Up { since } = child.state else { panic!("{id} is not up") };
        child.state = State::Down;
        child.inner = None;
        if world.now - since >= QUIET {
            child.attempts = 0;
        }
        let (restart, significant) = (child.spec.restart, child.spec.significant);
        world.ended(&child.path, reason);
        let again = match restart {
            Restart::Permanent => true,
            Restart::Transient => ["killed", "panicked", "failed"].contains(&reason),
            Restart::Temporary => false,
        };
        if again {
            return self.restart(id, world);
        }
        self.forget_unless_kept(id, world);
        let alive = |other: &Child| other.spec.significant && other.state != State::Down;
        let over = match self.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::Any => significant,
            AutoShutdown::All => significant && !self.children.iter().any(alive),
        };
        over.then(|| self.end("auto_shutdown", world))
    }

    /// A restart's start has failed: that counts as a crash.
    fn failed_again(&mut self, id: &str, world: &mut World) -> Option<Reason> {
        if self.child(id).spec.restart == Restart::Temporary {
            self.forget(id, world);
            return None;
        }
        self.restart(id, world)
    }

    /// A child that is down is to come up again, by the strategy, if the intensity allows.
    fn restart(&mut self, id: &str, world: &mut World) -> Option<Reason> {
        let policy = world.policies[&self.path];
        let now = world.now;
        self.restarts.retain(|&then| now - then <= policy.period);
        self.restarts.push(now);
        if self.restarts.len() > policy.intensity {
            return Some(self.end("gave_up", world));
        }
        let child = self.child(id);
        let wait = Wait { since: now, attempt: child.attempts };
        child.attempts += 1;
        let at_once = policy.wait(wait.attempt) == 0;
        let first = match self.strategy {
            Strategy::OneForOne | Strategy::SimpleOneForOne => {
                self.child(id).state = State::Waiting(wait);
                return if at_once { self.comes_up(id, world) } else { None };
            }
            Strategy::OneForAll => 0,
            Strategy::RestForOne => self.place(id).expect("the child is there"),
        };
        self.group = Some((first, wait));
        for id in self.ids_from(first).iter().rev() {
            // What was asked for and has not had its turn yet goes on waiting.
            if self.child(id).asked.is_none() {
                self.stop_child(id, None, world);
            }
        }
        for child in self.children[first..].iter_mut().filter(|child| !child.held) {
            child.state = State::Due;
        }
        if at_once { self.group_comes_up(world) } else { None }
    }

    /// A child's wait is over.
    pub fn comes_up(&mut self, id: &str, world: &mut World) -> Option<Reason> {
        if self.start_child(id, world).is_err() { self.failed_again(id, world) } else { None }
    }

    /// A group's wait is over: it starts from left to right, those included that were down before it fell.
    pub fn group_comes_up(&mut self, world: &mut World) -> Option<Reason> {
        let (first, _) = self.group?;
        for id in self.ids_from(first) {
            let &mut Child { state, asked, .. } = self.child(&id);
            if state == State::Due && self.start_child(&id, world).is_err() {
                match asked {
                    None => return self.failed_again(&id, world),
                    Some(Ask::Start) => self.forget(&id, world),
                    Some(Ask::Restart) => self.child(&id).held = true,
                }
            }
        }
        self.group = None;
        self.children.iter_mut().for_each(|child| child.held = false);
        None
    }

    // --- Stopping ------------------------------------------------------------------------------------------------

    fn end(&mut self, why: Reason, world: &mut World) -> Reason {
        self.stop(None, world);
        why
    }

    /// Stops all children: the last first, one at a time; those of a simple_one_for_one side by side. At `limit` somebody
    /// loses patience and kills what is left.
    pub fn stop(&mut self, limit: Option<Millis>, world: &mut World) {
        self.nobody_answers(world);
        let ids = self.ids_from(0);
        if self.simple() {
            let begin = world.now;
            world.now = world.together(|world| {
                let end = |id: &String| {
                    world.now = begin;
                    self.stop_child(id, limit, world);
                    world.now
                };
                ids.iter().map(end).max().unwrap_or(begin)
            });
            return;
        }
        for id in ids.iter().rev() {
            let before = world.log.len();
            self.stop_child(id, limit, world);
            if limit.is_some_and(|limit| world.now >= limit) {
                self.kill(world);
                return world.merge(before);
            }
        }
    }

    /// Stops a child as its specification says, or ends its wait for a restart.
    pub fn stop_child(&mut self, id: &str, limit: Option<Millis>, world: &mut World) {
        let default = world.policies[&self.path].shutdown;
        let child = self.child(id);
        let patience = match child.spec.shutdown {
            Some(Shutdown::Kill) => Some(0),
            _ => child.patience(default),
        };
        let own_limit = patience.map(|patience| world.now + patience);
        let killed_at = [own_limit, limit].into_iter().flatten().min();
        let at_once = killed_at == Some(world.now);
        if child.is_up() {
            match (child.inner.take(), &child.spec.body) {
                (Some(mut inner), _) if at_once => inner.kill(world),
                (Some(mut inner), _) => inner.stop(killed_at, world),
                (None, Body::Worker(takes)) if !at_once => {
                    let ends = takes.map(|takes| world.now + takes);
                    world.unsure |= ends.is_some() && ends == killed_at;
                    world.now = ends.into_iter().chain(killed_at).min().expect("what never ends is killed");
                }
                (None, _) => {}
            }
            let clean = !at_once && killed_at.is_none_or(|killed_at| world.now < killed_at);
            world.unsure |= !clean && !at_once && own_limit == limit; // who kills first is open
            if child.kind() == Kind::Worker {
                world.note(if clean { "stopped" } else { "torn" }, &child.path);
            }
            world.ended(&child.path, if clean { "shutdown" } else { "killed" });
        }
        child.state = State::Down;
        if limit.is_none_or(|limit| world.now < limit) {
            self.forget_unless_kept(id, world); // a dead supervisor forgets nothing
        }
    }

    /// All below ends at once.
    pub fn kill(&mut self, world: &mut World) {
        self.nobody_answers(world);
        world.together(|world| {
            for child in self.children.iter_mut().filter(|child| child.is_up()) {
                child.state = State::Down;
                match child.inner.take() {
                    Some(mut inner) => inner.kill(world),
                    None => world.note("torn", &child.path),
                }
                world.ended(&child.path, "killed");
            }
        });
    }

    fn nobody_answers(&mut self, world: &mut World) {
        if self.children.iter_mut().any(|child| child.asked.take().is_some()) {
            world.answer = Some("no supervisor".to_owned());
        }
    }
}
