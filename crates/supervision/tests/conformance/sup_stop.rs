//! OTP's group `sup_stop`: the three ways to be stopped, and who ends meanwhile of itself.

use crate::support::*;

/// Stops the system; how long that took, by the paused clock.
async fn timed_stop(sup: &Sup) -> std::time::Duration {
    let begun = Instant::now();
    sup.stop_well().await;
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn sup_stop_infinity() {
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
    let (inner, child2) = (child("inner"), child("child2"));
    let nested = {
        let inner = inner.clone();
        move || SupervisorSpec::one_for_one(vec![inner.spec().shutdown(Shutdown::Infinity)])
    };
    sup.add(ChildSpec::supervisor("child1", nested).shutdown(Shutdown::Infinity)).await;
    sup.add(child2.spec().shutdown(Shutdown::Infinity)).await;
    inner.ends(End::After(secs(3600)));
    child2.ends(End::After(secs(7200)));
    assert_took(timed_stop(&sup).await, secs(3 * 3600));
    for path in ["child1", "child1/inner", "child2"] {
        assert_eq!(sup.log.exits(path), [ExitReason::Shutdown], "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn sup_stop_timeout() {
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
    let all = children(&["child1", "child2", "child3"]);
    for child in &all {
        sup.add(child.spec()).await;
    }
    all[1].tell(Do::Sleep(secs(200))); // busy
    all[2].ends(End::Never); // stopping, and not done with it
    settle().await;
    assert_took(timed_stop(&sup).await, secs(2));
    assert_eq!(sup.log.exits("child1"), [ExitReason::Shutdown]);
    assert_eq!(sup.log.exits("child2"), [ExitReason::Killed]);
    assert_eq!(sup.log.exits("child3"), [ExitReason::Killed]);
}

#[tokio::test(start_paused = true)]
async fn sup_stop_timeout_dynamic() {
    let sup = flags(Strategy::SimpleOneForOne, 2, 3600).start(vec![]).await;
    let all = children(&["child1", "child2", "child3", "child4"]);
    for child in &all {
        sup.add(child.restart(Restart::Temporary)).await;
    }
    for busy in &all[1..] {
        busy.tell(Do::Sleep(secs(200)));
    }
    settle().await;
    assert_took(timed_stop(&sup).await, secs(1)); // not one after the other
    assert_eq!(sup.log.exits("child1"), [ExitReason::Shutdown]);
    for busy in &all[1..] {
        assert_eq!(sup.log.exits(busy.id()), [ExitReason::Killed]);
    }
}

#[tokio::test(start_paused = true)]
async fn sup_stop_brutal_kill() {
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
    let (child1, child2) = (child("child1"), child("child2"));
    sup.add(child1.spec()).await;
    sup.add(child2.spec().shutdown(Shutdown::Kill)).await;
    child2.ends(End::Never); // it is not asked
    assert_took(timed_stop(&sup).await, secs(0));
    assert_eq!(sup.log.exits("child1"), [ExitReason::Shutdown]);
    assert_eq!(sup.log.exits("child2"), [ExitReason::Killed]);
}

#[tokio::test(start_paused = true)]
async fn sup_stop_brutal_kill_dynamic() {
    let sup = flags(Strategy::SimpleOneForOne, 2, 3600).start(vec![]).await;
    let all: Vec<_> = (1..=10).map(|n| child(&format!("child{n}"))).collect();
    for child in &all {
        sup.add(child.restart(Restart::Temporary).shutdown(Shutdown::Kill)).await;
        child.ends(End::Never);
    }
    assert_took(timed_stop(&sup).await, secs(0));
    assert_eq!(sup.log.who("exited killed").len(), 10);
    assert!(all.iter().all(|child| child.living() == 0));
}

/// While the last child takes its time to stop, all others end of themselves, each in another way.
#[tokio::test(start_paused = true)]
async fn sup_stop_race() {
    for strategy in FIXED {
        let sup = flags(strategy, 2, 3600).start(vec![]).await;
        let (first, last) = (child("child_a"), child("child_z"));
        sup.add(first.restart(Restart::Temporary)).await;
        let mut racing = Vec::new();
        for restart in RESTARTS {
            for (how, kind) in [("stop", "normal"), ("die", "panicked"), ("fail", "failed"), ("kill", "killed")] {
                let child = child(&format!("{restart:?}-{how}"));
                sup.add(child.restart(restart)).await;
                racing.push((child, how, kind));
            }
        }
        sup.add(last.restart(Restart::Temporary).shutdown(Shutdown::Timeout(secs(2)))).await;
        last.ends(End::After(secs(1)));

        let begun = Instant::now();
        sup.system.request_stop();
        pass(ms(200)).await;
        for (child, how, _) in &racing {
            match *how {
                "stop" => child.tell(Do::Stop),
                "die" => child.tell(Do::Die),
                "fail" => child.tell(Do::Fail),
                _ => assert_eq!(sup.system.tree().inject(child.id(), Fault::Kill), Ok(1)),
            }
        }
        assert_eq!(sup.ended().await, ExitReason::Shutdown);
        assert_took(begun.elapsed(), secs(1));
        for (child, _, kind) in &racing {
            assert_eq!(sup.log.exit_kinds(child.id()), [*kind], "{}", child.id());
            assert_eq!((child.starts(), child.living()), (1, 0), "{}", child.id());
        }
        assert_eq!(sup.log.exits("child_a"), [ExitReason::Shutdown]);
        assert_eq!(sup.log.exits("child_z"), [ExitReason::Shutdown]);
        assert_eq!(sup.log.count("root: gave up"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn sup_stop_non_shutdown_exit_dynamic() {
    for restart in RESTARTS {
        let sup = flags(Strategy::SimpleOneForOne, 2, 3600).start(vec![]).await;
        let all = children(&["shutdown", "panicked", "killed", "normal"]);
        for child in &all {
            sup.add(child.restart(restart)).await;
        }
        all[1].ends(End::Panic);
        all[2].ends(End::Never);
        all[3].tell(Do::Stop); // it has not got to it when the supervisor is told to stop
        sup.stop_well().await;
        for child in &all {
            assert_eq!(sup.log.exit_kinds(child.id()), [child.id()], "{restart:?}");
            assert_eq!((child.starts(), child.living()), (1, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sup_stop_manual() {
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
    let all = children(&["child1", "child2", "child3"]);
    sup.add(all[0].spec().shutdown(Shutdown::Kill)).await;
    sup.add(all[1].spec()).await;
    sup.add(all[2].spec()).await;
    all[2].tell(Do::Sleep(secs(100)));
    settle().await;
    assert_took(timed_stop(&sup).await, secs(1));
    let exits = ["child1", "child2", "child3"].map(|path| sup.log.exit_kinds(path));
    assert_eq!(exits, [["killed"], ["shutdown"], ["killed"]]);
    // Once more does no harm.
    assert_eq!(sup.stop().await, ExitReason::Shutdown);
}

/// Who waits for the stop gives up; the stop goes on.
#[tokio::test(start_paused = true)]
async fn sup_stop_manual_timeout() {
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
    let (child1, child2) = (child("child1"), child("child2"));
    sup.add(child1.spec().shutdown(Shutdown::Timeout(secs(5)))).await;
    sup.add(child2.spec()).await;
    child1.tell(Do::Sleep(secs(1)));
    settle().await;
    assert!(tokio::time::timeout(ms(100), sup.system.stop()).await.is_err());
    assert_eq!(sup.ended().await, ExitReason::Shutdown);
    assert_eq!(sup.log.exits("child1"), [ExitReason::Shutdown]);
    assert_eq!(sup.log.exits("child2"), [ExitReason::Shutdown]);
}
