//! OTP's cases between `sup_stop` and the restart groups: the requests, what is refused, and the flags.

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn child_adm() {
    for strategy in FIXED {
        let child1 = child("child1");
        let sup = flags(strategy, 1, 1000).start(vec![child1.spec()]).await;
        assert_eq!(sup.which(), ["child1 running"]);
        assert_eq!(sup.counts(), [1, 1, 0, 1]);
        // A start of what is running.
        let started = sup.start_child(child1.spec()).await;
        assert!(matches!(started, Err(StartChildError::AlreadyStarted)), "{started:?}");

        // Termination.
        assert_eq!(sup.terminate_child("hej").await, Err(TerminateChildError::NotFound));
        assert_eq!(sup.terminate_child("child1").await, Ok(()));
        assert_eq!(sup.log.exits("child1"), [ExitReason::Shutdown]);
        assert_eq!(sup.which(), ["child1 down"]);
        assert_eq!(sup.counts(), [1, 0, 0, 1]);
        assert_eq!(sup.terminate_child("child1").await, Ok(()));

        // A start of what is there and not running.
        let started = sup.start_child(child1.spec()).await;
        assert!(matches!(started, Err(StartChildError::AlreadyPresent)), "{started:?}");

        // Restart.
        assert!(matches!(sup.restart_child("child1").await, Ok(Start::Running)));
        assert_eq!(child1.pid().await, Some(2));
        assert_eq!(sup.which(), ["child1 running"]);
        assert_eq!(sup.counts(), [1, 1, 0, 1]);
        assert!(matches!(sup.restart_child("child1").await, Err(RestartChildError::Running)));
        assert!(matches!(sup.restart_child("child2").await, Err(RestartChildError::NotFound)));

        // Deletion.
        assert!(matches!(sup.delete_child("child1").await, Err(DeleteChildError::Running)));
        assert!(matches!(sup.delete_child("hej").await, Err(DeleteChildError::NotFound)));
        assert_eq!(sup.terminate_child("child1").await, Ok(()));
        assert!(matches!(sup.delete_child("child1").await, Ok(())));
        assert!(matches!(sup.restart_child("child1").await, Err(RestartChildError::NotFound)));
        assert_eq!(sup.which(), Vec::<String>::new());
        assert_eq!(sup.counts(), [0; 4]);

        // A start of what is new again.
        sup.add(child1.spec()).await;
        assert_eq!(sup.which(), ["child1 running"]);
        assert_eq!(child1.pid().await, Some(3));
        sup.stop_well().await;
    }
}

