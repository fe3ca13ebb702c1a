//! OTP's cases `code_change*`. There is no code to upgrade here; what an upgrade changes of a supervisor has two other ways:
//! its flags are policies, which are replaced while it runs, and its children are a function's, asked at each of its starts.

use std::sync::{Arc, Mutex};

use crate::support::*;

fn only(pattern: &str, patch: PolicyPatch, rest: Policy) -> PolicySet {
    PolicySet::new(rest).with(PathPattern::parse(pattern).unwrap(), patch)
}

/// A supervisor as the root's child whose list of children can be exchanged.
async fn start_listed(children: Vec<ChildSpec>) -> (Sup, SupervisorSlot, Arc<Mutex<Vec<ChildSpec>>>) {
    let (slot, list) = (SupervisorSlot::new(), Arc::new(Mutex::new(children)));
    let sup = {
        let (slot, list) = (slot.clone(), Arc::clone(&list));
        ChildSpec::supervisor("sup", move || SupervisorSpec::one_for_one(list.lock().unwrap().clone()).in_slot(&slot))
    };
    (flags(Strategy::OneForOne, 2, 3600).start(vec![sup]).await, slot, list)
}

/// Flags change while it runs, and its children do not notice.
#[tokio::test(start_paused = true)]
async fn code_change() {
    let all = children(&["child1", "child2"]);
    let rules = flags(Strategy::OneForOne, 0, 1);
    let sup = rules.start(specs(&all)).await;
    sup.policies.replace(PolicySet::new(Policy { intensity: 1, period: secs(3), ..rules.policy() }));
    settle().await;
    assert_eq!(pids(&all).await, [Some(1), Some(1)]);
    // One crash in three seconds is forgiven now.
    for crash in 1..=3 {
        sup.terminate(&all[0], How::Abnormal).await;
        assert_eq!(pids(&all).await, [Some(crash + 1), Some(1)]);
        pass(secs(4)).await;
    }
    // And none any more after this; what is counted already counts.
    sup.policies.replace(PolicySet::new(Policy { intensity: 0, period: secs(3), ..rules.policy() }));
    assert!(sup.is_up().await);
    sup.terminate(&all[0], How::Abnormal).await;
    assert_eq!(sup.ended().await, ExitReason::GaveUp);
}

/// A wait that is under way is one by the flags that are in force; of a child alone, and of a group.
#[tokio::test(start_paused = true)]
async fn code_change_during_a_wait() {
    for strategy in FIXED.into_iter().chain([Strategy::SimpleOneForOne]) {
        let child1 = child("child1");
        let rules = flags(strategy, 9, 3600).backoff(steady_backoff(secs(3600)));
        let sup = rules.start(vec![]).await;
        sup.add(child1.spec()).await;
        child1.begins(Begin::Fail);
        sup.terminate(&child1, How::Abnormal).await;
        pass(secs(60)).await;
        assert_eq!((sup.which(), child1.starts()), (vec!["child1 restarting".to_owned()], 2), "{strategy:?}");
        child1.begins(Begin::Well);
        // Two minutes from when it began to wait.
        sup.policies.replace(PolicySet::new(rules.backoff(steady_backoff(secs(120))).policy()));
        pass(secs(59)).await;
        assert_eq!(sup.which(), ["child1 restarting"], "{strategy:?}");
        pass(secs(2)).await;
        assert_eq!(sup.which(), ["child1 running"], "{strategy:?}");
        sup.stop_well().await;
    }
}

/// A child's time to stop is its supervisor's policy where it has none of its own.
#[tokio::test(start_paused = true)]
async fn code_change_map() {
    let all = children(&["child1", "child2"]);
    let rules = flags(Strategy::OneForOne, 2, 3600);
    let sup = rules.start(vec![all[0].bare_spec(), all[1].bare_spec().shutdown(Shutdown::Timeout(secs(7)))]).await;
    for child in &all {
        child.ends(End::Never);
    }
    for (policy, takes) in [(2, [2, 7]), (1, [1, 7])] {
        sup.policies.replace(PolicySet::new(Policy { shutdown: secs(policy), ..rules.policy() }));
        for (child, takes) in all.iter().zip(takes) {
            let begun = Instant::now();
            assert_eq!(sup.terminate_child(child.id()).await, Ok(()));
            assert_took(begun.elapsed(), secs(takes));
            assert!(matches!(sup.restart_child(child.id()).await, Ok(Start::Running)));
        }
    }
    sup.stop_well().await;
}

