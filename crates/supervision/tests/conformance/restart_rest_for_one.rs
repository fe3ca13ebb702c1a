//! OTP's group `restart_rest_for_one`.

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn rest_for_one() {
    let all = children(&["child1", "child2", "child3"]);
    let sup = flags(Strategy::RestForOne, 2, 3600).start(vec![]).await;
    for child in &all {
        sup.add(child.spec()).await;
    }
    assert_eq!(sup.counts(), [3, 3, 0, 3]);
    sup.terminate(&all[1], How::Abnormal).await;
    assert_eq!(sup.log.exits("child3"), [ExitReason::Shutdown]);
    assert_eq!(sup.log.exits("child1"), []);
    assert_eq!(sup.which(), ["child1 running", "child2 running", "child3 running"]);
    assert_eq!(pids(&all).await, [Some(1), Some(2), Some(2)]);
    assert_eq!(sup.counts(), [3, 3, 0, 3]);

    sup.terminate(&all[2], How::Abnormal).await;
    assert_eq!(pids(&all).await, [Some(1), Some(2), Some(3)]);
    sup.terminate(&all[1], How::Abnormal).await;
    assert_eq!(sup.ended().await, ExitReason::GaveUp);
    assert!(all.iter().all(|child| child.living() == 0));
}

#[tokio::test(start_paused = true)]
async fn rest_for_one_escalation() {
    let all = children(&["child1", "child2"]);
    let sup = flags(Strategy::RestForOne, 4, 3600).start(specs(&all)).await;
    all[1].begins(Begin::Fail);
    sup.terminate(&all[0], How::Abnormal).await;
    assert_eq!(sup.ended().await, ExitReason::GaveUp);
    // The first came back at once and stayed; the second used up what was left.
    assert_eq!((all[0].starts(), all[1].starts()), (2, 1 + 4));
    assert_eq!(sup.log.exit_kinds("child1"), ["panicked", "shutdown"]);
    assert_eq!(sup.log.exit_kinds("child2"), ["shutdown"]);
}

#[tokio::test(start_paused = true)]
async fn rest_for_one_other_child_fails_restart() {
    let all = children(&["child1", "child2", "child3"]);
    let backoff = steady_backoff(secs(1));
    let sup = flags(Strategy::RestForOne, 3, 3600).backoff(backoff).start(specs(&all)).await;
    pass(QUIET_PERIOD).await;
    sup.log.clear();
    all[1].begins(Begin::Fail);
    sup.terminate(&all[0], How::Abnormal).await;
    // The second does not come back; the first, which did, stands before it and is left alone.
    assert_eq!(pids(&all).await, [Some(2), None, None]);
    assert_eq!((all[0].starts(), all[1].starts(), all[2].starts()), (2, 3, 1));
    all[1].begins(Begin::Well);
    pass(ms(1100)).await;
    assert_eq!(pids(&all).await, [Some(2), Some(4), Some(2)]);
    assert_eq!(sup.log.exit_kinds("child1"), ["panicked"]);
    assert_eq!(sup.log.who("started"), ["child1", "child2", "child3"]);
    sup.stop_well().await;
}
