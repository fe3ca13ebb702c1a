//! The contract seen from outside: what happens to a tree, what it answers to admin calls, what passes with time and what
//! is seen of it. The rules of starting, restarting and stopping are in `reference`.

use roomcast_supervision::{ActorState, ChildCounts, Kind};

use crate::reference::{Ask, Child, State, Supervisor, Wait};
use crate::world::{Body, ChildSpec, Millis, Plan, Reason, Spec, World, join};

/// An answer to an admin call, in words.
pub type Answer = String;

/// A line of the tree: path, kind, state, generation, why the last incarnation ended.
pub type Row = (String, Kind, ActorState, u64, Option<Reason>);

/// When a timer goes off, its supervisor, and the child whose it is; a group's is nobody's.
type Timer = (Millis, String, Option<String>);

/// A whole tree.
#[derive(Clone, Debug)]
pub struct Model {
    pub world: World,
    pub root: Option<Supervisor>,
    /// Why the root ended.
    pub over: Option<Reason>,
    /// When a timer went off last.
    pub last_timer: Millis,
}

impl Model {
    pub fn start(spec: &Spec, mut world: World) -> Self {
        let (root, over) = match Supervisor::start("", spec, &mut world) {
            Ok(root) => (Some(root), None),
            Err(reason) => (None, Some(reason)),
        };
        Self { world, root, over, last_timer: 0 }
    }

    /// Something happens to the running supervisor at `path`; if it ends, the one above is told.
    fn at(&mut self, path: &str, act: &mut dyn FnMut(&mut Supervisor, &mut World) -> Option<Reason>) {
        let ids: Vec<_> = path.split('/').filter(|id| !id.is_empty()).collect();
        let Some(root) = &mut self.root else { return };
        if let Some(end) = happens_at(root, &ids, &mut self.world, act) {
            self.over = Some(end);
            self.root = None;
        }
    }

    /// The running supervisor at `path`.
    pub fn supervisor(&self, path: &str) -> Option<&Supervisor> {
        let ids = path.split('/').filter(|id| !id.is_empty());
        ids.fold(self.root.as_ref(), |above, id| {
            let above = above?;
            above.children[above.place(id)?].inner.as_ref()
        })
    }

    pub fn child(&self, path: &str) -> Option<&Child> {
        let (above, id) = split(path);
        let above = self.supervisor(above)?;
        above.place(id).map(|place| &above.children[place])
    }

    // --- What happens to the children ----------------------------------------------------------------------------

    /// A worker that is up ends of itself: normally (which takes the time of its stop), or it crashes.
    pub fn exit(&mut self, path: &str, reason: Reason) {
        let (above, id) = split(path);
        self.at(above, &mut |above, world| {
            let default = world.policies[&above.path].shutdown;
            let child = above.children.iter().find(|child| child.spec.id == id && child.is_up())?;
            let Body::Worker(takes) = child.spec.body else { return None };
            let patience = child.patience(default).unwrap_or(Millis::MAX);
            let (end, time) = match takes {
                _ if reason != "normal" => (reason, 0),
                Some(takes) if takes <= patience => (reason, takes),
                _ => ("failed", patience), // it was stopping for longer than it may
            };
            world.now += time;
            world.note(if end == "normal" { "stopped" } else { "torn" }, &child.path);
            above.exited(id, end, world)
        });
    }

    /// A child dies, with all that is below it.
    pub fn die(&mut self, path: &str, reason: Reason) {
        let (above, id) = split(path);
        self.at(above, &mut |above, world| {
            let child = above.children.iter_mut().find(|child| child.spec.id == id && child.is_up())?;
            match &mut child.inner {
                Some(inner) => inner.kill(world),
                None => world.note("torn", &child.path),
            }
            above.exited(id, reason, world)
        });
    }

    /// Stops the whole.
    pub fn shutdown(&mut self) {
        if let Some(mut root) = self.root.take() {
            root.stop(None, &mut self.world);
            self.over = Some("shutdown");
        }
    }

    /// When the next timer goes off.
    pub fn next_timer(&self) -> Option<Millis> {
        self.root.as_ref()?.timers(&self.world).into_iter().map(|(due, ..)| due).min()
    }

    /// Lets time pass.
    pub fn wait_until(&mut self, end: Millis) {
        while let Some(root) = &self.root {
            let mut timers = root.timers(&self.world);
            timers.sort();
            let Some((due, path, id)) = timers.first().filter(|(due, ..)| *due <= end).cloned() else { break };
            self.world.unsure |= timers.iter().filter(|(other, ..)| *other == due).count() > 1;
            (self.world.now, self.last_timer) = (due, due);
            self.at(&path, &mut |above, world| match &id {
                Some(id) => above.comes_up(id, world),
                None => above.group_comes_up(world),
            });
        }
        self.world.now = self.world.now.max(end);
    }

    // --- Admin calls ---------------------------------------------------------------------------------------------

    /// A call that is not answered at once waits for timers.
    fn call(&mut self, path: &str, call: impl Fn(&mut Supervisor, &mut World) -> Option<Answer>) -> Answer {
        let mut answer = Some("no supervisor".to_owned());
        self.world.answer = None;
        self.at(path, &mut |above, world| {
            answer = call(above, world);
            None
        });
        loop {
            if let Some(answer) = answer.or_else(|| self.world.answer.take()) {
                return answer;
            }
            answer = None;
            self.wait_until(self.next_timer().expect("what is not answered at once waits for a timer"));
        }
    }

    pub fn start_child(&mut self, path: &str, spec: &ChildSpec) -> Answer {
        self.call(path, |above, world| {
            if let Some(place) = above.place(&spec.id) {
                let up = above.children[place].is_up();
                return Some(if up { "already started" } else { "already present" }.to_owned());
            }
            above.children.push(above.declare(spec));
            above.start_asked(&spec.id, Ask::Start, world)
        })
    }

