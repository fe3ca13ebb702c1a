//! The machine with simulated children, by example and by random play.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::{Just, ProptestConfig, any};
use proptest::strategy::Strategy as Generator;
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::world::{World, rules};
use super::*;
use crate::policy::QUIET_PERIOD;
use crate::spec::Restart;

use Restart::{Permanent, Temporary, Transient};
const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn one_for_one_restarts_the_one() {
    let mut world = World::new(Strategy::OneForOne, &[("a", Permanent), ("b", Permanent)]);
    assert_eq!(world.take(), ["start a", "start b", "ready"]);
    world.crash("a");
    assert_eq!(world.take(), ["restart a in 0", "start a"]);
}

#[test]
fn one_for_all_stops_the_rest_in_reverse_and_starts_all() {
    let mut world =
        World::new(Strategy::OneForAll, &[("a", Permanent), ("b", Permanent), ("c", Temporary), ("d", Permanent)]);
    world.take();
    world.crash("b");
    assert_eq!(
        world.take(),
        ["restart b in 0", "stop d", "stop c", "forget c", "stop a", "start a", "start b", "start d"]
    );
}

#[test]
fn rest_for_one_leaves_those_before_alone() {
    let mut world = World::new(Strategy::RestForOne, &[("a", Permanent), ("b", Permanent), ("c", Transient)]);
    world.take();
    world.crash("b");
    assert_eq!(world.take(), ["restart b in 0", "stop c", "start b", "start c"]);
}

#[test]
fn a_transient_child_is_restarted_only_after_an_abnormal_end() {
    let mut world = World::new(Strategy::OneForOne, &[("a", Transient), ("b", Temporary)]);
    world.take();
    world.crash("a");
    assert_eq!(world.take(), ["restart a in 0", "start a"]);
    world.exit(world.key("a"), &ExitReason::GaveUp);
    world.crash("b");
    assert_eq!(world.take(), ["forget b"]);
}

#[test]
fn a_second_crash_soon_waits_and_a_later_one_does_not() {
    let mut world = World::new(Strategy::OneForOne, &[("a", Permanent)]);
    world.take();
    world.crash("a");
    world.crash("a");
    assert_eq!(world.take(), ["restart a in 0", "start a", "restart a in a while"]);
    world.pass(MS(20));
    assert_eq!(world.take(), ["start a"]);
    world.pass(QUIET_PERIOD);
    world.crash("a");
    assert_eq!(world.take(), ["restart a in 0", "start a"]);
}

#[test]
fn the_time_that_an_end_takes_is_no_time_up() {
    for fallen in [false, true] {
        let mut world = World::new(Strategy::OneForOne, &[("a", Permanent)]);
        world.crash("a");
        world.take();
        world.pass(MS(20));
        let (key, run) = (world.key("a"), world.last_run);
        if fallen {
            world.machine.fallen(key, run, ExitReason::Killed, world.now);
        } else {
            world.machine.leaving(key, run, world.now);
        }
        world.pass(QUIET_PERIOD);
        world.crash("a");
        assert_eq!(world.take(), ["restart a in a while"]);
        world.pass(MS(20));
        assert_eq!(world.take(), ["start a"]);
        world.pass(QUIET_PERIOD);
        world.crash("a");
        assert_eq!(world.take(), ["restart a in 0", "start a"], "the next run counts anew");
    }
}

#[test]
fn one_restart_too_many_ends_it_children_in_reverse() {
    let mut world = World::new(Strategy::OneForOne, &[("a", Permanent), ("b", Permanent), ("c", Permanent)]);
    for _ in 0..3 {
        world.crash("b");
        world.pass(MS(100));
    }
    world.take();
    world.crash("b");
    assert_eq!(world.take(), ["gave up", "stop c", "stop a", "end"]);
    assert_eq!(world.ended, Some(ExitReason::GaveUp));
}

#[test]
fn a_failing_restart_counts_and_backs_off() {
    let mut world = World::new(Strategy::OneForOne, &[("a", Permanent)]);
    world.take();
    world.starts_fail = Some(ExitReason::Failed("no".into()));
    world.crash("a");
    assert_eq!(world.take(), ["restart a in 0", "start a", "restart a in a while"]);
    world.pass(MS(20));
    world.pass(MS(40));
    assert_eq!(world.take(), ["start a", "restart a in a while", "start a", "gave up", "end"]);
}

