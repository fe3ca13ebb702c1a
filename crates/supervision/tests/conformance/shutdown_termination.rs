//! OTP's group `shutdown_termination`. A worker cannot end so unasked; a supervisor can in two ways, with its significant
//! children and by giving up, and these stand for OTP's `shutdown` and `{shutdown, Info}`.

use crate::support::*;

/// A supervisor as a child, with a worker whose end is its end.
fn ending(id: &str, inner: &Child) -> ChildSpec {
    let inner = inner.clone();
    ChildSpec::supervisor(id, move || {
        SupervisorSpec::one_for_one(vec![inner.restart(Restart::Transient).significant()])
            .auto_shutdown(AutoShutdown::Any)
    })
}

/// Makes the supervisor `child1` end in one of the two ways.
async fn end(sup: &Sup, inner: &Child, reason: &ExitReason) {
    let exits = sup.log.exits("child1").len();
    match reason {
        ExitReason::AutoShutdown => inner.tell(Do::Stop),
        // Two restarts are allowed within the hour, so the third crash is too much.
        ExitReason::GaveUp => {
            for _ in 0..3 {
                inner.tell(Do::Die);
                settle().await;
            }
        }
        other => panic!("{other}"),
    }
    settle().await;
    assert_eq!(sup.log.exits("child1").get(exits), Some(reason));
}

const REASONS: [ExitReason; 2] = [ExitReason::AutoShutdown, ExitReason::GaveUp];

#[tokio::test(start_paused = true)]
async fn permanent_shutdown() {
    let inner = child("inner");
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
    sup.add(ending("child1", &inner)).await;
    for reason in REASONS {
        end(&sup, &inner, &reason).await;
        assert_eq!(sup.tree(), ["child1 running", "child1/inner running"], "{reason}");
        assert_eq!(sup.counts(), [1, 1, 1, 0]);
        assert!(inner.pid().await.is_some());
    }
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn transient_shutdown() {
    let inner = child("inner");
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
    sup.add(ending("child1", &inner).restart(Restart::Transient)).await;
    for reason in REASONS {
        end(&sup, &inner, &reason).await;
        pass(secs(60)).await;
        assert_eq!(sup.tree(), ["child1 down"], "{reason}");
        assert_eq!(sup.counts(), [1, 0, 1, 0]);
        assert_eq!(inner.living(), 0);
        assert!(matches!(sup.restart_child("child1").await, Ok(Start::Running)));
        assert_eq!(sup.tree(), ["child1 running", "child1/inner running"]);
    }
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn temporary_shutdown() {
    let inner = child("inner");
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
    for reason in REASONS {
        sup.add(ending("child1", &inner).restart(Restart::Temporary)).await;
        end(&sup, &inner, &reason).await;
        pass(secs(60)).await;
        assert_eq!((sup.which(), sup.counts()), (vec![], [0; 4]), "{reason}");
        assert_eq!(inner.living(), 0);
    }
    sup.stop_well().await;
}

/// A system that cannot start says which child it was and why, through all supervisors between.
#[tokio::test(start_paused = true)]
async fn faulty_application_shutdown() {
    let (before, faulty) = (child("before"), child("faulty"));
    faulty.begins(Begin::Fail);
    let inner = faulty.clone();
    let app = ChildSpec::supervisor("app", move || SupervisorSpec::one_for_one(vec![inner.spec()]));
    let failed = flags(Strategy::OneForOne, 2, 3600).try_start(vec![before.spec(), app]).await;
    let Err(StartError::Ended { path, reason: ExitReason::Failed(text) }) = &failed else { panic!("{failed:?}") };
    assert!(path.is_root());
    for part in ["app", "faulty", "told to fail"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert_eq!((before.starts(), before.living(), faulty.starts()), (1, 0, 1));
}
