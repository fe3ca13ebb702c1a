//! OTP's group `sup_start`: starts that go well, that are declined and that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn sup_start_normal() {
    for strategy in FIXED.into_iter().chain([Strategy::SimpleOneForOne]) {
        let sup = flags(strategy, 2, 3600).start(vec![]).await;
        assert!(sup.is_up().await);
        assert_eq!(sup.which(), Vec::<String>::new());
        sup.stop_well().await;
        assert_eq!(sup.log.lines(), ["root: started", "root: exited shutdown"]);
    }
}

/// The supervisor that declines is a child: a root that did would be no system.
#[tokio::test(start_paused = true)]
async fn sup_start_ignore_init() {
    let wanted = Arc::new(AtomicBool::new(false));
    let inner = child("worker");
    let declining = {
        let (wanted, inner) = (Arc::clone(&wanted), inner.clone());
        ChildSpec::supervisor_or_ignore("sup", move || {
            wanted.load(Ordering::SeqCst).then(|| SupervisorSpec::one_for_one(vec![inner.spec()]))
        })
    };
    let other = child("other");
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![declining, other.spec()]).await;
    assert_eq!(sup.which(), ["sup down", "other running"]);
    assert_eq!(sup.counts(), [2, 1, 1, 1]);
    assert_eq!(sup.log.lines(), ["sup: ignored", "other: started", "root: started"]);

    // It may want to later.
    assert!(matches!(sup.restart_child("sup").await, Ok(Start::Ignored)));
    wanted.store(true, Ordering::SeqCst);
    assert!(matches!(sup.restart_child("sup").await, Ok(Start::Running)));
    assert_eq!(sup.tree(), ["sup running", "sup/worker running", "other running"]);
    assert_eq!(sup.log.exits("sup"), []);
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn sup_start_ignore_child() {
    for strategy in FIXED {
        let sup = flags(strategy, 2, 3600).start(vec![]).await;
        let (child1, child2) = (child("child1"), child("child2"));
        child1.begins(Begin::Ignore);
        assert!(matches!(sup.start_child(child1.spec()).await, Ok(Start::Ignored)));
        assert!(matches!(sup.start_child(child2.spec()).await, Ok(Start::Running)));
        assert_eq!(sup.which(), ["child1 down", "child2 running"]);
        assert_eq!(sup.counts(), [2, 1, 0, 2]);
        assert_eq!(sup.log.lines(), ["root: started", "child1: ignored", "child2: started"]);

        // Its specification is kept, so it can be asked again.
        child1.begins(Begin::Well);
        assert!(matches!(sup.restart_child("child1").await, Ok(Start::Running)));
        assert_eq!(sup.which(), ["child1 running", "child2 running"]);
        sup.stop_well().await;
    }
}

#[tokio::test(start_paused = true)]
async fn sup_start_ignore_child_of_the_specification() {
    for restart in [Restart::Permanent, Restart::Transient] {
        let all = children(&["a", "b", "c"]);
        all[1].begins(Begin::Ignore);
        let sup =
            flags(Strategy::OneForAll, 2, 3600).start(all.iter().map(|child| child.restart(restart)).collect()).await;
        assert_eq!(sup.which(), ["a running", "b down", "c running"]);
        assert_eq!(sup.log.lines(), ["a: started", "b: ignored", "c: started", "root: started"]);
        sup.stop_well().await;
    }
}

