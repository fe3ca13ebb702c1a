//! OTP's cases `hanging_restart_loop*`: while a child does not come back, its supervisor goes on serving.

use crate::support::*;

/// Eight attempts in ten seconds; two seconds between them.
fn looping(strategy: Strategy) -> Flags {
    flags(strategy, 8, 10).backoff(steady_backoff(secs(2)))
}

/// Lets a child die that does not come back, and passes into its restart loop.
async fn hang(sup: &Sup, child: &Child) {
    pass(QUIET_PERIOD).await;
    child.begins(Begin::Fail);
    sup.terminate(child, How::Abnormal).await;
    pass(secs(3)).await;
}

#[tokio::test(start_paused = true)]
async fn hanging_restart_loop() {
    let child1 = child("child1");
    let sup = looping(Strategy::OneForOne).start(vec![]).await;
    sup.add(child1.spec().shutdown(Shutdown::Kill)).await;
    hang(&sup, &child1).await;

    let started = sup.start_child(child1.spec()).await;
    assert!(matches!(started, Err(StartChildError::AlreadyPresent)), "{started:?}");
    assert!(matches!(sup.restart_child("child1").await, Err(RestartChildError::Restarting)));
    assert!(matches!(sup.delete_child("child1").await, Err(DeleteChildError::Restarting)));
    assert_eq!(sup.which(), ["child1 restarting"]);
    assert_eq!(sup.counts(), [1, 0, 0, 1]);

    // Terminating it ends the loop.
    assert_eq!(sup.terminate_child("child1").await, Ok(()));
    assert_eq!(sup.which(), ["child1 down"]);
    let starts = child1.starts();
    pass(secs(60)).await;
    assert_eq!(child1.starts(), starts);

    child1.begins(Begin::Well);
    assert!(matches!(sup.restart_child("child1").await, Ok(Start::Running)));
    hang(&sup, &child1).await;
    assert_eq!(sup.which(), ["child1 restarting"]);
    // And so does stopping the supervisor, at once.
    let begun = Instant::now();
    sup.stop_well().await;
    assert_took(begun.elapsed(), secs(0));
    assert_eq!(sup.log.exit_kinds("child1"), ["panicked", "panicked"]);
}

#[tokio::test(start_paused = true)]
async fn hanging_restart_loop_rest_for_one() {
    let all = children(&["child1", "child2", "child3"]);
    let sup = looping(Strategy::RestForOne).start(vec![]).await;
    for child in &all {
        sup.add(child.spec().shutdown(Shutdown::Kill)).await;
    }
    hang(&sup, &all[1]).await;

    let started = sup.start_child(all[1].spec()).await;
    assert!(matches!(started, Err(StartChildError::AlreadyPresent)), "{started:?}");
    assert!(matches!(sup.restart_child("child2").await, Err(RestartChildError::Restarting)));
    assert!(matches!(sup.delete_child("child2").await, Err(DeleteChildError::Restarting)));
    // Who waits for its turn behind it is restarting, too; OTP shows it as down.
    assert_eq!(sup.which(), ["child1 running", "child2 restarting", "child3 restarting"]);
    assert_eq!(sup.counts(), [3, 1, 0, 3]);

    // OTP leaves what is behind it down then, for ever; here it comes back, for it has done nothing.
    assert_eq!(sup.terminate_child("child2").await, Ok(()));
    assert_eq!(sup.which(), ["child1 running", "child2 down", "child3 restarting"]);
    let starts = all[1].starts();
    pass(secs(60)).await;
    assert_eq!(sup.which(), ["child1 running", "child2 down", "child3 running"]);
    assert_eq!((all[1].starts(), all[0].pid().await), (starts, Some(1)));

    all[1].begins(Begin::Well);
    assert!(matches!(sup.restart_child("child2").await, Ok(Start::Running)));
    hang(&sup, &all[1]).await;
    let begun = Instant::now();
    sup.stop_well().await;
    assert_took(begun.elapsed(), secs(0));
    assert_eq!(sup.log.exit_kinds("child2"), ["panicked", "panicked"]);
    assert!(all.iter().all(|child| child.living() == 0));
}

