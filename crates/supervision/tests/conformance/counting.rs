//! OTP's cases `count_children`, `count_children_supervisor` and `count_restarting_children`.

use crate::support::*;

fn numbered(count: std::ops::Range<usize>) -> Vec<Child> {
    count.map(|n| child(&format!("child{n}"))).collect()
}

#[tokio::test(start_paused = true)]
async fn count_children() {
    let sup = flags(Strategy::SimpleOneForOne, 2, 3600).start(vec![]).await;
    for (from, to) in [(0, 1000), (1000, 2000)] {
        for child in numbered(from..to) {
            sup.add(child.restart(Restart::Temporary)).await;
        }
        assert_eq!(sup.which().len(), to);
        assert_eq!(sup.counts(), [to, to, 0, to]);
        assert_eq!(sup.which(), sup.which());
    }
    assert_eq!(sup.system.tree().inject("*", Fault::Kill), Ok(2000));
    settle().await;
    assert_eq!((sup.counts(), sup.which()), ([0; 4], vec![]));
    assert_eq!(sup.log.who("exited killed").len(), 2000);
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn count_children_supervisor() {
    let sup = flags(Strategy::SimpleOneForOne, 2, 3600).start(vec![]).await;
    for (from, to) in [(0, 500), (500, 1000)] {
        for n in from..to {
            let spec = ChildSpec::supervisor(format!("child{n}"), || SupervisorSpec::one_for_one(vec![]));
            sup.add(spec.restart(Restart::Temporary)).await;
        }
        assert_eq!(sup.which().len(), to);
        assert_eq!(sup.counts(), [to, to, to, 0]);
    }
    assert_eq!(sup.system.tree().inject("*", Fault::Kill), Ok(1000));
    settle().await;
    assert_eq!((sup.counts(), sup.which()), ([0; 4], vec![]));
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn count_restarting_children() {
    let backoff = steady_backoff(secs(2));
    let sup = flags(Strategy::SimpleOneForOne, 20, 10).backoff(backoff).start(vec![]).await;
    let all = children(&["child1", "child2", "child3"]);
    for (n, child) in all.iter().enumerate() {
        sup.add(child.spec().shutdown(Shutdown::Kill)).await;
        assert_eq!(sup.counts(), [n + 1, n + 1, 0, n + 1]);
    }
    for child in &all {
        sup.terminate(child, How::Abnormal).await;
    }
    assert_eq!(sup.counts(), [3, 3, 0, 3]);
    pass(QUIET_PERIOD).await;

    all[0].begins(Begin::Fail);
    all[1].begins(Begin::Fail);
    sup.terminate(&all[0], How::Abnormal).await;
    sup.terminate(&all[1], How::Abnormal).await;
    pass(secs(5)).await;
    assert_eq!(sup.which(), ["child1 restarting", "child2 restarting", "child3 running"]);
    assert_eq!(sup.counts(), [3, 1, 0, 3]); // they are there, and not active

    all[0].begins(Begin::Well);
    all[1].begins(Begin::Well);
    pass(secs(2)).await;
    assert_eq!(sup.counts(), [3, 3, 0, 3]);

    for (id, left) in [("child3", 2), ("child1", 1), ("child2", 0)] {
        assert_eq!(sup.terminate_child(id).await, Ok(()));
        assert_eq!(sup.counts(), [left, left, 0, left]);
    }
    sup.stop_well().await;
}
