//! OTP's cases `child_unlink` and `tree`.

use crate::support::*;

/// OTP's child unlinks itself and then ignores its supervisor's stop. There are no links here; a child that does not
/// listen to the stop is what is left of it. Waiting for it must not keep the supervisor from its other requests.
#[tokio::test(start_paused = true)]
async fn child_unlink() {
    let (naughty, good) = (child("naughty_child"), child("good_child"));
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
    sup.add(naughty.spec()).await;
    naughty.ends(End::Never);
    let slot = sup.slot.clone();
    let begun = Instant::now();
    let terminating = tokio::spawn(async move { slot.terminate_child("naughty_child").await });
    settle().await;
    sup.add(good.spec()).await;
    assert_eq!(sup.which(), ["naughty_child stopping", "good_child running"]);
    assert!(begun.elapsed() < ms(10));
    assert_eq!(bounded(terminating).await.unwrap(), Ok(()));
    assert_took(begun.elapsed(), secs(1));
    assert_eq!(sup.log.exits("naughty_child"), [ExitReason::Killed]);
    assert_eq!(sup.which(), ["naughty_child down", "good_child running"]);
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn tree() {
    let one_for_one = flags(Strategy::OneForOne, 4, 3600);
    let (child1, child2, child3, child4) = (child("child1"), child("child2"), child("child3"), child("child4"));
    let sup1 = {
        let inner = vec![child1.spec(), child2.spec()];
        ChildSpec::supervisor("supchild1", move || one_for_one.spec(inner.clone(), &SupervisorSlot::new()))
    };
    let slot2 = SupervisorSlot::new();
    let sup2 = {
        let slot2 = slot2.clone();
        ChildSpec::supervisor("supchild2", move || one_for_one.spec(vec![], &slot2))
    };
    let sup3 = ChildSpec::supervisor("supchild3", || SupervisorSpec::one_for_one(vec![])).restart(Restart::Transient);

    let top = flags(Strategy::OneForAll, 4, 3600).start(vec![]).await;
    for spec in [sup1, sup2, sup3] {
        top.add(spec).await;
    }
    assert_eq!(top.terminate_child("supchild3").await, Ok(()));
    assert_eq!(top.counts(), [3, 2, 3, 0]);
    assert_eq!(counts(&slot2), [0; 4]);

    // Children that are added later.
    for child in [&child3, &child4] {
        assert!(matches!(bounded(slot2.start_child(child.spec())).await, Ok(Start::Running)));
    }
    let all = [child1, child2, child3, child4];
    assert_eq!(counts(&slot2), [2, 2, 0, 2]);
    assert_eq!(pids(&all).await, [Some(1); 4]);

    // Only who dies is restarted.
    all[3].tell(Do::Die);
    settle().await;
    assert_eq!(pids(&all).await, [Some(1), Some(1), Some(1), Some(2)]);
    assert_eq!(which(&slot2), ["child3 running", "child4 running"]);

    // A child that does not come back makes its supervisor give up, and so the whole tree is restarted: the one that had
    // been terminated too, but not the children that were added later.
    all[2].begins(Begin::Fail);
    all[2].tell(Do::Die);
    settle().await;
    let expected = [
        "supchild1 running",
        "supchild1/child1 running",
        "supchild1/child2 running",
        "supchild2 running",
        "supchild3 running",
    ];
    assert_eq!(top.tree(), expected);
    assert_eq!(top.counts(), [3, 3, 3, 0]);
    assert_eq!((which(&slot2), counts(&slot2)), (vec![], [0; 4]));
    assert_eq!(pids(&all).await, [Some(2), Some(2), None, None]);
    assert_eq!(all.each_ref().map(Child::living), [1, 1, 0, 0]);
    assert_eq!(top.log.exits("supchild2"), [ExitReason::GaveUp]);
    top.stop_well().await;
}