/// OTP has no such case for one_for_all; the loop is the same one.
#[tokio::test(start_paused = true)]
async fn hanging_restart_loop_one_for_all() {
    let all = children(&["child1", "child2", "child3"]);
    let sup = looping(Strategy::OneForAll).start(specs(&all)).await;
    hang(&sup, &all[1]).await;
    let started = sup.start_child(all[1].spec()).await;
    assert!(matches!(started, Err(StartChildError::AlreadyPresent)), "{started:?}");
    assert!(matches!(sup.restart_child("child2").await, Err(RestartChildError::Restarting)));
    assert!(matches!(sup.delete_child("child2").await, Err(DeleteChildError::Restarting)));
    assert_eq!(sup.which(), ["child1 restarting", "child2 restarting", "child3 restarting"]);
    assert_eq!(sup.counts(), [3, 0, 0, 3]);
    let begun = Instant::now();
    sup.stop_well().await;
    assert_took(begun.elapsed(), secs(0));
}

#[tokio::test(start_paused = true)]
async fn hanging_restart_loop_simple() {
    let child1 = child("child1");
    let sup = looping(Strategy::SimpleOneForOne).start(vec![]).await;
    sup.add(child1.spec().shutdown(Shutdown::Kill)).await;
    hang(&sup, &child1).await;
    assert!(matches!(sup.restart_child("child1").await, Err(RestartChildError::SimpleOneForOne)));
    assert!(matches!(sup.delete_child("child1").await, Err(DeleteChildError::SimpleOneForOne)));
    assert_eq!(sup.which(), ["child1 restarting"]);
    assert_eq!(sup.counts(), [1, 0, 0, 1]);

    assert_eq!(sup.terminate_child("child1").await, Ok(()));
    assert_eq!(sup.which(), Vec::<String>::new());
    let starts = child1.starts();
    pass(secs(60)).await;
    assert_eq!(child1.starts(), starts);

    child1.begins(Begin::Well);
    sup.add(child1.spec().shutdown(Shutdown::Kill)).await;
    hang(&sup, &child1).await;
    let begun = Instant::now();
    sup.stop_well().await;
    assert_took(begun.elapsed(), secs(0));
    assert_eq!(sup.log.exit_kinds("child1"), ["panicked", "panicked"]);
}

/// OTP's child hangs in the start itself, which blocks OTP's supervisor for as long; here it does not, and a stop kills it.
/// A child that is added is started at once, or, where a group comes up, when its turn comes.
#[tokio::test(start_paused = true)]
async fn hanging_restart_loop_in_a_start() {
    for strategy in FIXED.into_iter().chain([Strategy::SimpleOneForOne]) {
        let (child1, other) = (child("child1"), child("other"));
        let sup = looping(strategy).start(vec![]).await;
        sup.add(child1.spec()).await;
        child1.begins(Begin::Hang);
        sup.terminate(&child1, How::Abnormal).await;
        assert_eq!(sup.which(), ["child1 starting"], "{strategy:?}");
        assert_eq!(sup.counts(), [1, 0, 0, 1]);
        let started = sup.start_child(child1.spec()).await;
        assert!(matches!(started, Err(StartChildError::AlreadyPresent)), "{started:?}");
        if strategy != Strategy::SimpleOneForOne {
            assert!(matches!(sup.restart_child("child1").await, Err(RestartChildError::Restarting)));
            assert!(matches!(sup.delete_child("child1").await, Err(DeleteChildError::Restarting)));
        }
        let (slot, spec) = (sup.slot.clone(), other.restart(Restart::Temporary));
        let adding = tokio::spawn(async move { slot.start_child(spec).await });
        settle().await;
        let group = matches!(strategy, Strategy::OneForAll | Strategy::RestForOne);
        assert_eq!(other.living(), usize::from(!group), "{strategy:?}");
        let begun = Instant::now();
        sup.stop_well().await;
        assert_took(begun.elapsed(), secs(0));
        assert_eq!((child1.starts(), other.living()), (2, 0));
        let added = bounded(adding).await.unwrap();
        match group {
            true => assert!(matches!(added, Err(StartChildError::NotRunning)), "{added:?}"),
            false => assert!(matches!(added, Ok(Start::Running)), "{added:?}"),
        }
    }
}
