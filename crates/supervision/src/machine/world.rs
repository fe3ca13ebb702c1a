//! Simulated children for a machine, which obey unless told otherwise. The rules that always hold are checked here.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::policy::Policy;
use crate::spec::Restart;

pub(super) fn rules(id: &str, restart: Restart) -> ChildRules {
    ChildRules { id: id.into(), name: id.into(), kind: Kind::Worker, restart, shutdown: None, significant: false }
}

/// Simulated children: they obey at once unless told otherwise, and every rule that always holds is checked here.
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Now,
    /// Living incarnations.
    pub(super) living: BTreeMap<Key, Run>,
    pub(super) up: BTreeMap<Key, Run>,
    pub(super) stopping: Vec<Key>,
    pub(super) ids: BTreeMap<Key, String>,
    pub(super) log: Vec<String>,
    pub(super) obedient: bool,
    /// What each start ends with.
    pub(super) starts_fail: Option<ExitReason>,
    /// Those that declined to start at some time.
    pub(super) declined: Vec<String>,
    pub(super) ended: Option<ExitReason>,
    pub(super) restarts: Vec<Instant>,
    pub(super) last_run: Run,
}

impl World {
    pub(super) fn new(strategy: Strategy, children: &[(&str, Restart)]) -> Self {
        let mut world = Self::idle(strategy, AutoShutdown::Never);
        for (id, restart) in children {
            world.declare(rules(id, *restart));
        }
        world.machine.begin(world.now);
        world.play();
        world
    }

    pub(super) fn idle(strategy: Strategy, auto_shutdown: AutoShutdown) -> Self {
        let policy = Policy { intensity: 3, period: Duration::from_secs(5), ..Policy::default() };
        Self {
            machine: Machine::new(strategy, auto_shutdown, 7),
            now: Now { at: Instant::now(), policy },
            living: BTreeMap::new(),
            up: BTreeMap::new(),
            stopping: Vec::new(),
            ids: BTreeMap::new(),
            log: Vec::new(),
            obedient: true,
            starts_fail: None,
            declined: Vec::new(),
            ended: None,
            restarts: Vec::new(),
            last_run: 0,
        }
    }

    pub(super) fn declare(&mut self, rules: ChildRules) -> Key {
        let id = rules.id.to_string();
        let key = self.machine.declare(rules).unwrap();
        self.ids.insert(key, id);
        key
    }

    pub(super) fn key(&self, id: &str) -> Key {
        *self.ids.iter().find(|(_, other)| *other == id).unwrap().0
    }

    /// Lets the machine and obedient children go on until nothing happens any more without time.
    pub(super) fn play(&mut self) {
        let before = self.log.len();
        while let Some(action) = self.machine.next_action() {
            assert!(self.log.len() < before + 10_000, "no end of it: {:#?}", &self.log[before..before + 20]);
            assert_eq!(self.ended, None, "it has ended, and yet: {action:?}");
            let mut say = |what: &str, key: &Key| self.log.push(format!("{what} {}", self.ids[key]));
            match action {
                Action::Start { key, run } => {
                    say("start", &key);
                    assert!(run > self.last_run, "runs are numbered upward");
                    self.last_run = run;
                    assert_eq!(self.living.insert(key, run), None, "two incarnations of {} at once", self.ids[&key]);
                    if self.obedient {
                        match self.starts_fail.clone() {
                            Some(reason) => {
                                if reason == ExitReason::Ignored {
                                    self.declined.push(self.ids[&key].clone());
                                }
                                self.exit(key, &reason);
                            }
                            None => self.started(key),
                        }
                    }
                }
                Action::Stop { key } | Action::Kill { key } => {
                    say(if matches!(action, Action::Stop { .. }) { "stop" } else { "kill" }, &key);
                    // It may have died of itself a moment ago; then its end is on its way.
                    if self.living.contains_key(&key) {
                        self.stopping.push(key);
                        if self.obedient {
                            self.exit(key, &ExitReason::Shutdown);
                        }
                    }
                }
                Action::Abandon { key } => {
                    say("abandon", &key);
                    self.living.remove(&key);
                    self.up.remove(&key);
                }
                Action::Scheduled { key, delay, .. } => {
                    self.log.push(format!(
                        "restart {} in {}",
                        self.ids[&key],
                        if delay.is_zero() { "0" } else { "a while" }
                    ));
                    self.restarts.push(self.now.at);
                    let (at, policy) = (self.now.at, self.now.policy);
                    let recent = self.restarts.iter().filter(|&&then| at - then <= policy.period).count();
                    assert!(recent <= policy.intensity as usize, "restarted too often");
                }
                Action::Revised { key, .. } => assert!(!self.living.contains_key(&key), "it lives"),
                // Words for the books only; who comes up again shows in what is started.
                Action::Due { key } | Action::Rests { key } => assert!(!self.living.contains_key(&key), "it lives"),
                Action::Forget { key } => {
                    say("forget", &key);
                    assert!(!self.living.contains_key(&key), "forgot who is alive");
                    self.ids.remove(&key);
                }
                Action::Ready => self.log.push("ready".to_owned()),
                Action::GaveUp => self.log.push("gave up".to_owned()),
                Action::Reply { token, outcome } => self.log.push(format!("reply {token} {outcome:?}")),
                Action::End(reason) => {
                    assert!(self.living.is_empty(), "ended before its children");
                    assert_eq!(self.machine.deadline(), None);
                    self.log.push("end".to_owned());
                    self.ended = Some(reason);
                }
            }
        }
    }

    pub(super) fn started(&mut self, key: Key) {
        let run = self.living[&key];
        self.up.insert(key, run);
        self.machine.started(key, run, self.now);
    }

    pub(super) fn exit(&mut self, key: Key, reason: &ExitReason) {
        let run = self.living.remove(&key).unwrap();
        self.up.remove(&key);
        self.stopping.retain(|other| *other != key);
        self.machine.gone(key, run, reason.clone(), self.now);
    }

    pub(super) fn crash(&mut self, id: &str) {
        self.exit(self.key(id), &ExitReason::Killed);
        self.play();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.machine.tick(self.now);
        self.play();
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}
