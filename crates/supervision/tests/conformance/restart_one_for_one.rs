//! OTP's group `restart_one_for_one`.

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn one_for_one() {
    let all = children(&["child1", "child2"]);
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
    for child in &all {
        sup.add(child.spec()).await;
    }
    sup.terminate(&all[0], How::Abnormal).await;
    assert_eq!(sup.which(), ["child1 running", "child2 running"]);
    assert_eq!(pids(&all).await, [Some(2), Some(1)]);
    assert_eq!(sup.counts(), [2, 2, 0, 2]);
    assert_eq!(sup.log.exits("child2"), []);

    // The third restart is one too many, whoever it is for.
    sup.terminate(&all[1], How::Abnormal).await;
    sup.terminate(&all[1], How::Abnormal).await;
    assert_eq!(sup.ended().await, ExitReason::GaveUp);
    assert_eq!(sup.log.exit_kinds("child1"), ["panicked", "shutdown"]);
    assert_eq!(sup.log.who("restart"), ["child1", "child2"]);
    assert_eq!(sup.log.count("root: gave up"), 1);
}

/// A child that does not come back is tried until the intensity is used up; then its sibling is stopped in order.
#[tokio::test(start_paused = true)]
async fn one_for_one_escalation() {
    for begin in [Begin::Fail, Begin::Panic] {
        let all = children(&["child1", "child2"]);
        let sup = flags(Strategy::OneForOne, 4, 3600).start(specs(&all)).await;
        all[0].begins(begin);
        sup.terminate(&all[0], How::Abnormal).await;
        assert_eq!(sup.ended().await, ExitReason::GaveUp);
        assert_eq!(all[0].starts(), 1 + 4);
        assert_eq!(sup.log.exits("child2"), [ExitReason::Shutdown]);
        assert_eq!(all[1].starts(), 1);
    }
}