#[test]
fn a_shutdown_is_heard_while_a_start_hangs() {
    let mut world = World::idle(Strategy::OneForOne, AutoShutdown::Never);
    world.declare(rules("a", Permanent));
    world.declare(rules("b", Permanent));
    world.obedient = false;
    world.machine.begin(world.now);
    world.play();
    world.started(0);
    world.play();
    assert_eq!(world.take(), ["start a", "start b"]);
    world.machine.shutdown(world.now);
    world.play();
    assert_eq!(world.take(), ["kill b"]);
    world.obedient = true;
    world.exit(1, &ExitReason::Killed);
    world.play();
    assert_eq!(world.take(), ["stop a", "end"]);
}

#[test]
fn a_start_that_hangs_is_killed_and_has_failed() {
    let mut world = World::new(Strategy::OneForOne, &[("a", Permanent)]);
    world.obedient = false;
    world.crash("a");
    world.take();
    world.pass(world.now.policy.start);
    assert_eq!(world.take(), ["kill a"]);
    world.exit(0, &ExitReason::Killed);
    world.play();
    assert_eq!(world.take(), ["restart a in a while"]);
}

#[test]
fn who_does_not_stop_is_killed_and_then_abandoned() {
    let mut world = World::new(Strategy::OneForOne, &[("a", Permanent), ("b", Permanent)]);
    world.take();
    world.obedient = false;
    world.machine.shutdown(world.now);
    world.play();
    assert_eq!(world.take(), ["stop b"]);
    world.pass(world.now.policy.shutdown - MS(1));
    assert!(world.take().is_empty());
    world.pass(MS(1));
    assert_eq!(world.take(), ["kill b"]);
    world.obedient = true;
    world.pass(ABANDON_AFTER);
    assert_eq!(world.take(), ["abandon b", "stop a", "end"]);
}

#[test]
fn an_abandoned_run_that_ends_late_does_not_cancel_the_wait_for_the_next() {
    let mut world = World::new(Strategy::OneForOne, &[("a", Permanent)]);
    world.obedient = false;
    world.crash("a");
    let run = world.last_run;
    world.pass(world.now.policy.start);
    world.take();
    world.pass(ABANDON_AFTER);
    assert_eq!(world.take(), ["abandon a", "restart a in a while"]);
    world.machine.gone(world.key("a"), run, ExitReason::Killed, world.now);
    world.play();
    world.pass(MS(20));
    assert_eq!(world.take(), ["start a"]);
}

#[test]
fn dynamic_children_stop_at_once_under_one_timer() {
    let mut world = World::new(Strategy::SimpleOneForOne, &[("a", Permanent), ("b", Temporary), ("c", Transient)]);
    assert_eq!(world.take(), ["start a", "start b", "start c", "ready"]);
    world.obedient = false;
    world.machine.shutdown(world.now);
    world.play();
    assert_eq!(world.take(), ["stop a", "stop b", "stop c"]);
    world.obedient = true;
    world.exit(1, &ExitReason::Shutdown);
    world.play();
    assert_eq!(world.take(), ["forget b"]);
    world.pass(world.now.policy.shutdown);
    assert_eq!(world.take(), ["kill a", "kill c", "forget a", "forget c", "end"]);
    assert_eq!(world.machine.roster.sizes(), [0; 3]);
}

#[test]
fn a_child_that_falls_apart_slowly_is_restarted_when_it_is_gone_or_given_up_on() {
    for gone in [true, false] {
        let mut world = World::new(Strategy::OneForOne, &[("a", Permanent)]);
        world.take();
        let run = world.living[&0];
        world.machine.fallen(0, run, ExitReason::Killed, world.now);
        world.play();
        assert!(world.take().is_empty());
        if gone {
            world.crash("a");
            assert_eq!(world.take(), ["restart a in 0", "start a"]);
        } else {
            world.pass(ABANDON_AFTER);
            assert_eq!(world.take(), ["abandon a", "restart a in 0", "start a"]);
            // The old one ends at last: stale.
            let before = format!("{:?}", world.machine);
            world.machine.gone(0, run, ExitReason::Killed, world.now);
            assert_eq!(format!("{:?}", world.machine), before);
        }
    }
}

#[test]
fn it_ends_with_its_significant_children() {
    for (auto_shutdown, after_first) in [(AutoShutdown::Any, true), (AutoShutdown::All, false)] {
        let mut world = World::idle(Strategy::OneForOne, auto_shutdown);
        for id in ["a", "b"] {
            world.declare(ChildRules { significant: true, ..rules(id, Transient) });
        }
        world.declare(rules("c", Permanent));
        world.machine.begin(world.now);
        world.play();
        world.crash("a"); // restarted, so it means nothing
        world.exit(0, &ExitReason::Normal);
        world.play();
        assert_eq!(world.ended.is_some(), after_first);
        if !after_first {
            world.exit(1, &ExitReason::Normal);
            world.play();
        }
        assert_eq!(world.ended, Some(ExitReason::AutoShutdown));
    }
}