#[tokio::test(start_paused = true)]
async fn sup_start_ignore_temporary_child() {
    let (child1, child2) = (child("child1"), child("child2"));
    child1.begins(Begin::Ignore);
    let specs = vec![child1.restart(Restart::Temporary), child2.restart(Restart::Temporary)];
    let sup = flags(Strategy::OneForOne, 2, 3600).start(specs).await;
    assert_eq!(sup.which(), ["child2 running"]);
    assert_eq!(sup.counts(), [1, 1, 0, 1]);
    assert!(matches!(sup.restart_child("child1").await, Err(RestartChildError::NotFound)));
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn sup_start_ignore_temporary_child_start_child() {
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
    let (child1, child2) = (child("child1"), child("child2"));
    child1.begins(Begin::Ignore);
    assert!(matches!(sup.start_child(child1.restart(Restart::Temporary)).await, Ok(Start::Ignored)));
    sup.add(child2.restart(Restart::Temporary)).await;
    assert_eq!(sup.which(), ["child2 running"]);
    assert_eq!(sup.counts(), [1, 1, 0, 1]);
    // Nothing of it was kept: its id is free.
    child1.begins(Begin::Well);
    sup.add(child1.restart(Restart::Temporary)).await;
    assert_eq!(sup.which(), ["child2 running", "child1 running"]);
    sup.stop_well().await;
}

async fn ignoring_dynamic(restart: Restart) {
    let sup = flags(Strategy::SimpleOneForOne, 2, 3600).start(vec![]).await;
    let (child1, child2) = (child("child1"), child("child2"));
    child1.begins(Begin::Ignore);
    assert!(matches!(sup.start_child(child1.restart(restart)).await, Ok(Start::Ignored)));
    sup.add(child2.restart(restart)).await;
    assert_eq!(sup.which(), ["child2 running"]);
    assert_eq!(sup.counts(), [1, 1, 0, 1]);
    sup.stop_well().await;
    assert_eq!(child2.living(), 0);
}

#[tokio::test(start_paused = true)]
async fn sup_start_ignore_temporary_child_start_child_simple() {
    ignoring_dynamic(Restart::Temporary).await;
}

#[tokio::test(start_paused = true)]
async fn sup_start_ignore_permanent_child_start_child_simple() {
    ignoring_dynamic(Restart::Permanent).await;
    ignoring_dynamic(Restart::Transient).await;
}

/// A specification is a value, so what can be wrong with it is what it says.
#[tokio::test(start_paused = true)]
async fn sup_start_error_return() {
    let good = child("a");
    let twice = vec![good.spec(), good.spec()];
    let refused = flags(Strategy::OneForOne, 2, 3600).try_start(twice).await;
    let Err(StartError::Invalid { path, error }) = refused else { panic!("{refused:?}") };
    assert!(path.is_root());
    assert_eq!(error, SpecError::Duplicate("a".to_owned()));
    assert_eq!(good.starts(), 0);
}

/// What makes a supervisor's specification panics.
#[tokio::test(start_paused = true)]
async fn sup_start_fail() {
    let before = child("before");
    let failing = ChildSpec::supervisor("sup", || panic!("told to panic"));
    let failed = flags(Strategy::OneForOne, 2, 3600).try_start(vec![before.spec(), failing]).await;
    let error = failed.unwrap_err().to_string();
    assert!(error.contains("sup") && error.contains("told to panic"), "{error}");
    assert_eq!(before.living(), 0);

    // The same in a tree that runs costs nothing but the child.
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![before.spec()]).await;
    let failed = sup.start_child(ChildSpec::supervisor("sup", || panic!("told to panic"))).await;
    assert!(failed.is_err(), "{failed:?}");
    assert_eq!(sup.which(), ["before running"]);
    assert_eq!(before.pid().await, Some(before.starts()));
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn sup_start_child_returns_error() {
    for strategy in FIXED {
        let sup = flags(strategy, 2, 3600).start(vec![]).await;
        let (child1, child2) = (child("child1"), child("child2"));
        child1.begins(Begin::Fail);
        child2.begins(Begin::Panic);
        let failed = sup.start_child(child1.spec()).await;
        assert!(matches!(&failed, Err(StartChildError::Failed(ExitReason::Failed(text))) if &**text == "told to fail"));
        let failed = sup.start_child(child2.spec()).await;
        assert!(
            matches!(&failed, Err(StartChildError::Failed(ExitReason::Panicked(text))) if &**text == "told to panic")
        );
        assert_eq!(sup.which(), Vec::<String>::new());
        assert_eq!(sup.counts(), [0; 4]);
        // Asked for once, tried once: it is not the supervisor's to try again.
        pass(secs(60)).await;
        assert_eq!((child1.starts(), child2.starts()), (1, 1));
        assert!(sup.is_up().await);
        sup.stop_well().await;
    }
}

#[tokio::test(start_paused = true)]
async fn sup_start_restart_child_returns_error() {
    let child1 = child("child1");
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![child1.spec()]).await;
    assert_eq!(sup.terminate_child("child1").await, Ok(()));
    for begin in [Begin::Fail, Begin::Panic] {
        child1.begins(begin);
        let failed = sup.restart_child("child1").await;
        assert!(matches!(&failed, Err(RestartChildError::Failed(reason)) if reason.is_abnormal()), "{failed:?}");
        assert_eq!(sup.which(), ["child1 down"]);
        assert_eq!(sup.counts(), [1, 0, 0, 1]);
    }
    pass(secs(60)).await;
    assert_eq!(child1.starts(), 3);
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn sup_start_child_returns_error_simple() {
    let sup = flags(Strategy::SimpleOneForOne, 2, 3600).start(vec![]).await;
    let child1 = child("child1");
    for (begin, kind) in [(Begin::Fail, "failed"), (Begin::Panic, "panicked")] {
        child1.begins(begin);
        let failed = sup.start_child(child1.spec()).await;
        assert!(matches!(&failed, Err(StartChildError::Failed(reason)) if reason.kind() == kind), "{failed:?}");
        assert_eq!(sup.which(), Vec::<String>::new());
    }
    pass(secs(60)).await;
    assert_eq!(child1.starts(), 2);
    sup.stop_well().await;
}
