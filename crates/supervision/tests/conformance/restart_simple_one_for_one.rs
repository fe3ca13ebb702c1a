//! OTP's group `restart_simple_one_for_one`.

use std::sync::Arc;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn simple_one_for_one() {
    let all = children(&["child1", "child2"]);
    let sup = flags(Strategy::SimpleOneForOne, 2, 3600).start(vec![]).await;
    for child in &all {
        sup.add(child.spec()).await;
    }
    sup.terminate(&all[0], How::Abnormal).await;
    assert_eq!(sup.which(), ["child1 running", "child2 running"]);
    assert_eq!(pids(&all).await, [Some(2), Some(1)]);
    assert_eq!(sup.counts(), [2, 2, 0, 2]);
    sup.terminate(&all[1], How::Abnormal).await;
    sup.terminate(&all[0], How::Abnormal).await;
    assert_eq!(sup.ended().await, ExitReason::GaveUp);
    assert!(all.iter().all(|child| child.living() == 0));
}

/// Some are stopped in their time, one is killed; all at the same time.
#[tokio::test(start_paused = true)]
async fn simple_one_for_one_shutdown() {
    let all = children(&["child1", "child2", "child3"]);
    let sup = flags(Strategy::SimpleOneForOne, 2, 3600).start(vec![]).await;
    for (child, needs) in all.iter().zip([1, 1, 5]) {
        sup.add(child.spec().shutdown(Shutdown::Timeout(secs(2)))).await;
        child.ends(End::After(secs(needs)));
    }
    let begun = Instant::now();
    sup.stop_well().await;
    assert_took(begun.elapsed(), secs(2));
    let exits = ["child1", "child2", "child3"].map(|path| sup.log.exit_kinds(path));
    assert_eq!(exits, [["shutdown"], ["shutdown"], ["killed"]]);
}

#[tokio::test(start_paused = true)]
async fn simple_one_for_one_escalation() {
    let all = children(&["child1", "child2"]);
    let sup = flags(Strategy::SimpleOneForOne, 4, 3600).start(vec![]).await;
    for child in &all {
        sup.add(child.spec()).await;
    }
    all[0].begins(Begin::Fail);
    sup.terminate(&all[0], How::Abnormal).await;
    assert_eq!(sup.ended().await, ExitReason::GaveUp);
    assert_eq!((all[0].starts(), all[1].starts()), (1 + 4, 1));
    assert_eq!(sup.log.exits("child2"), [ExitReason::Shutdown]);
}

/// What the first temporary child leaves behind changes nothing for those that come after it: nothing is kept of them.
#[tokio::test(start_paused = true)]
async fn simple_one_for_one_corruption() {
    let sup = flags(Strategy::SimpleOneForOne, 2, 3600).start(vec![]).await;
    let child1 = child("child1");
    sup.add(child1.restart(Restart::Temporary)).await;
    sup.terminate(&child1, How::Abnormal).await;
    for id in ["child2", "child1"] {
        let (kept, one) = (Arc::new(()), child(id));
        let spec = {
            let (kept, one) = (Arc::clone(&kept), one.clone());
            one.clone().spec_from(move || {
                let _kept = &kept;
                one.clone()
            })
        };
        sup.add(spec.restart(Restart::Temporary)).await;
        sup.terminate(&one, How::Abnormal).await;
        assert_eq!(Arc::strong_count(&kept), 1, "{id} is over, and its specification still there");
    }
    assert_eq!((sup.which(), sup.counts()), (vec![], [0; 4]));
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn simple_one_for_one_restart_ignore() {
    for restart in [Restart::Transient, Restart::Permanent] {
        let child1 = child("child1");
        let sup = flags(Strategy::SimpleOneForOne, 10, 3600).start(vec![]).await;
        sup.add(child1.restart(restart)).await;
        sup.terminate(&child1, How::Kill).await;
        assert_eq!((sup.which(), child1.pid().await), (vec!["child1 running".to_owned()], Some(2)));
        child1.begins(Begin::Ignore);
        sup.terminate(&child1, How::Kill).await;
        assert_eq!((sup.which(), sup.counts()), (vec![], [0; 4]));
        assert_eq!(sup.log.count("child1: ignored"), 1);
        pass(secs(60)).await;
        assert_eq!(child1.starts(), 3);
        sup.stop_well().await;
    }
}