#[tokio::test(start_paused = true)]
async fn child_adm_without_a_supervisor() {
    let nobody = SupervisorSlot::new();
    let child1 = child("child1");
    assert!(!nobody.is_running());
    assert_eq!((which(&nobody), counts(&nobody)), (vec![], [0; 4]));
    assert!(matches!(nobody.start_child(child1.spec()).await, Err(StartChildError::NotRunning)));
    assert!(matches!(nobody.terminate_child("child1").await, Err(TerminateChildError::NotRunning)));
    assert!(matches!(nobody.restart_child("child1").await, Err(RestartChildError::NotRunning)));
    assert!(matches!(nobody.delete_child("child1").await, Err(DeleteChildError::NotRunning)));

    // The same after its end, and while it is on its way down.
    let sup = flags(Strategy::OneForOne, 1, 1000).start(vec![child1.spec()]).await;
    child1.ends(End::After(ms(500)));
    sup.system.request_stop();
    pass(ms(100)).await;
    assert!(matches!(sup.start_child(child("new").spec()).await, Err(StartChildError::NotRunning)));
    assert!(matches!(
        sup.restart_child("child1").await,
        Err(RestartChildError::NotRunning | RestartChildError::Running)
    ));
    assert_eq!(sup.ended().await, ExitReason::Shutdown);
    assert!(matches!(sup.start_child(child1.spec()).await, Err(StartChildError::NotRunning)));
    assert!(matches!(sup.terminate_child("child1").await, Err(TerminateChildError::NotRunning)));
    assert_eq!(child1.starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn child_adm_simple() {
    let sup = flags(Strategy::SimpleOneForOne, 2, 3600).start(vec![]).await;
    assert_eq!(sup.which(), Vec::<String>::new());
    assert_eq!(sup.counts(), [0; 4]);
    let (child1, child2) = (child("child1"), child("child2"));
    sup.add(child1.spec()).await;
    assert_eq!(sup.which(), ["child1 running"]);
    sup.add(child2.spec()).await;
    assert_eq!(sup.which(), ["child1 running", "child2 running"]);
    assert_eq!(sup.counts(), [2, 2, 0, 2]);
    let started = sup.start_child(child1.spec()).await;
    assert!(matches!(started, Err(StartChildError::AlreadyStarted)), "{started:?}");

    // Restart and deletion are not for children of this kind, whoever they are.
    for id in ["child1", "nobody"] {
        assert!(matches!(sup.restart_child(id).await, Err(RestartChildError::SimpleOneForOne)));
        assert!(matches!(sup.delete_child(id).await, Err(DeleteChildError::SimpleOneForOne)));
    }

    // Termination forgets.
    assert_eq!(sup.terminate_child("nobody").await, Err(TerminateChildError::NotFound));
    assert_eq!(sup.terminate_child("child1").await, Ok(()));
    assert_eq!((child1.living(), child1.pid().await), (0, None));
    assert_eq!(sup.which(), ["child2 running"]);
    assert_eq!(sup.counts(), [1, 1, 0, 1]);
    assert_eq!(sup.terminate_child("child1").await, Err(TerminateChildError::NotFound));
    assert!(matches!(sup.restart_child("child1").await, Err(RestartChildError::SimpleOneForOne)));
    assert_eq!(sup.which(), ["child2 running"]);
    sup.stop_well().await;
}

/// The same round as `child_adm`, by a child whose automatic restart has to work after all of it.
#[tokio::test(start_paused = true)]
async fn extra_return() {
    let child1 = child("child1");
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![child1.spec()]).await;
    for round in 1..=3 {
        assert_eq!(sup.terminate_child("child1").await, Ok(()));
        assert_eq!(sup.terminate_child("child1").await, Ok(()));
        assert!(matches!(sup.restart_child("child1").await, Ok(Start::Running)));
        assert_eq!(sup.terminate_child("child1").await, Ok(()));
        assert!(sup.delete_child("child1").await.is_ok());
        sup.add(child1.spec()).await;
        assert_eq!(child1.pid().await, Some(2 * round + 1));
    }
    sup.terminate(&child1, How::Abnormal).await;
    assert_eq!(sup.which(), ["child1 running"]);
    assert_eq!(sup.counts(), [1, 1, 0, 1]);
    assert_eq!((child1.pid().await, child1.living()), (Some(8), 1));
    sup.stop_well().await;
}

/// Asks for a start of each; all are to be refused for this reason, with nothing started and nothing kept.
async fn refused(sup: &Sup, spec: ChildSpec, reason: SpecError) {
    let before = sup.which();
    let refused = sup.start_child(spec).await;
    assert!(matches!(&refused, Err(StartChildError::Invalid(error)) if *error == reason), "{refused:?}");
    assert_eq!(sup.which(), before);
}

#[tokio::test(start_paused = true)]
async fn child_specs() {
    let fine = child("fine");
    let name = |text: &str| text.to_owned();
    let nameless = child("");
    let significant = child("child").spec().significant();
    for strategy in FIXED {
        let sup = flags(strategy, 2, 3600).start(vec![fine.spec()]).await;
        refused(&sup, nameless.spec(), SpecError::EmptyName(name(""))).await;
        refused(&sup, child("child").spec().named(""), SpecError::EmptyName(name("child"))).await;
        refused(&sup, significant.clone(), SpecError::SignificantPermanent(name("child"))).await;
        let temporary = significant.clone().restart(Restart::Temporary);
        refused(&sup, temporary, SpecError::SignificantWithoutAutoShutdown(name("child"))).await;
        // An id of its own with another's name: its path would not be its own.
        let namesake = child("other").spec().named("fine");
        refused(&sup, namesake.clone(), SpecError::Duplicate(name("other"))).await;
        // One that is right itself, and has below it what is not.
        let below = ChildSpec::supervisor("sup", || SupervisorSpec::one_for_one(vec![child("").spec()]));
        let path = sup.system.tree().find("").unwrap().path.child("sup");
        let error = Box::new(SpecError::EmptyName(name("")));
        refused(&sup, below, SpecError::Below { path, error }).await;
        // With the one who had the name, the name goes.
        assert_eq!(sup.terminate_child("fine").await, Ok(()));
        refused(&sup, namesake.clone(), SpecError::Duplicate(name("other"))).await;
        assert!(sup.delete_child("fine").await.is_ok());
        sup.add(namesake).await;
        assert!(sup.is_up().await);
        sup.stop_well().await;
        // The same in a supervisor's own specification, and nothing has been started then.
        fine.begins(Begin::Well);
        let starts = fine.starts();
        for (broken, reason) in [
            (nameless.spec(), SpecError::EmptyName(name(""))),
            (significant.clone(), SpecError::SignificantPermanent(name("child"))),
            (fine.spec(), SpecError::Duplicate(name("fine"))),
        ] {
            let refused = flags(strategy, 2, 3600).try_start(vec![fine.spec(), broken]).await;
            assert!(matches!(&refused, Err(StartError::Invalid { error, .. }) if *error == reason), "{refused:?}");
        }
        assert_eq!((fine.starts(), nameless.starts()), (starts, 0));
    }
}

/// Every combination of what a specification can say; refused are exactly those that contradict themselves.
#[tokio::test(start_paused = true)]
async fn child_specs_map() {
    let shutdowns = [None, Some(Shutdown::Timeout(secs(1))), Some(Shutdown::Infinity), Some(Shutdown::Kill)];
    for auto_shutdown in [AutoShutdown::Never, AutoShutdown::Any, AutoShutdown::All] {
        for restart in RESTARTS {
            for shutdown in shutdowns {
                for kind in [Kind::Worker, Kind::Supervisor] {
                    for significant in [false, true] {
                        let mut spec = match kind {
                            Kind::Worker => child("child").bare_spec(),
                            Kind::Supervisor => ChildSpec::supervisor("child", || SupervisorSpec::one_for_one(vec![])),
                        };
                        spec = spec.restart(restart);
                        if let Some(shutdown) = shutdown {
                            spec = spec.shutdown(shutdown);
                        }
                        if significant {
                            spec = spec.significant();
                        }
                        let what = format!("{auto_shutdown:?} {spec:?}");
                        let started = flags(Strategy::OneForOne, 2, 3600)
                            .auto_shutdown(auto_shutdown)
                            .try_start(vec![spec])
                            .await;
                        let reason = match started {
                            Ok(sup) => {
                                assert_eq!(sup.which(), ["child running"], "{what}");
                                sup.stop_well().await;
                                None
                            }
                            Err(StartError::Invalid { error, .. }) => Some(error),
                            Err(other) => panic!("{what}: {other}"),
                        };
                        let expected = match (significant, restart, auto_shutdown) {
                            (false, ..) => None,
                            (true, Restart::Permanent, _) => Some(SpecError::SignificantPermanent("child".to_owned())),
                            (true, _, AutoShutdown::Never) => {
                                Some(SpecError::SignificantWithoutAutoShutdown("child".to_owned()))
                            }
                            (true, ..) => None,
                        };
                        assert_eq!(reason, expected, "{what}");
                    }
                }
            }
        }
    }
}

/// Strategies and auto_shutdown are types here, so what is left to refuse is numbers.
#[tokio::test(start_paused = true)]
async fn sup_flags() {
    let fine = Policy::default();
    assert_eq!(fine.check("all"), Ok(()));
    assert_eq!(Policy { intensity: 0, shutdown: secs(0), ..fine }.check("all"), Ok(()));
    let broken = [
        (Policy { period: secs(0), ..fine }, PolicyError::Period("default".to_owned())),
        (Policy { start: secs(0), ..fine }, PolicyError::Start("default".to_owned())),
    ];
    // As a supervisor's own, and beside one that is right.
    let child1 = child("child1");
    for (policy, reason) in broken {
        let spec = SupervisorSpec::one_for_one(vec![child1.spec()]);
        let refused = start_spec(spec, SupervisorSlot::new(), policy).await;
        assert!(matches!(&refused, Err(StartError::Policy(error)) if *error == reason), "{refused:?}");
        assert_eq!(child1.starts(), 0);
    }
    let patch = PolicyPatch { period: Some(secs(0)), ..PolicyPatch::default() };
    let set = PolicySet::new(fine).with(PathPattern::parse("rooms/*").unwrap(), patch);
    assert_eq!(set.check(), Err(PolicyError::Period("rooms/*".to_owned())));
    assert!(Backoff::new(secs(2), 2.0, secs(1), 0.0).is_err());
    assert!(Backoff::new(secs(1), 0.5, secs(2), 0.0).is_err());
    assert!(Backoff::new(secs(1), 2.0, secs(2), 1.5).is_err());
}

/// An intensity of 0 forgives nothing; a crash a period is forgiven for ever by an intensity of 1.
#[tokio::test(start_paused = true)]
async fn multiple_restarts() {
    let child1 = child("child1");
    let sup = flags(Strategy::OneForOne, 1, 1).start(vec![]).await;
    sup.add(child1.spec().shutdown(Shutdown::Kill)).await;
    for crash in 1..=20 {
        sup.terminate(&child1, How::Abnormal).await;
        assert_eq!(child1.pid().await, Some(crash + 1));
        pass(ms(2100)).await;
    }
    assert!(sup.is_up().await);
    assert_eq!(sup.terminate_child("child1").await, Ok(()));
    assert!(sup.delete_child("child1").await.is_ok());
    sup.stop_well().await;

    let sup = flags(Strategy::OneForOne, 0, 3600).start(vec![child1.spec()]).await;
    sup.terminate(&child1, How::Abnormal).await;
    assert_eq!(sup.ended().await, ExitReason::GaveUp);
    assert_eq!((child1.living(), sup.log.count("child1: restart")), (0, 0));
}
