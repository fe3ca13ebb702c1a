//! Requests to a machine: what is done, what is refused, and what a child that declines to start means.

use std::time::Duration;

use super::world::{World, rules};
use super::*;
use crate::spec::Restart;

use Restart::{Permanent, Temporary, Transient};
const MS: fn(u64) -> Duration = Duration::from_millis;

impl World {
    fn add(&mut self, child: ChildRules, token: Token) -> Result<(), Refusal> {
        let id = child.id.to_string();
        let key = self.machine.declare(child)?;
        self.ids.insert(key, id);
        self.machine.start_child(key, token, self.now);
        self.play();
        Ok(())
    }

    fn terminate(&mut self, id: &str, token: Token) -> Result<(), Refusal> {
        let result = self.machine.terminate_child(id, token, self.now);
        self.play();
        result
    }

    fn restart(&mut self, id: &str, token: Token) -> Result<(), Refusal> {
        let result = self.machine.restart_child(id, token, self.now);
        self.play();
        result
    }

    fn delete(&mut self, id: &str) -> Result<(), Refusal> {
        let result = self.machine.delete_child(id);
        self.play();
        result
    }

    fn failing(&mut self) {
        self.starts_fail = Some(ExitReason::Failed("no".into()));
    }
}

fn three(strategy: Strategy) -> World {
    let mut world = World::new(strategy, &[("a", Permanent), ("b", Transient), ("c", Permanent)]);
    world.take();
    world
}

#[test]
fn a_started_child_is_the_last() {
    let mut world = three(Strategy::OneForAll);
    assert_eq!(world.add(rules("d", Permanent), 1), Ok(()));
    assert_eq!(world.take(), ["start d", "reply 1 Done"]);
    world.crash("a");
    assert_eq!(
        world.take(),
        ["restart a in 0", "stop d", "stop c", "stop b", "start a", "start b", "start c", "start d"]
    );
}

#[test]
fn a_started_child_that_fails_is_not_kept_and_does_not_count() {
    let mut world = three(Strategy::OneForAll);
    world.failing();
    for token in 0..20 {
        assert_eq!(world.add(rules("d", Permanent), token), Ok(()));
        assert_eq!(
            world.take(),
            ["start d".to_owned(), format!("reply {token} Failed(Failed(\"no\"))"), "forget d".to_owned()]
        );
    }
    assert!(world.restarts.is_empty());
}

#[test]
fn an_id_that_is_there_is_refused_by_its_state() {
    let mut world = three(Strategy::OneForOne);
    assert_eq!(world.add(rules("a", Permanent), 1), Err(Refusal::AlreadyStarted));
    assert_eq!(world.terminate("a", 2), Ok(()));
    assert_eq!(world.add(rules("a", Permanent), 3), Err(Refusal::AlreadyPresent));
    world.failing();
    world.crash("c");
    assert_eq!(world.add(rules("c", Permanent), 4), Err(Refusal::AlreadyPresent), "it waits to be restarted");
}

#[test]
fn terminate_restart_and_delete_go_by_the_state() {
    let mut world = three(Strategy::OneForOne);
    assert_eq!(world.restart("a", 1), Err(Refusal::Running));
    assert_eq!(world.delete("a"), Err(Refusal::Running));
    assert_eq!(world.terminate("a", 2), Ok(()));
    assert_eq!(world.take(), ["stop a", "reply 2 Done"]);
    assert_eq!(world.terminate("a", 3), Ok(()), "it is down already");
    assert_eq!(world.restart("a", 4), Ok(()));
    assert_eq!(world.take(), ["reply 3 Done", "start a", "reply 4 Done"]);
    assert_eq!(world.terminate("a", 5), Ok(()));
    assert_eq!(world.delete("a"), Ok(()));
    assert_eq!(world.take(), ["stop a", "reply 5 Done", "forget a"]);
    assert_eq!(world.restart("a", 6), Err(Refusal::NotFound));
    assert_eq!(world.delete("a"), Err(Refusal::NotFound));
    assert_eq!(world.terminate("a", 7), Err(Refusal::NotFound));
}

#[test]
fn a_transient_child_that_is_done_is_kept_and_a_temporary_one_is_not() {
    let mut world = World::new(Strategy::OneForOne, &[("a", Transient), ("b", Temporary), ("c", Temporary)]);
    world.take();
    world.exit(world.key("a"), &ExitReason::Normal);
    world.exit(world.key("b"), &ExitReason::Normal);
    world.play();
    assert_eq!(world.take(), ["forget b"]);
    assert_eq!(world.restart("a", 1), Ok(()));
    assert_eq!(world.take(), ["start a", "reply 1 Done"]);
    assert_eq!(world.terminate("c", 2), Ok(()));
    assert_eq!(world.take(), ["stop c", "forget c", "reply 2 Done"]);
}

