//! What OTP promises and its suite does not show, and what is promised beyond OTP.

use std::time::Duration;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn children_start_one_after_the_other_from_left_to_right() {
    let all = children(&["a", "b", "c"]);
    for child in &all {
        child.begins(Begin::Slowly(secs(2)));
    }
    let begun = Instant::now();
    let sup = flags(Strategy::OneForOne, 2, 3600).start(specs(&all)).await;
    assert_took(begun.elapsed(), secs(6));
    assert_eq!(sup.log.who("started"), ["a", "b", "c", "root"]);
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_stops_what_was_started_in_reverse() {
    for strategy in FIXED {
        let all = children(&["a", "b", "c", "d"]);
        for child in &all {
            child.ends(End::After(secs(1)));
        }
        all[2].begins(Begin::Fail);
        let (log, slot) = (Log::default(), SupervisorSlot::new());
        let rules = flags(strategy, 2, 3600);
        let options = SystemOptions { observer: Some(log.observer()), ..SystemOptions::default() };
        let begun = Instant::now();
        let failed = bounded(System::start(rules.spec(specs(&all), &slot), options)).await;
        assert_took(begun.elapsed(), secs(2));
        let Err(StartError::Ended { reason: ExitReason::Failed(text), .. }) = failed else { panic!("{failed:?}") };
        assert!(text.contains("`c`") && text.contains("told to fail"), "{text}");
        let expected = [
            "a: started",
            "b: started",
            "c: start failed failed",
            "b: exited shutdown",
            "a: exited shutdown",
            "root: start failed failed",
        ];
        assert_eq!(log.lines(), expected);
        assert_eq!(all[3].starts(), 0);
    }
}

/// OTP's supervisor is blocked by a start; this one serves requests, and the start has a bound.
#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_is_terminated_on_request_and_otherwise_killed_in_time() {
    for strategy in FIXED.into_iter().chain([Strategy::SimpleOneForOne]) {
        let (hanging, other) = (child("hanging"), child("other"));
        hanging.begins(Begin::Hang);
        let sup = flags(strategy, 2, 3600).start(vec![]).await;
        let ask = || {
            let (slot, spec) = (sup.slot.clone(), hanging.spec());
            tokio::spawn(async move { slot.start_child(spec).await })
        };
        let starting = ask();
        settle().await;
        sup.add(other.restart(Restart::Temporary)).await;
        assert_eq!(sup.terminate_child("hanging").await, Ok(()));
        let failed = bounded(starting).await.unwrap();
        assert!(matches!(failed, Err(StartChildError::Failed(_))), "{failed:?}");
        assert_eq!(sup.which(), ["other running"]);

        let begun = Instant::now();
        let failed = bounded(ask()).await.unwrap();
        assert_took(begun.elapsed(), secs(30));
        assert!(matches!(&failed, Err(StartChildError::Failed(reason)) if reason.is_abnormal()), "{failed:?}");
        assert_eq!((sup.which(), hanging.starts()), (vec!["other running".to_owned()], 2));

        let starting = ask();
        settle().await;
        sup.stop_well().await;
        assert!(matches!(bounded(starting).await.unwrap(), Err(StartChildError::NotRunning)));
    }
}

/// The waits before restarts that were announced.
fn waits(sup: &Sup) -> Vec<Duration> {
    let wait = |event: &Event| match event.kind {
        EventKind::RestartScheduled { delay, .. } => Some(delay),
        _ => None,
    };
    sup.log.events().iter().filter_map(wait).collect()
}