    /// A child that is new and slow to start is terminated after a while: while it starts, or when it is `up`.
    pub fn start_and_terminate(&mut self, path: &str, spec: &ChildSpec, after: Millis, up: bool) {
        self.at(path, &mut |above, world| {
            above.children.push(above.declare(spec));
            let path = join(&above.path, &spec.id);
            if up {
                world.plans.insert(path, [Plan::Slow].into());
                let _ = above.start_child(&spec.id, world);
                above.stop_child(&spec.id, None, world);
            } else {
                world.next_generation(&path);
                world.note(Plan::Slow.mark(), &path);
                world.now += after;
                above.forget(&spec.id, world);
            }
            None
        });
    }

    /// What is terminated stays down until somebody restarts it, or a sibling that crashes later, by the strategy.
    pub fn terminate_child(&mut self, path: &str, id: &str) -> Answer {
        self.call(path, |above, world| {
            let Some(place) = above.place(id) else { return Some("not found".to_owned()) };
            let held = above.is_of_group(place);
            above.stop_child(id, None, world);
            if above.place(id).is_some() {
                (above.child(id).held, above.child(id).attempts) = (held, 0);
            }
            Some("done".to_owned())
        })
    }

    pub fn restart_child(&mut self, path: &str, id: &str) -> Answer {
        self.call(path, |above, world| match above.refusal(id) {
            None => above.start_asked(id, Ask::Restart, world),
            Some(refusal) => Some(refusal.to_owned()),
        })
    }

    pub fn delete_child(&mut self, path: &str, id: &str) -> Answer {
        self.call(path, |above, world| match above.refusal(id) {
            None => {
                above.forget(id, world);
                Some("done".to_owned())
            }
            Some(refusal) => Some(refusal.to_owned()),
        })
    }

    // --- What is seen --------------------------------------------------------------------------------------------

    pub fn count_children(&self, path: &str) -> ChildCounts {
        let children = self.supervisor(path).map_or(&[][..], |above| &above.children);
        let count = |is: &dyn Fn(&Child) -> bool| children.iter().filter(|child| is(child)).count();
        ChildCounts {
            specs: children.len(),
            active: count(&Child::is_up),
            workers: count(&|child| child.kind() == Kind::Worker),
            supervisors: count(&|child| child.kind() == Kind::Supervisor),
        }
    }

    pub fn which_children(&self, path: &str) -> Vec<Row> {
        let children = self.supervisor(path).map_or(&[][..], |above| &above.children);
        children.iter().map(|child| row(child, &self.world)).collect()
    }

    /// The tree without its root, each supervisor before its children.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        if let Some(root) = &self.root {
            root.rows(&self.world, &mut rows);
        }
        rows
    }
}

/// The path of a child's supervisor, and the child's id.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn happens_at(
    above: &mut Supervisor,
    ids: &[&str],
    world: &mut World,
    act: &mut dyn FnMut(&mut Supervisor, &mut World) -> Option<Reason>,
) -> Option<Reason> {
    let Some((id, rest)) = ids.split_first() else { return act(above, world) };
    let place = above.place(id)?;
    let end = happens_at(above.children[place].inner.as_mut()?, rest, world, act)?;
    above.exited(id, end, world)
}

fn row(child: &Child, world: &World) -> Row {
    let state = match child.state {
        State::Down => ActorState::Down,
        State::Up { .. } => ActorState::Running,
        State::Waiting(_) | State::Due => ActorState::Restarting,
    };
    let (generation, reason) = world.memory.get(&child.path).copied().unwrap_or_default();
    (child.path.clone(), child.kind(), state, generation, reason)
}

impl Supervisor {
    /// Starts a child for somebody; in a group that is down, when its turn comes.
    fn start_asked(&mut self, id: &str, ask: Ask, world: &mut World) -> Option<Answer> {
        let place = self.place(id)?;
        let waits = self.is_of_group(place);
        let child = self.child(id);
        child.asked = Some(ask);
        if waits {
            (child.state, child.held) = (State::Due, false);
        } else if self.start_child(id, world).is_err() && ask == Ask::Start {
            self.forget(id, world);
        }
        world.answer.take()
    }

    /// Whether a group that is down includes this place.
    fn is_of_group(&self, place: usize) -> bool {
        self.group.is_some_and(|(first, _)| place >= first)
    }

    /// Why `id` cannot be restarted or deleted by hand.
    fn refusal(&self, id: &str) -> Option<&'static str> {
        match self.place(id).map(|place| self.children[place].state) {
            _ if self.simple() => Some("simple_one_for_one"),
            None => Some("not found"),
            Some(State::Up { .. }) => Some("running"),
            Some(State::Waiting(_) | State::Due) => Some("restarting"),
            Some(State::Down) => None,
        }
    }

    fn timers(&self, world: &World) -> Vec<Timer> {
        let policy = world.policies[&self.path];
        // One that is shortened below what has been waited already is over at once.
        let due = |wait: Wait| (wait.since + policy.wait(wait.attempt)).max(world.now);
        let mut timers: Vec<_> = self.group.iter().map(|&(_, wait)| (due(wait), self.path.clone(), None)).collect();
        for child in &self.children {
            if let State::Waiting(wait) = child.state {
                timers.push((due(wait), self.path.clone(), Some(child.spec.id.clone())));
            }
            timers.extend(child.inner.iter().flat_map(|inner| inner.timers(world)));
        }
        timers
    }

    fn rows(&self, world: &World, rows: &mut Vec<Row>) {
        for child in &self.children {
            rows.push(row(child, world));
            if let Some(inner) = &child.inner {
                inner.rows(world, rows);
            }
        }
    }
}
