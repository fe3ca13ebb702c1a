//! OTP's cases `do_not_save_*` to `simple_global_supervisor`: what is kept of a temporary child (nothing), and how a child
//! is found by those who do not supervise it.

use std::sync::Arc;

use crate::support::*;

/// A worker that lets go of what it was started with.
struct Forgetful;

impl Worker for Forgetful {
    type Message = ();
    type Args = Arc<()>;

    async fn start(large: Arc<()>, _: &Context<Self>) -> Result<Self, StartError> {
        drop(large);
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }
}

/// What is needed to start it again is kept for a child that may be started again, and only for that one.
#[tokio::test(start_paused = true)]
async fn do_not_save_start_parameters_for_temporary_children() {
    for strategy in FIXED.into_iter().chain([Strategy::SimpleOneForOne]) {
        let sup = flags(strategy, 2, 3600).start(vec![]).await;
        let large = Arc::new(());
        for n in 0..100 {
            sup.add(ChildSpec::once::<Forgetful>(format!("temporary{n}"), Arc::clone(&large))).await;
        }
        assert_eq!(sup.counts()[1], 100);
        assert_eq!(Arc::strong_count(&large), 1, "{strategy:?}: parameters of living temporary children are kept");
        for restart in [Restart::Permanent, Restart::Transient] {
            for n in 0..100 {
                let kept = Arc::clone(&large);
                let spec = ChildSpec::worker::<Forgetful>(format!("{restart:?}{n}"), move || Arc::clone(&kept));
                sup.add(spec.restart(restart)).await;
            }
        }
        assert_eq!(Arc::strong_count(&large), 201);
        sup.stop_well().await;
        drop(sup);
        settle().await;
        assert_eq!(Arc::strong_count(&large), 1, "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn do_not_save_child_specs_for_temporary_children() {
    for strategy in FIXED {
        for how in [How::Kill, How::Normal, How::Abnormal, How::Failing, How::Supervisor] {
            let sup = flags(strategy, 20, 3600).start(vec![]).await;
            let all = children(&["permanent", "transient", "temporary"]);
            let specs: Vec<_> = all.iter().zip(RESTARTS).map(|(child, restart)| child.restart(restart)).collect();
            for (child, spec) in all.iter().zip(&specs) {
                sup.add(spec.clone()).await;
                sup.terminate(child, how).await;
                let again = sup.start_child(spec.clone()).await;
                let what = format!("{strategy:?} {how:?} {}: {again:?}", child.id());
                match (child.id(), how) {
                    ("temporary", _) => assert!(matches!(again, Ok(Start::Running)), "{what}"),
                    (_, How::Supervisor) | ("transient", How::Normal) => {
                        assert!(matches!(again, Err(StartChildError::AlreadyPresent)), "{what}");
                        assert!(matches!(sup.restart_child(child.id()).await, Ok(Start::Running)));
                    }
                    _ => assert!(matches!(again, Err(StartChildError::AlreadyStarted)), "{what}"),
                }
            }
            assert_eq!(sup.which(), ["permanent running", "transient running", "temporary running"]);
            sup.stop_well().await;
        }
    }
}

/// Ten times as many cost about ten times as much. Measured is this thread's time on a processor, on which all actors of
/// the case run, so that whatever else the machine does hardly counts.
#[tokio::test(start_paused = true)]
async fn simple_one_for_one_scale_many_temporary_children() {
    let sup = flags(Strategy::SimpleOneForOne, 2, 3600).start(vec![]).await;
    let mut costs = Vec::new();
    for many in [500, 5_000] {
        let all: Vec<_> = (0..many).map(|n| child(&format!("child{n}"))).collect();
        for child in &all {
            sup.add(child.restart(Restart::Temporary)).await;
        }
        sup.log.clear();
        let begun = cpu_time();
        for child in &all {
            assert_eq!(sup.terminate_child(child.id()).await, Ok(()));
        }
        costs.push(cpu_time() - begun);
        assert_eq!(sup.counts(), [0; 4]);
    }
    let scale = costs[1].as_secs_f64() / costs[0].as_secs_f64();
    assert!(scale < 50.0, "ten times as many children took {scale:.1} times as long: {costs:?}");
    sup.stop_well().await;
}

/// A temporary child that its sibling's restart takes down stays down, and nothing counts that as a failure.
#[tokio::test(start_paused = true)]
async fn temporary_bystander() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let (child1, child2) = (child("child1"), child("child2"));
        let sup = flags(strategy, 2, 300).start(vec![]).await;
        sup.add(child1.restart(Restart::Permanent)).await;
        sup.add(child2.restart(Restart::Temporary)).await;
        sup.terminate(&child1, How::Normal).await;
        pass(secs(60)).await;
        assert!(sup.is_up().await);
        assert_eq!(sup.which(), ["child1 running"], "{strategy:?}");
        assert_eq!(sup.log.exits("child2"), [ExitReason::Shutdown]);
        assert_eq!((child1.starts(), child2.starts()), (2, 1));
        sup.stop_well().await;
    }
}

/// A supervisor and a worker that others find by slots, where OTP's are found by global names.
async fn start_found() -> (Sup, SupervisorSlot, Child) {
    let rules = flags(Strategy::OneForAll, 3, 60);
    let (sup2, server) = (SupervisorSlot::new(), child("child"));
    let middle = {
        let (sup2, server) = (sup2.clone(), server.clone());
        ChildSpec::supervisor("middle", move || rules.spec(vec![server.spec()], &sup2))
    };
    let top = rules.start(vec![middle]).await;
    assert!(sup2.is_running());
    assert_eq!(server.pid().await, Some(1));
    (top, sup2, server)
}

/// Another server is found by then, and nothing any more after the end.
async fn found_again(top: Sup, sup2: &SupervisorSlot, server: &Child, middle: usize) {
    settle().await;
    assert!(sup2.is_running());
    assert_eq!((server.pid().await, server.living()), (Some(2), 1));
    assert_eq!(top.log.who("started").iter().filter(|who| *who == "middle").count(), middle);
    drop(top); // kills all of it
    settle().await;
    assert!(!sup2.is_running());
    assert_eq!((server.pid().await, server.living()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn simple_global_supervisor() {
    // Its supervisor is killed.
    let (top, sup2, server) = start_found().await;
    assert_eq!(top.system.tree().inject("middle", Fault::Kill), Ok(1));
    found_again(top, &sup2, &server, 2).await;
    // It is killed itself.
    let (top, sup2, server) = start_found().await;
    assert_eq!(top.system.tree().inject("middle/child", Fault::Kill), Ok(1));
    found_again(top, &sup2, &server, 1).await;
    // It ends.
    let (top, sup2, server) = start_found().await;
    server.tell(Do::Stop);
    found_again(top, &sup2, &server, 1).await;
    // It is terminated and restarted on request.
    let (top, sup2, server) = start_found().await;
    assert_eq!(bounded(sup2.terminate_child("child")).await, Ok(()));
    assert_eq!(server.pid().await, None);
    assert!(matches!(bounded(sup2.restart_child("child")).await, Ok(Start::Running)));
    found_again(top, &sup2, &server, 1).await;
}