#[tokio::test(start_paused = true)]
async fn attempts_wait_longer_and_longer_and_a_quiet_period_starts_anew() {
    let backoff = Backoff::new(secs(1), 2.0, secs(5), 0.0).unwrap();
    for strategy in FIXED.into_iter().chain([Strategy::SimpleOneForOne]) {
        let child1 = child("child1");
        let sup = flags(strategy, 100, 3600).backoff(backoff).start(vec![]).await;
        sup.add(child1.spec()).await;
        child1.begins(Begin::Fail);
        sup.terminate(&child1, How::Abnormal).await;
        pass(secs(14)).await;
        assert_eq!(waits(&sup), [0, 1, 2, 4, 5, 5].map(secs), "{strategy:?}");
        child1.begins(Begin::Well);
        pass(secs(5) + QUIET_PERIOD).await;
        assert_eq!(sup.which(), ["child1 running"]);
        sup.log.clear();
        sup.terminate(&child1, How::Abnormal).await;
        assert_eq!(waits(&sup), [secs(0)], "{strategy:?}");
        assert_eq!(sup.which(), ["child1 running"]);
        // Not up for long enough: the row goes on.
        sup.terminate(&child1, How::Abnormal).await;
        assert_eq!(waits(&sup), [secs(0), secs(1)], "{strategy:?}");
        sup.stop_well().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_on_request_counts_for_nothing() {
    let child1 = child("child1");
    let sup = flags(Strategy::OneForOne, 0, 3600).start(vec![child1.spec()]).await;
    for _ in 0..20 {
        assert_eq!(sup.terminate_child("child1").await, Ok(()));
        assert!(matches!(sup.restart_child("child1").await, Ok(Start::Running)));
    }
    assert!(sup.is_up().await);
    sup.stop_well().await;
}

/// As OTP's `one_for_all` and `rest_for_one` do: all from there on are started, whoever had ended before.
#[tokio::test(start_paused = true)]
async fn a_group_that_is_restarted_brings_back_who_had_ended_or_been_terminated() {
    for (strategy, culprit) in [(Strategy::OneForAll, 3), (Strategy::RestForOne, 0)] {
        let all = children(&["a", "ended", "terminated", "d"]);
        let sup =
            flags(strategy, 2, 3600).start(all.iter().map(|child| child.restart(Restart::Transient)).collect()).await;
        sup.terminate(&all[1], How::Normal).await;
        sup.terminate(&all[2], How::Supervisor).await;
        assert_eq!(sup.which(), ["a running", "ended down", "terminated down", "d running"]);
        sup.terminate(&all[culprit], How::Abnormal).await;
        assert_eq!(sup.which(), ["a running", "ended running", "terminated running", "d running"]);
        assert_eq!(pids(&all).await, [Some(2); 4]);
        sup.stop_well().await;
    }
}

/// While a group waits to come up, terminating one of its children takes that one out of it, and no other.
#[tokio::test(start_paused = true)]
async fn a_child_terminated_while_its_group_waits_stays_down_and_the_rest_come_up() {
    for terminated in 0..3 {
        let all = children(&["a", "b", "c"]);
        let sup = flags(Strategy::OneForAll, 9, 3600).backoff(steady_backoff(secs(2))).start(specs(&all)).await;
        sup.terminate(&all[1], How::Abnormal).await;
        sup.terminate(&all[1], How::Abnormal).await; // the second in a row waits
        assert_eq!(all.iter().map(Child::living).sum::<usize>(), 0);
        assert_eq!(sup.terminate_child(all[terminated].id()).await, Ok(()));
        pass(secs(60)).await;
        let expected: Vec<_> = (0..3).map(|n| usize::from(n != terminated)).collect();
        assert_eq!(all.iter().map(Child::living).collect::<Vec<_>>(), expected, "{terminated}");
        assert!(matches!(sup.restart_child(all[terminated].id()).await, Ok(Start::Running)));
        sup.stop_well().await;
    }
}

/// A child that was added is the last one; a child that was restarted on request is where it was.
#[tokio::test(start_paused = true)]
async fn the_place_in_the_order_is_kept() {
    let all = children(&["a", "b", "c", "added"]);
    let sup = flags(Strategy::RestForOne, 2, 3600).start(specs(&all[..3])).await;
    sup.add(all[3].spec()).await;
    assert_eq!(sup.terminate_child("a").await, Ok(()));
    assert!(matches!(sup.restart_child("a").await, Ok(Start::Running)));
    sup.terminate(&all[1], How::Abnormal).await;
    assert_eq!(pids(&all).await, [Some(2), Some(2), Some(2), Some(2)]);
    sup.log.clear();
    sup.stop_well().await;
    assert_eq!(sup.log.who("exited shutdown"), ["added", "c", "b", "a", "root"]);
}

/// A child that is asked for while a group comes up waits for its turn, and is the last of it.
#[tokio::test(start_paused = true)]
async fn a_child_added_while_its_group_comes_up_waits_for_its_turn() {
    let all = children(&["a", "b", "added"]);
    let sup = flags(Strategy::OneForAll, 2, 3600).start(specs(&all[..2])).await;
    all[0].begins(Begin::Slowly(secs(1)));
    all[1].begins(Begin::Slowly(secs(1)));
    sup.terminate(&all[0], How::Abnormal).await;
    sup.log.clear();
    sup.add(all[2].spec()).await;
    assert_eq!(sup.log.who("started"), ["a", "b", "added"]);
    sup.stop_well().await;
}

/// An attempt that fails is not the added child's: whatever its restart type, it goes on waiting.
#[tokio::test(start_paused = true)]
async fn a_child_added_while_its_group_does_not_come_up_waits_on() {
    for restart in RESTARTS {
        let all = children(&["a", "b", "added"]);
        let rules = flags(Strategy::OneForAll, 9, 3600).backoff(steady_backoff(secs(2)));
        let sup = rules.start(specs(&all[..2])).await;
        all[1].begins(Begin::Fail);
        sup.terminate(&all[0], How::Abnormal).await;
        let (slot, spec) = (sup.slot.clone(), all[2].restart(restart));
        let adding = tokio::spawn(async move { slot.start_child(spec).await });
        pass(secs(5)).await;
        assert_eq!((all[2].starts(), adding.is_finished()), (0, false), "{restart:?}");
        all[1].begins(Begin::Well);
        let added = bounded(adding).await.unwrap();
        assert!(matches!(added, Ok(Start::Running)), "{restart:?}: {added:?}");
        assert_eq!(sup.which(), ["a running", "b running", "added running"]);
        sup.stop_well().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_significant_child_is_not_the_last_while_another_is_still_to_start() {
    for restarted in [false, true] {
        let all = children(&["first", "slow", "last"]);
        let specs = vec![
            all[0].restart(Restart::Transient).significant(),
            all[1].restart(Restart::Transient),
            all[2].restart(Restart::Transient).significant(),
        ];
        let rules = flags(Strategy::OneForAll, 2, 3600).auto_shutdown(AutoShutdown::All);
        let sup = if restarted {
            let sup = rules.start(specs).await;
            all[1].begins(Begin::Slowly(secs(5)));
            sup.terminate(&all[1], How::Kill).await;
            all[0].tell(Do::Stop);
            pass(secs(10)).await;
            sup
        } else {
            all[1].begins(Begin::Slowly(secs(5)));
            let starting = tokio::spawn(async move { rules.try_start(specs).await });
            pass(secs(1)).await;
            all[0].tell(Do::Stop);
            bounded(starting).await.unwrap().unwrap()
        };
        assert!(sup.is_up().await, "restarted: {restarted}");
        assert_eq!(sup.which(), ["first down", "slow running", "last running"]);
        all[2].tell(Do::Stop);
        assert_eq!(sup.ended().await, ExitReason::AutoShutdown);
    }
}

/// Two ask at the same time: both are answered.
#[tokio::test(start_paused = true)]
async fn a_child_may_be_terminated_by_two_at_once() {
    for strategy in [Strategy::OneForOne, Strategy::SimpleOneForOne] {
        let child1 = child("child1");
        let sup = flags(strategy, 2, 3600).start(vec![child1.spec()]).await;
        child1.ends(End::After(ms(500)));
        let ask = || {
            let slot = sup.slot.clone();
            tokio::spawn(async move { slot.terminate_child("child1").await })
        };
        let (one, other) = (ask(), ask());
        settle().await;
        // Meanwhile it is neither to be restarted nor to be deleted nor to be started.
        let started = sup.start_child(child1.spec()).await;
        assert!(matches!(started, Err(StartChildError::AlreadyPresent | StartChildError::AlreadyStarted)));
        if strategy == Strategy::OneForOne {
            assert!(matches!(sup.restart_child("child1").await, Err(RestartChildError::Running)));
            assert!(matches!(sup.delete_child("child1").await, Err(DeleteChildError::Running)));
        }
        assert_eq!(bounded(one).await.unwrap(), Ok(()));
        assert_eq!(bounded(other).await.unwrap(), Ok(()));
        assert_eq!(sup.log.exits("child1"), [ExitReason::Shutdown]);
        sup.stop_well().await;
    }
}

/// Names are a system's own: two of the same do not know of each other.
#[tokio::test(start_paused = true)]
async fn two_systems_with_the_same_names_do_not_meet() {
    let (one, other) = (children(&["a", "b"]), children(&["a", "b"]));
    let first = flags(Strategy::OneForAll, 2, 3600).start(specs(&one)).await;
    let second = flags(Strategy::OneForAll, 2, 3600).start(specs(&other)).await;
    first.terminate(&one[0], How::Abnormal).await;
    assert_eq!(pids(&one).await, [Some(2), Some(2)]);
    assert_eq!(pids(&other).await, [Some(1), Some(1)]);
    first.stop_well().await;
    assert!(second.is_up().await);
    assert_eq!(second.counts(), [2, 2, 0, 2]);
    second.stop_well().await;
}

/// A child that ends while it is restarted or stopped with its siblings is not counted: one crash is one restart.
#[tokio::test(start_paused = true)]
async fn crashes_within_a_restart_of_all_count_once() {
    let all = children(&["a", "b", "c", "d"]);
    let sup = flags(Strategy::OneForAll, 1, 3600).start(specs(&all)).await;
    all[3].ends(End::After(ms(500)));
    all[0].tell(Do::Die);
    pass(ms(100)).await;
    all[1].tell(Do::Die);
    all[2].tell(Do::Fail);
    pass(secs(1)).await;
    assert!(sup.is_up().await);
    assert_eq!(pids(&all).await, [Some(2); 4]);
    assert_eq!(sup.log.who("restart"), ["a"]);
    sup.stop_well().await;
}