/// Children change with the next incarnation of their supervisor.
#[tokio::test(start_paused = true)]
async fn code_change_children() {
    let all = children(&["child1", "child2", "child3"]);
    let (top, slot, list) = start_listed(vec![]).await;
    assert_eq!(which(&slot), Vec::<String>::new());
    for (ids, expected) in
        [(&[0, 1][..], &["child1 running", "child2 running"][..]), (&[0, 2], &["child1 running", "child3 running"])]
    {
        *list.lock().unwrap() = ids.iter().map(|&id| all[id].spec()).collect();
        settle().await;
        let before = which(&slot);
        assert_ne!(before, expected); // not by itself
        assert_eq!(top.system.tree().inject("sup", Fault::Kill), Ok(1));
        settle().await;
        assert_eq!(which(&slot), expected);
    }
    assert_eq!(all.iter().map(Child::living).collect::<Vec<_>>(), [1, 0, 1]);
    // What is in another supervisor's policy does not concern this one.
    let stricter = PolicyPatch { intensity: Some(0), ..PolicyPatch::default() };
    top.policies.replace(only("other", stricter, flags(Strategy::OneForOne, 2, 3600).policy()));
    all[0].tell(Do::Die);
    settle().await;
    assert_eq!(all[0].pid().await, Some(3));
    top.stop_well().await;
}

/// The same for children that come and go: flags live, children by what is adopted at the next start.
#[tokio::test(start_paused = true)]
async fn code_change_simple() {
    let (slot, list) = (SupervisorSlot::new(), Arc::new(Mutex::new(vec![])));
    let sup = {
        let (slot, list) = (slot.clone(), Arc::clone(&list));
        ChildSpec::supervisor("sup", move || {
            let list = Arc::clone(&list);
            SupervisorSpec::dynamic(move || list.lock().unwrap().clone(), &slot)
        })
    };
    let top = flags(Strategy::OneForOne, 2, 3600).start(vec![sup]).await;
    let (child1, child2) = (child("child1"), child("child2"));
    assert!(bounded(slot.start_child(child1.spec().shutdown(Shutdown::Kill))).await.is_ok());
    // The same child by another specification, and one more.
    *list.lock().unwrap() = vec![child1.spec(), child2.spec()];
    settle().await;
    assert_eq!(which(&slot), ["child1 running"]);
    assert_eq!(top.system.tree().inject("sup", Fault::Kill), Ok(1));
    settle().await;
    assert_eq!(which(&slot), ["child1 running", "child2 running"]);
    child1.ends(End::After(ms(900)));
    assert_eq!(bounded(slot.terminate_child("child1")).await, Ok(())); // it is asked now, not killed
    assert_eq!(top.log.exit_kinds("sup/child1"), ["killed", "shutdown"]);
    // To none: the supervisor is there without children.
    list.lock().unwrap().clear();
    assert_eq!(top.system.tree().inject("sup", Fault::Kill), Ok(1));
    settle().await;
    assert!(slot.is_running());
    assert_eq!(counts(&slot), [0; 4]);
    top.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn code_change_simple_map() {
    let rules = flags(Strategy::SimpleOneForOne, 0, 3600);
    let child1 = child("child1");
    let sup = rules.start(vec![]).await;
    sup.add(child1.bare_spec()).await;
    let patch = PolicyPatch { intensity: Some(2), shutdown: Some(secs(1)), ..PolicyPatch::default() };
    sup.policies.replace(only("", patch, rules.policy()));
    settle().await;
    assert_eq!(child1.pid().await, Some(1));
    for crash in 1..=2 {
        sup.terminate(&child1, How::Abnormal).await;
        assert_eq!(child1.pid().await, Some(crash + 1));
    }
    child1.ends(End::Never);
    let begun = Instant::now();
    sup.stop_well().await;
    assert_took(begun.elapsed(), secs(1));
}