#[test]
fn a_failed_restart_by_hand_keeps_the_child_down_and_does_not_count() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let mut world = three(strategy);
        world.terminate("b", 1).unwrap();
        world.failing();
        world.take();
        for token in 2..20 {
            assert_eq!(world.restart("b", token), Ok(()));
            assert_eq!(world.take(), ["start b".to_owned(), format!("reply {token} Failed(Failed(\"no\"))")]);
        }
        assert_eq!(world.up.len(), 2);
        assert_eq!(world.machine.deadline(), None);
    }
}

#[test]
fn a_child_in_backoff_that_is_terminated_stays_down() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let mut world = three(strategy);
        world.failing();
        world.crash("a");
        assert_eq!(world.restart("a", 1), Err(Refusal::Restarting), "{strategy:?}");
        assert_eq!(world.delete("a"), Err(Refusal::Restarting));
        world.starts_fail = None;
        world.take();
        assert_eq!(world.terminate("a", 2), Ok(()));
        assert_eq!(world.take(), ["reply 2 Done"]);
        world.pass(MS(60_000));
        // Its siblings, which went down with it, are not stranded.
        let others = if strategy == Strategy::OneForOne { vec![] } else { vec!["start b", "start c"] };
        assert_eq!(world.take(), others, "{strategy:?}");
        assert_eq!(world.restart("a", 3), Ok(()));
        assert_eq!(world.take(), ["start a", "reply 3 Done"]);
    }
}

#[test]
fn a_sibling_of_a_group_in_backoff_is_restarting_until_it_is_terminated() {
    let mut world = three(Strategy::OneForAll);
    world.failing();
    world.crash("c");
    world.starts_fail = None;
    assert_eq!(world.restart("b", 1), Err(Refusal::Restarting));
    assert_eq!(world.terminate("b", 2), Ok(()));
    world.take();
    // Asked back before the group comes up, it waits for its turn.
    assert_eq!(world.restart("b", 3), Ok(()));
    assert!(world.take().is_empty());
    world.pass(MS(60_000));
    assert_eq!(world.take(), ["start a", "start b", "reply 3 Done", "start c"]);
}

#[test]
fn a_child_started_while_a_group_is_on_its_way_waits_for_its_turn() {
    let mut world = three(Strategy::OneForAll);
    world.failing();
    world.crash("c");
    world.starts_fail = None;
    world.take();
    assert_eq!(world.add(rules("d", Permanent), 1), Ok(()));
    assert!(world.take().is_empty());
    world.pass(MS(60_000));
    assert_eq!(world.take(), ["start a", "start b", "start c", "start d", "reply 1 Done"]);
}

#[test]
fn a_shutdown_answers_all_who_wait() {
    let mut world = three(Strategy::OneForAll);
    world.failing();
    world.crash("c");
    world.add(rules("d", Permanent), 1).unwrap();
    world.take();
    world.machine.shutdown(world.now);
    world.play();
    assert_eq!(world.take(), ["reply 1 Stopping", "end"]);
    assert_eq!(world.add(rules("e", Permanent), 2), Err(Refusal::Stopping));
    assert_eq!(world.restart("a", 3), Err(Refusal::Stopping));
    assert_eq!(world.delete("a"), Err(Refusal::Stopping));
}

#[test]
fn two_who_terminate_the_same_child_are_both_told_when_it_is_gone() {
    let mut world = three(Strategy::OneForOne);
    world.obedient = false;
    world.terminate("c", 1).unwrap();
    world.terminate("c", 2).unwrap();
    assert_eq!(world.restart("c", 3), Err(Refusal::Running));
    assert_eq!(world.take(), ["stop c"]);
    world.exit(world.key("c"), &ExitReason::Shutdown);
    world.play();
    assert_eq!(world.take(), ["reply 1 Done", "reply 2 Done"]);
}

#[test]
fn a_terminated_child_comes_back_with_its_siblings_as_in_otp() {
    let mut world = three(Strategy::OneForAll);
    world.terminate("b", 1).unwrap();
    world.take();
    world.crash("c");
    assert_eq!(world.take(), ["restart c in 0", "stop a", "start a", "start b", "start c"]);
}

#[test]
fn a_dynamic_supervisor_keeps_nobody_to_restart_or_delete() {
    let mut world = World::new(Strategy::SimpleOneForOne, &[("a", Permanent)]);
    assert_eq!(world.restart("a", 1), Err(Refusal::SimpleOneForOne));
    assert_eq!(world.delete("nobody"), Err(Refusal::SimpleOneForOne));
}