#[test]
fn a_significant_child_that_ends_before_its_siblings_are_up_ends_it_once_they_are() {
    let mut world = World::idle(Strategy::OneForOne, AutoShutdown::Any);
    world.declare(ChildRules { significant: true, ..rules("a", Transient) });
    world.declare(rules("b", Permanent));
    world.obedient = false;
    world.machine.begin(world.now);
    world.play();
    world.started(0);
    world.play();
    world.exit(0, &ExitReason::Normal);
    world.play();
    assert_eq!(world.take(), ["start a", "start b"], "a start that ends in order is no start that failed");
    world.obedient = true;
    world.started(1);
    world.play();
    assert_eq!(world.take(), ["ready", "stop b", "end"]);
    assert_eq!(world.ended, Some(ExitReason::AutoShutdown));
}

#[test]
fn a_group_that_cannot_come_up_tries_again_and_then_gives_up() {
    let mut world = World::new(Strategy::OneForAll, &[("a", Permanent), ("b", Permanent)]);
    world.take();
    world.starts_fail = Some(ExitReason::Failed("no".into()));
    world.crash("b");
    assert_eq!(
        world.take(),
        ["restart b in 0", "stop a", "start a", "restart a in 0", "start a", "restart a in a while"]
    );
    world.pass(MS(20));
    assert_eq!(world.take(), ["start a", "gave up", "end"]);
}

#[derive(Debug, Clone)]
enum Op {
    Started(u8),
    Exit(u8, u8),
    Fall(u8),
    Stale(u8),
    Pass(u16),
    Add(u8),
    Terminate(u8),
    Restart(u8),
    Delete(u8),
    StartsIgnore,
    Obey(bool),
    StartsFail(bool),
    Shutdown,
    Intensity(u8),
}

fn op() -> impl Generator<Value = Op> {
    prop_oneof![
        24 => any::<u8>().prop_map(Op::Started),
        36 => (any::<u8>(), 0..3_u8).prop_map(|(who, how)| Op::Exit(who, how)),
        6 => any::<u8>().prop_map(Op::Fall),
        12 => any::<u8>().prop_map(Op::Stale),
        18 => (0..2_000_u16).prop_map(Op::Pass),
        18 => any::<u8>().prop_map(Op::Add),
        12 => any::<u8>().prop_map(Op::Terminate),
        8 => any::<u8>().prop_map(Op::Restart),
        4 => any::<u8>().prop_map(Op::Delete),
        2 => Just(Op::StartsIgnore),
        12 => any::<bool>().prop_map(Op::Obey),
        6 => any::<bool>().prop_map(Op::StartsFail),
        1 => Just(Op::Shutdown),
        6 => (0..20_u8).prop_map(Op::Intensity),
    ]
}

