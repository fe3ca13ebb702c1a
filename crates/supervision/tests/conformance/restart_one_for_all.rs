//! OTP's group `restart_one_for_all`.

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn one_for_all() {
    let all = children(&["child1", "child2"]);
    let sup = flags(Strategy::OneForAll, 2, 3600).start(vec![]).await;
    for child in &all {
        sup.add(child.spec()).await;
    }
    sup.terminate(&all[0], How::Abnormal).await;
    assert_eq!(sup.log.exits("child2"), [ExitReason::Shutdown]);
    assert_eq!(sup.which(), ["child1 running", "child2 running"]);
    assert_eq!(pids(&all).await, [Some(2), Some(2)]);
    assert_eq!(sup.counts(), [2, 2, 0, 2]);
    assert!(all.iter().all(|child| child.living() == 1)); // none of the old ones is left

    // All of them together are one restart.
    sup.terminate(&all[1], How::Abnormal).await;
    assert_eq!(pids(&all).await, [Some(3), Some(3)]);
    sup.terminate(&all[1], How::Abnormal).await;
    assert_eq!(sup.ended().await, ExitReason::GaveUp);
    assert!(all.iter().all(|child| child.living() == 0));
}

#[tokio::test(start_paused = true)]
async fn one_for_all_escalation() {
    let all = children(&["child1", "child2"]);
    let sup = flags(Strategy::OneForAll, 4, 3600).start(specs(&all)).await;
    all[1].begins(Begin::Fail);
    sup.terminate(&all[0], How::Abnormal).await;
    assert_eq!(sup.ended().await, ExitReason::GaveUp);
    assert_eq!(sup.log.exits("child2"), [ExitReason::Shutdown]);
    // Each failure of the second takes the first down again, and counts.
    assert_eq!((all[0].starts(), all[1].starts()), (1 + 4, 1 + 4));
    assert_eq!(sup.log.exit_kinds("child1"), ["panicked", "shutdown", "shutdown", "shutdown", "shutdown"]);
}

#[tokio::test(start_paused = true)]
async fn one_for_all_other_child_fails_restart() {
    let all = children(&["child1", "child2", "child3"]);
    let backoff = steady_backoff(secs(1));
    let sup = flags(Strategy::OneForAll, 3, 3600).backoff(backoff).start(specs(&all)).await;
    pass(QUIET_PERIOD).await;
    sup.log.clear();
    all[1].begins(Begin::Fail);
    sup.terminate(&all[0], How::Abnormal).await;
    // The first came back, the second did not: so the first is stopped again, and the third not even started.
    let mut expected = vec![
        "child1: exited panicked",
        "child1: restart",
        "child3: exited shutdown",
        "child2: exited shutdown",
        "child1: started",
        "child2: start failed failed",
        "child2: restart",
        "child1: exited shutdown",
        "child1: started",
        "child2: start failed failed",
        "child2: restart",
        "child1: exited shutdown",
    ];
    assert_eq!(sup.log.lines(), expected);
    // Let the restart complete.
    all[1].begins(Begin::Well);
    pass(ms(1100)).await;
    expected.extend(["child1: started", "child2: started", "child3: started"]);
    assert_eq!(sup.log.lines(), expected);
    assert!(all.iter().all(|child| child.living() == 1));
    sup.stop_well().await;
}