#[test]
fn a_child_that_declines_its_first_start_is_kept_and_its_siblings_go_on() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let mut world = World::idle(strategy, AutoShutdown::Never);
        world.declare(rules("a", Permanent));
        world.declare(rules("b", Temporary));
        world.starts_fail = Some(ExitReason::Ignored);
        world.machine.begin(world.now);
        world.play();
        assert_eq!(world.take(), ["start a", "start b", "forget b", "ready"]);
        world.starts_fail = None;
        assert_eq!(world.add(rules("a", Permanent), 1), Err(Refusal::AlreadyPresent));
        assert_eq!(world.restart("a", 2), Ok(()));
        assert_eq!(world.take(), ["start a", "reply 2 Done"]);
    }
}

#[test]
fn a_child_that_declines_to_be_restarted_stays_down() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let mut world = three(strategy);
        world.obedient = false;
        world.crash("c");
        while !world.stopping.is_empty() {
            world.exit(world.stopping[0], &ExitReason::Shutdown);
            world.play();
        }
        if strategy == Strategy::OneForAll {
            for id in ["a", "b"] {
                world.started(world.key(id));
                world.play();
            }
        }
        world.take();
        world.exit(world.key("c"), &ExitReason::Ignored);
        world.play();
        assert!(world.take().is_empty(), "{strategy:?}");
        assert_eq!((world.up.len(), world.machine.deadline()), (2, None));
        assert_eq!(world.delete("c"), Ok(()));
    }
}

#[test]
fn a_child_that_declines_on_request_says_so() {
    let mut world = three(Strategy::OneForOne);
    world.starts_fail = Some(ExitReason::Ignored);
    world.add(rules("d", Permanent), 1).unwrap();
    world.add(rules("e", Temporary), 2).unwrap();
    assert_eq!(world.take(), ["start d", "reply 1 Ignored", "start e", "reply 2 Ignored", "forget e"]);
    world.restart("d", 3).unwrap();
    assert_eq!(world.take(), ["start d", "reply 3 Ignored"]);
    let mut world = World::new(Strategy::SimpleOneForOne, &[]);
    world.take();
    world.starts_fail = Some(ExitReason::Ignored);
    world.add(rules("d", Permanent), 1).unwrap();
    assert_eq!(world.take(), ["start d", "reply 1 Ignored", "forget d"]);
}

#[test]
fn times_without_an_end_are_no_overflow() {
    let mut world = World::idle(Strategy::OneForOne, AutoShutdown::Never);
    world.now.policy.start = Duration::MAX;
    world.now.policy.shutdown = Duration::MAX;
    world.declare(rules("a", Permanent));
    world.machine.begin(world.now);
    world.play();
    world.obedient = false;
    world.machine.shutdown(world.now);
    world.play();
    assert_eq!(world.take(), ["start a", "ready", "stop a"]);
}

#[test]
fn a_child_that_declines_after_a_gap_in_the_order_is_asked_once() {
    let mut world = World::new(Strategy::OneForAll, &[("t", Temporary), ("a", Permanent)]);
    world.crash("t");
    world.take();
    world.starts_fail = Some(ExitReason::Ignored);
    world.crash("a");
    assert_eq!(world.take(), ["restart a in 0", "start a"]);
}

#[test]
fn a_child_before_a_group_that_waits_comes_up_with_a_later_crash() {
    let mut world = three(Strategy::RestForOne);
    world.crash("c");
    world.crash("c");
    world.terminate("b", 1).unwrap();
    world.take();
    world.crash("a");
    assert_eq!(world.take(), ["restart a in 0", "start a", "start b", "start c"]);
}

#[test]
fn a_changed_backoff_acts_on_the_waits_under_way() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::SimpleOneForOne] {
        let mut world = World::new(strategy, &[("a", Permanent)]);
        let backoff =
            |seconds: u64| crate::policy::Backoff::new(MS(seconds * 1000), 1.0, MS(seconds * 1000), 0.0).unwrap();
        world.now.policy.backoff = backoff(3600);
        world.crash("a");
        world.crash("a");
        assert_eq!(world.machine.deadline(), Some(world.now.at + MS(3_600_000)), "{strategy:?}");
        world.pass(MS(10_000));
        world.now.policy.backoff = backoff(60);
        world.machine.revise(world.now);
        world.play();
        assert_eq!(world.machine.deadline(), Some(world.now.at + MS(50_000)), "counted from the crash on");
        world.take();
        world.now.policy.backoff = backoff(5);
        world.machine.revise(world.now);
        world.play();
        assert_eq!(world.take(), ["start a"], "its new time is over");
    }
}