fn nth(map: &BTreeMap<Key, Run>, index: u8) -> Option<(Key, Run)> {
    let index = usize::from(index) % map.len().max(1);
    map.iter().nth(index).map(|(&key, &run)| (key, run))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_the_promises_hold(
        strategy in prop_oneof![
            Just(Strategy::OneForOne), Just(Strategy::OneForAll), Just(Strategy::RestForOne), Just(Strategy::SimpleOneForOne)
        ],
        restarts in proptest::collection::vec(0..3_u8, 0..6),
        ops in proptest::collection::vec(op(), 0..60),
    ) {
        let kinds = [Permanent, Transient, Temporary];
        let mut world = World::idle(strategy, AutoShutdown::Never);
        world.now.policy.intensity = 10;
        for (index, restart) in restarts.iter().enumerate() {
            world.declare(rules(&format!("c{index}"), kinds[usize::from(*restart)]));
        }
        world.machine.begin(world.now);
        world.play();
        let (mut token, mut terminated) = (0, Vec::new());
        for op in ops {
            if world.ended.is_some() { break; }
            match op {
                Op::Started(who) => if let Some((key, _)) = nth(&world.living, who)
                    && !world.up.contains_key(&key) && !world.stopping.contains(&key) { world.started(key) },
                Op::Exit(who, how) => if let Some((key, _)) = nth(&world.living, who) {
                    world.exit(key, &[ExitReason::Killed, ExitReason::Normal, ExitReason::Failed("x".into())][usize::from(how)]);
                },
                Op::Fall(who) => if let Some((key, run)) = nth(&world.living, who) {
                    world.stopping.push(key);
                    world.machine.fallen(key, run, ExitReason::Killed, world.now);
                },
                Op::Stale(who) => if let Some((key, run)) = nth(&world.living, who) {
                    let before = format!("{:?}", world.machine);
                    world.machine.started(key, run - 1, world.now);
                    world.machine.gone(key, run - 1, ExitReason::Killed, world.now);
                    world.machine.fallen(key, run + 1_000, ExitReason::Killed, world.now);
                    prop_assert_eq!(format!("{:?}", &world.machine), before);
                },
                Op::Pass(time) => world.pass(MS(time.into())),
                Op::Add(restart) => {
                    token += 1;
                    let rules = rules(&format!("d{token}"), kinds[usize::from(restart) % 3]);
                    let id = rules.id.to_string();
                    if let Ok(key) = world.machine.declare(rules) {
                        world.ids.insert(key, id);
                        world.machine.start_child(key, token, world.now);
                    }
                }
                Op::Restart(who) => {
                    let ids: Vec<_> = world.ids.values().cloned().collect();
                    if let Some(id) = ids.get(usize::from(who) % ids.len().max(1)) {
                        token += 1;
                        let _ = world.machine.restart_child(id, token, world.now); // many are not down
                    }
                }
                Op::Delete(who) => {
                    let ids: Vec<_> = world.ids.values().cloned().collect();
                    if let Some(id) = ids.get(usize::from(who) % ids.len().max(1))
                        && world.machine.delete_child(id).is_ok() {
                        terminated.push(id.clone());
                    }
                }
                Op::Terminate(who) => {
                    let ids: Vec<_> = world.ids.values().cloned().collect();
                    if let Some(id) = ids.get(usize::from(who) % ids.len().max(1)) {
                        token += 1;
                        prop_assert_eq!(world.machine.terminate_child(id, token, world.now), Ok(()));
                        terminated.push(id.clone());
                    }
                }
                Op::Obey(obedient) => world.obedient = obedient,
                Op::StartsFail(fail) => world.starts_fail = fail.then(|| ExitReason::Failed("no".into())),
                Op::StartsIgnore => world.starts_fail = Some(ExitReason::Ignored),
                Op::Shutdown => world.machine.shutdown(world.now),
                Op::Intensity(intensity) => {
                    world.now.policy.intensity = intensity.into();
                    world.restarts.clear(); // counted by the limit in force at each restart; start over
                    world.now.at += Duration::from_secs(6);
                    let max = MS(u64::from(intensity) * 100);
                    world.now.policy.backoff = crate::policy::Backoff::new(max / 10, 2.0, max, 0.5).unwrap();
                    world.machine.revise(world.now);
                }
            }
            world.play();
        }
        // From here on everybody behaves, and time passes: all is up, or all has ended.
        world.obedient = true;
        world.starts_fail = None;
        while let Some((key, _)) = world.living.iter().map(|(&key, &run)| (key, run)).find(|(key, _)| !world.up.contains_key(key)) {
            if world.stopping.contains(&key) { world.exit(key, &ExitReason::Killed) } else { world.started(key) }
            world.play();
        }
        for _ in 0..50 {
            if let Some(at) = world.machine.deadline() {
                world.now.at = world.now.at.max(at);
                world.machine.tick(world.now);
                world.play();
            }
            for key in world.stopping.clone() {
                if world.living.contains_key(&key) { world.exit(key, &ExitReason::Killed); world.play(); }
            }
        }
        if world.ended.is_none() {
            prop_assert_eq!(world.machine.deadline(), None, "something is still under way");
            for (index, restart) in restarts.iter().enumerate() {
                let id = format!("c{index}");
                if kinds[usize::from(*restart)] == Permanent && !terminated.contains(&id) && !world.declined.contains(&id) {
                    prop_assert!(world.up.contains_key(&world.key(&id)), "{} is not back", id);
                }
            }
            world.machine.shutdown(world.now);
            world.take();
            let order: Vec<String> = world.up.keys().rev().map(|key| format!("stop {}", world.ids[key])).collect();
            world.play();
            if strategy != Strategy::SimpleOneForOne {
                let stops: Vec<String> = world.take().into_iter().filter(|line| line.starts_with("stop")).collect();
                prop_assert_eq!(stops, order);
            }
        }
        prop_assert!(world.ended.is_some());
        if strategy == Strategy::SimpleOneForOne {
            prop_assert_eq!(world.machine.roster.sizes(), [0; 3]);
        }
    }
}
