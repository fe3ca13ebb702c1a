//! OTP's group `normal_termination`: who comes back after ending normally.

use crate::support::*;

async fn started(restart: Restart) -> (Sup, Child) {
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
    let child1 = child("child1");
    sup.add(child1.restart(restart)).await;
    (sup, child1)
}

/// A child that was asked for is told of like any other: one event for each thing that happened to it, and none twice.
#[tokio::test(start_paused = true)]
async fn external_start_no_progress_log() {
    let (sup, child1) = started(Restart::Permanent).await;
    sup.terminate(&child1, How::Normal).await;
    let expected = ["root: started", "child1: started", "child1: exited normal", "child1: restart", "child1: started"];
    assert_eq!(sup.log.lines(), expected);
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn permanent_normal() {
    let (sup, child1) = started(Restart::Permanent).await;
    sup.terminate(&child1, How::Normal).await;
    assert_eq!(sup.which(), ["child1 running"]);
    assert_eq!(sup.counts(), [1, 1, 0, 1]);
    assert_eq!(child1.pid().await, Some(2));
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn transient_normal() {
    let (sup, child1) = started(Restart::Transient).await;
    sup.terminate(&child1, How::Normal).await;
    pass(secs(60)).await;
    assert_eq!(sup.which(), ["child1 down"]);
    assert_eq!(sup.counts(), [1, 0, 0, 1]);
    assert_eq!(child1.starts(), 1);
    assert!(matches!(sup.restart_child("child1").await, Ok(Start::Running)));
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn temporary_normal() {
    let (sup, child1) = started(Restart::Temporary).await;
    sup.terminate(&child1, How::Normal).await;
    pass(secs(60)).await;
    assert_eq!(sup.which(), Vec::<String>::new());
    assert_eq!(sup.counts(), [0; 4]);
    assert_eq!(child1.starts(), 1);
    sup.stop_well().await;
}
