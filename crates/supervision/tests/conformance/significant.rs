//! OTP's group `significant`: supervisors that end with their significant children.
//!
//! OTP's upgrades change a running supervisor's rule. Here the rule belongs to the specification, which is read at each
//! start of a supervisor; so the upgrades are adapted to a supervisor that is restarted with another specification.

use std::sync::{Arc, Mutex};

use crate::support::*;

const ALL: [AutoShutdown; 3] = [AutoShutdown::Never, AutoShutdown::Any, AutoShutdown::All];

#[tokio::test(start_paused = true)]
async fn nonsignificant_temporary() {
    for auto_shutdown in ALL {
        let sup = flags(Strategy::OneForOne, 1, 5).auto_shutdown(auto_shutdown).start(vec![]).await;
        let child1 = child("child1");
        for how in [How::Supervisor, How::Kill, How::Abnormal, How::Failing, How::Normal] {
            sup.add(child1.restart(Restart::Temporary)).await;
            sup.terminate(&child1, how).await;
            pass(secs(1)).await;
            assert!(sup.is_up().await, "{auto_shutdown:?} {how:?}");
            assert_eq!(sup.counts(), [0; 4]);
        }
        sup.stop_well().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nonsignificant_transient() {
    for auto_shutdown in ALL {
        let sup = flags(Strategy::OneForOne, 5, 5).auto_shutdown(auto_shutdown).start(vec![]).await;
        let child1 = child("child1");
        sup.add(child1.restart(Restart::Transient)).await;
        for (how, left) in [
            (How::Supervisor, "child1 down"),
            (How::Kill, "child1 running"),
            (How::Abnormal, "child1 running"),
            (How::Failing, "child1 running"),
            (How::Normal, "child1 down"),
        ] {
            sup.terminate(&child1, how).await;
            pass(secs(1)).await;
            assert!(sup.is_up().await, "{auto_shutdown:?} {how:?}");
            assert_eq!(sup.which(), [left]);
            if how == How::Supervisor {
                assert!(matches!(sup.restart_child("child1").await, Ok(Start::Running)));
            }
        }
        sup.stop_well().await;
    }
}

/// Two significant children and one that is not.
async fn three(restart: Restart, auto_shutdown: AutoShutdown) -> (Sup, Vec<Child>) {
    let sup = flags(Strategy::OneForOne, 5, 5).auto_shutdown(auto_shutdown).start(vec![]).await;
    let all = children(&["child1", "child2", "child3"]);
    sup.add(all[0].restart(restart).significant()).await;
    sup.add(all[1].restart(restart).significant()).await;
    sup.add(all[2].restart(restart)).await;
    (sup, all)
}

/// It has ended of itself, in order, and nothing is left.
async fn shut_down(sup: &Sup, all: &[Child]) {
    assert_eq!(sup.ended().await, ExitReason::AutoShutdown);
    assert!(all.iter().all(|child| child.living() == 0));
    assert_eq!(sup.log.exits("child3"), [ExitReason::Shutdown]);
}

#[tokio::test(start_paused = true)]
async fn significant_temporary() {
    for how in [How::Kill, How::Abnormal, How::Failing, How::Normal] {
        let (sup, all) = three(Restart::Temporary, AutoShutdown::Any).await;
        // That the supervisor does it does not count.
        sup.terminate(&all[0], How::Supervisor).await;
        pass(secs(1)).await;
        assert!(sup.is_up().await);
        assert_eq!(sup.which(), ["child2 running", "child3 running"]);
        sup.add(all[0].restart(Restart::Temporary).significant()).await;
        sup.terminate(&all[0], how).await;
        shut_down(&sup, &all).await;
        assert_eq!(sup.log.exits("child2"), [ExitReason::Shutdown]);
    }
    let (sup, all) = three(Restart::Temporary, AutoShutdown::All).await;
    sup.terminate(&all[0], How::Normal).await;
    pass(secs(1)).await;
    assert!(sup.is_up().await);
    assert_eq!(sup.which(), ["child2 running", "child3 running"]);
    sup.terminate(&all[1], How::Abnormal).await;
    shut_down(&sup, &all).await;
}

#[tokio::test(start_paused = true)]
async fn significant_transient() {
    let (sup, all) = three(Restart::Transient, AutoShutdown::Any).await;
    sup.terminate(&all[0], How::Supervisor).await;
    pass(secs(1)).await;
    assert!(sup.is_up().await);
    assert!(matches!(sup.restart_child("child1").await, Ok(Start::Running)));
    // A child that is restarted has not ended.
    for how in [How::Kill, How::Abnormal, How::Failing] {
        sup.terminate(&all[0], how).await;
        pass(secs(1)).await;
        assert!(sup.is_up().await, "{how:?}");
        assert_eq!(sup.which(), ["child1 running", "child2 running", "child3 running"]);
    }
    sup.terminate(&all[0], How::Normal).await;
    shut_down(&sup, &all).await;

    let (sup, all) = three(Restart::Transient, AutoShutdown::All).await;
    sup.terminate(&all[0], How::Normal).await;
    pass(secs(1)).await;
    assert!(sup.is_up().await);
    assert_eq!(sup.which(), ["child1 down", "child2 running", "child3 running"]);
    sup.terminate(&all[1], How::Normal).await;
    shut_down(&sup, &all).await;
}

/// Children that come and go by the thousand are not what a supervisor's life hangs on.
#[tokio::test(start_paused = true)]
async fn significant_simple() {
    for auto_shutdown in [AutoShutdown::Any, AutoShutdown::All] {
        let refused = flags(Strategy::SimpleOneForOne, 1, 5).auto_shutdown(auto_shutdown).try_start(vec![]).await;
        assert!(matches!(&refused, Err(StartError::Invalid { .. })), "{refused:?}");
    }
    let sup = flags(Strategy::SimpleOneForOne, 1, 5).auto_shutdown(AutoShutdown::Never).start(vec![]).await;
    let child1 = child("child1");
    let refused = sup.start_child(child1.restart(Restart::Temporary).significant()).await;
    assert!(matches!(refused, Err(StartChildError::Invalid(SpecError::SignificantWithoutAutoShutdown(_)))));
    sup.stop_well().await;
}

/// An end that the strategy brings is not an end of its own.
#[tokio::test(start_paused = true)]
async fn significant_bystander() {
    for strategy in FIXED {
        for auto_shutdown in [AutoShutdown::Any, AutoShutdown::All] {
            let sup = flags(strategy, 5, 5).auto_shutdown(auto_shutdown).start(vec![]).await;
            let all = children(&["child1", "child2", "child3"]);
            sup.add(all[0].restart(Restart::Transient).significant()).await;
            sup.add(all[1].restart(Restart::Transient)).await;
            sup.add(all[2].restart(Restart::Transient).significant()).await;
            sup.terminate(&all[1], How::Kill).await;
            pass(secs(1)).await;
            let expected = match strategy {
                Strategy::OneForAll => [2, 2, 2],
                Strategy::RestForOne => [1, 2, 2],
                _ => [1, 2, 1],
            };
            assert_eq!(pids(&all).await, expected.map(Some), "{strategy:?} {auto_shutdown:?}");
            assert!(sup.is_up().await);
            sup.stop_well().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn significant_escalation() {
    for significant in [true, false] {
        let worker = child("worker");
        let inner = worker.clone();
        let mut sup1 = ChildSpec::supervisor("sup1", move || {
            SupervisorSpec::one_for_one(vec![inner.restart(Restart::Transient).significant()])
                .auto_shutdown(AutoShutdown::Any)
        })
        .restart(Restart::Transient);
        if significant {
            sup1 = sup1.significant();
        }
        let top = flags(Strategy::OneForOne, 1, 5).auto_shutdown(AutoShutdown::Any).start(vec![]).await;
        top.add(sup1).await;
        worker.tell(Do::Stop);
        settle().await;
        assert_eq!(top.log.exits("sup1"), [ExitReason::AutoShutdown]);
        if significant {
            assert_eq!(top.ended().await, ExitReason::AutoShutdown);
        } else {
            pass(secs(1)).await;
            assert!(top.is_up().await);
            assert_eq!(top.which(), ["sup1 down"]);
            top.stop_well().await;
        }
    }
}

/// A supervisor whose next incarnation can be given another rule and other children.
struct Upgradable {
    top: Sup,
    slot: SupervisorSlot,
    next: Arc<Mutex<(AutoShutdown, Vec<ChildSpec>)>>,
}

impl Upgradable {
    async fn start(auto_shutdown: AutoShutdown, children: Vec<ChildSpec>) -> Self {
        let (slot, next) = (SupervisorSlot::new(), Arc::new(Mutex::new((auto_shutdown, children))));
        let sup = {
            let (slot, next) = (slot.clone(), Arc::clone(&next));
            ChildSpec::supervisor("sup", move || {
                let (auto_shutdown, children) = next.lock().unwrap().clone();
                SupervisorSpec::one_for_one(children).in_slot(&slot).auto_shutdown(auto_shutdown)
            })
        };
        let backoff = steady_backoff(secs(1));
        let top = flags(Strategy::OneForOne, 5, 5).backoff(backoff).start(vec![sup.restart(Restart::Transient)]).await;
        Self { top, slot, next }
    }

    async fn upgrade(&self, auto_shutdown: AutoShutdown, children: Vec<ChildSpec>) {
        *self.next.lock().unwrap() = (auto_shutdown, children);
        assert_eq!(self.top.system.tree().inject("sup", Fault::Kill), Ok(1));
        settle().await;
    }

    async fn add(&self, spec: ChildSpec) {
        let started = bounded(self.slot.start_child(spec)).await;
        assert!(matches!(started, Ok(Start::Running)), "{started:?}");
    }

    async fn refuses(&self, spec: ChildSpec) {
        let refused = bounded(self.slot.start_child(spec)).await;
        assert!(matches!(refused, Err(StartChildError::Invalid(SpecError::SignificantWithoutAutoShutdown(_)))));
    }

    async fn is_up(&self) -> bool {
        pass(ms(1100)).await;
        self.top.system.tree().find("sup").is_some_and(|sup| sup.state == ActorState::Running)
    }

    /// It has ended as its rule says, after `kills` upgrades, and with all its children.
    async fn shut_down(&self, kills: usize, children: &[&Child]) {
        settle().await;
        let exits = self.top.log.exit_kinds("sup");
        assert_eq!(exits, [vec!["killed"; kills], vec!["auto_shutdown"]].concat());
        assert!(children.iter().all(|child| child.living() == 0));
        assert_eq!(self.top.tree(), ["sup down"]);
        self.top.stop_well().await;
    }

    /// It is still there, does without its child, and takes it back.
    async fn goes_on_without(&self, child1: &Child) {
        assert!(self.is_up().await);
        assert_eq!(which(&self.slot), ["child1 down"]);
        assert!(matches!(bounded(self.slot.restart_child("child1")).await, Ok(Start::Running)));
        self.top.stop_well().await;
        assert_eq!(child1.living(), 0);
    }
}

fn two() -> (Child, Child) {
    (child("child1"), child("child2"))
}

fn plain(child: &Child) -> ChildSpec {
    child.restart(Restart::Transient)
}

fn significant(child: &Child) -> ChildSpec {
    plain(child).significant()
}

#[tokio::test(start_paused = true)]
async fn significant_upgrade_never_any() {
    let (child1, child2) = two();
    let sup = Upgradable::start(AutoShutdown::Never, vec![]).await;
    sup.refuses(significant(&child1)).await;
    sup.upgrade(AutoShutdown::Any, vec![]).await;
    sup.add(significant(&child1)).await;
    sup.add(significant(&child2)).await;
    child1.tell(Do::Stop);
    sup.shut_down(1, &[&child1, &child2]).await;
}

#[tokio::test(start_paused = true)]
async fn significant_upgrade_any_never() {
    let (child1, child2) = two();
    let sup = Upgradable::start(AutoShutdown::Any, vec![significant(&child1)]).await;
    sup.upgrade(AutoShutdown::Never, vec![plain(&child1)]).await;
    assert_eq!(child1.pid().await, Some(2));
    sup.refuses(significant(&child2)).await;
    child1.tell(Do::Stop);
    sup.goes_on_without(&child1).await;
}

#[tokio::test(start_paused = true)]
async fn significant_upgrade_never_all() {
    let (child1, child2) = two();
    let sup = Upgradable::start(AutoShutdown::Never, vec![]).await;
    sup.refuses(significant(&child1)).await;
    sup.upgrade(AutoShutdown::All, vec![]).await;
    sup.add(significant(&child1)).await;
    sup.add(significant(&child2)).await;
    child1.tell(Do::Stop);
    assert!(sup.is_up().await);
    assert_eq!(child2.pid().await, Some(1));
    child2.tell(Do::Stop);
    sup.shut_down(1, &[&child1, &child2]).await;
}

#[tokio::test(start_paused = true)]
async fn significant_upgrade_all_never() {
    let (child1, child2) = two();
    let sup = Upgradable::start(AutoShutdown::All, vec![significant(&child1)]).await;
    sup.upgrade(AutoShutdown::Never, vec![plain(&child1)]).await;
    sup.refuses(significant(&child2)).await;
    child1.tell(Do::Stop);
    sup.goes_on_without(&child1).await;
}

#[tokio::test(start_paused = true)]
async fn significant_upgrade_any_all() {
    let (child1, child2) = two();
    let both = || vec![significant(&child1), significant(&child2)];
    let sup = Upgradable::start(AutoShutdown::Any, both()).await;
    sup.upgrade(AutoShutdown::All, both()).await;
    child1.tell(Do::Stop);
    assert!(sup.is_up().await);
    assert_eq!((child1.living(), child2.pid().await), (0, Some(2)));
    child2.tell(Do::Stop);
    sup.shut_down(1, &[&child1, &child2]).await;
}

#[tokio::test(start_paused = true)]
async fn significant_upgrade_all_any() {
    let (child1, child2) = two();
    let both = || vec![significant(&child1), significant(&child2)];
    let sup = Upgradable::start(AutoShutdown::All, both()).await;
    sup.upgrade(AutoShutdown::Any, both()).await;
    child1.tell(Do::Stop);
    sup.shut_down(1, &[&child1, &child2]).await;
}

#[tokio::test(start_paused = true)]
async fn significant_upgrade_child() {
    let (child1, _) = two();
    // A specification that contradicts itself is refused at the restart, by its reason; a good one is taken at the next.
    let sup = Upgradable::start(AutoShutdown::Never, vec![plain(&child1)]).await;
    sup.upgrade(AutoShutdown::Never, vec![significant(&child1)]).await;
    let failed = sup.top.log.events().into_iter().find_map(|event| match event.kind {
        EventKind::StartFailed { reason: ExitReason::Failed(text), .. } if event.path.name() == "sup" => Some(text),
        _ => None,
    });
    assert!(failed.is_some_and(|text| text.contains("child1") && text.contains("auto_shutdown")));
    assert_eq!(child1.starts(), 1);
    *sup.next.lock().unwrap() = (AutoShutdown::Never, vec![plain(&child1)]);
    assert!(sup.is_up().await);
    assert_eq!(child1.pid().await, Some(2));
    sup.top.stop_well().await;

    let sup = Upgradable::start(AutoShutdown::Any, vec![plain(&child1)]).await;
    sup.upgrade(AutoShutdown::Any, vec![significant(&child1)]).await;
    child1.tell(Do::Stop);
    sup.shut_down(1, &[&child1]).await;

    let sup = Upgradable::start(AutoShutdown::Any, vec![significant(&child1)]).await;
    sup.upgrade(AutoShutdown::Any, vec![plain(&child1)]).await;
    child1.tell(Do::Stop);
    sup.goes_on_without(&child1).await;
}
