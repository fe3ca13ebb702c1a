//! OTP's cases from `order_of_children` on: order, scale, what is logged, and which children there are.

use std::sync::Arc;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn order_of_children() {
    let ids = ["ch7", "ch3", "ch10", "ch2", "ch5"]; // not in the order of the alphabet
    let all = children(&ids);
    for child in &all {
        // The order is not that of who is quicker.
        child.begins(Begin::Slowly(ms(if child.id() == "ch3" { 500 } else { 5 })));
        child.ends(End::After(ms(if child.id() == "ch5" { 500 } else { 5 })));
    }
    let sup = flags(Strategy::RestForOne, 2, 3600).start(specs(&all)).await;
    assert_eq!(sup.log.who("started"), ["ch7", "ch3", "ch10", "ch2", "ch5", "root"]);

    sup.log.clear();
    all[2].tell(Do::Die);
    pass(secs(1)).await;
    let expected = [
        "ch10: exited panicked",
        "ch10: restart",
        "ch5: exited shutdown",
        "ch2: exited shutdown",
        "ch10: started",
        "ch2: started",
        "ch5: started",
    ];
    assert_eq!(sup.log.lines(), expected);
    assert_eq!(pids(&all).await, [Some(1), Some(1), Some(2), Some(2), Some(2)]);

    sup.log.clear();
    sup.stop_well().await;
    assert_eq!(sup.log.who("exited shutdown"), ["ch5", "ch2", "ch10", "ch3", "ch7", "root"]);
}

/// As OTP allows it: up to ten times worse than linear. Time is this thread's on a processor.
fn assert_scales(what: &str, costs: [std::time::Duration; 2], times: f64) {
    let scale = costs[1].as_secs_f64() / costs[0].as_secs_f64();
    assert!(scale < times, "{what}: {scale:.1} times as long, {costs:?}");
}

#[tokio::test(start_paused = true)]
async fn scale_start_stop_many_children() {
    let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for many in [200, 4_000] {
        let all: Vec<_> = (0..many).map(|n| child(&format!("child{n}-of-{many}"))).collect();
        sup.log.clear();
        let begun = cpu_time();
        for child in &all {
            sup.add(child.spec()).await;
        }
        starts.push(cpu_time() - begun);
        let begun = cpu_time();
        for child in &all {
            assert_eq!(sup.terminate_child(child.id()).await, Ok(()));
        }
        stops.push(cpu_time() - begun);
    }
    assert_eq!(sup.counts(), [4_200, 0, 0, 4_200]);
    // Twenty times as many.
    assert_scales("starts", [starts[0], starts[1]], 100.0);
    assert_scales("stops", [stops[0], stops[1]], 100.0);
    sup.stop_well().await;
}

/// Many ends at once are each found by their child at once.
#[tokio::test(start_paused = true)]
async fn scale_mass_exit_children() {
    let mut costs = Vec::new();
    for many in [500, 2_500] {
        let sup = flags(Strategy::OneForOne, 10_000, 1).start(vec![]).await;
        for n in 0..many {
            let spec =
                child(&format!("child{n}")).restart(if n % 2 == 0 { Restart::Temporary } else { Restart::Permanent });
            sup.add(spec).await;
        }
        sup.log.clear();
        let begun = cpu_time();
        assert_eq!(sup.system.tree().inject("*", Fault::Kill), Ok(many));
        settle().await;
        costs.push(cpu_time() - begun);
        assert_eq!(sup.log.who("exited killed").len(), many);
        assert_eq!(sup.counts(), [many / 2, many / 2, 0, many / 2]); // the permanent ones are back
        sup.stop_well().await;
    }
    // Five times as many; quadratic would be 25.
    assert_scales("a mass exit", [costs[0], costs[1]], 12.0);
}

/// The library writes no reports: what OTP's reports say (supervisor, context, reason, offender) is in the events.
#[tokio::test(start_paused = true)]
async fn format_log_1() {
    let child1 = child("child1");
    let sup = flags(Strategy::OneForOne, 1, 3600).start(vec![child1.spec()]).await;
    sup.terminate(&child1, How::Failing).await;
    child1.begins(Begin::Fail);
    sup.terminate(&child1, How::Abnormal).await;
    assert_eq!(sup.ended().await, ExitReason::GaveUp);
    let told: Vec<_> = sup
        .log
        .events()
        .iter()
        .map(|event| {
            let parent = event.path.parent();
            let supervisor = if parent.is_root() { "root" } else { parent.as_str() };
            let (context, reason) = match &event.kind {
                EventKind::Started { generation, .. } => (format!("started {generation}"), None),
                EventKind::Exited { generation, reason } => (format!("exited {generation}"), Some(reason)),
                EventKind::RestartScheduled { .. } => ("restart".to_owned(), None),
                EventKind::GaveUp => ("gave up".to_owned(), None),
                other => (format!("{other:?}"), None),
            };
            let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
            format!("{supervisor}: {} {context}{reason}", event.path)
        })
        .collect();
    let expected = [
        "root: child1 started 1",
        "root: root started 1",
        "root: child1 exited 1: failed: told to fail",
        "root: child1 restart",
        "root: child1 started 2",
        "root: child1 exited 2: panicked: told to die",
        "root: root gave up",
        "root: root exited 1: gave up: too many restarts",
    ];
    assert_eq!(told, expected);
    let times: Vec<_> = sup.log.events().iter().map(|event| event.at).collect();
    assert!(times.is_sorted());
}

/// What a child needs is held by somebody who is no child here: the start's own reason reaches who asked.
#[tokio::test(start_paused = true)]
async fn already_started_outside_supervisor() {
    struct Registered;
    impl Worker for Registered {
        type Message = ();
        type Args = Arc<std::sync::Mutex<Option<String>>>;

        async fn start(name: Self::Args, _: &Context<Self>) -> Result<Self, StartError> {
            match &*name.lock().unwrap() {
                Some(holder) => Err(format!("the name is taken by {holder}").into()),
                None => Ok(Self),
            }
        }

        async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
            Ok(Flow::Continue)
        }
    }

    let name = Arc::new(std::sync::Mutex::new(Some("somebody else".to_owned())));
    let spec = {
        let name = Arc::clone(&name);
        ChildSpec::worker::<Registered>("child", move || Arc::clone(&name)).restart(Restart::Transient)
    };
    let sup = flags(Strategy::OneForOne, 1, 5).start(vec![]).await;
    let failed = sup.start_child(spec.clone()).await;
    let Err(StartChildError::Failed(ExitReason::Failed(text))) = &failed else { panic!("{failed:?}") };
    assert_eq!(&**text, "the name is taken by somebody else");
    assert_eq!(sup.which(), Vec::<String>::new());
    *name.lock().unwrap() = None;
    sup.add(spec).await;
    sup.stop_well().await;
}

/// The state of one child, by its path.
fn one(sup: &Sup, path: &str) -> Option<ActorState> {
    sup.system.tree().find(path).map(|entry| entry.state)
}

#[tokio::test(start_paused = true)]
async fn which_children() {
    let sup = flags(Strategy::OneForOne, 1, 5).start(vec![]).await;
    let (child1, child2) = (child("child1"), child("child2"));
    assert_eq!((sup.which(), one(&sup, "childx")), (vec![], None));

    sup.add(child1.spec()).await;
    assert_eq!(sup.which(), ["child1 running"]);
    sup.add(child2.spec()).await;
    assert_eq!(sup.which(), ["child1 running", "child2 running"]);
    assert_eq!(one(&sup, "child1"), Some(ActorState::Running));

    assert_eq!(sup.terminate_child("child1").await, Ok(()));
    assert_eq!(sup.which(), ["child1 down", "child2 running"]);
    assert_eq!(one(&sup, "child1"), Some(ActorState::Down));
    assert_eq!(one(&sup, "child2"), Some(ActorState::Running));

    assert!(sup.delete_child("child1").await.is_ok());
    assert_eq!(sup.which(), ["child2 running"]);
    assert_eq!((one(&sup, "child1"), one(&sup, "childx")), (None, None));

    // A start, a stop and a wait are states that are seen, too.
    let (slow, lazy) = (child("slow"), child("lazy"));
    slow.begins(Begin::Slowly(secs(1)));
    sup.add(lazy.spec()).await;
    lazy.ends(End::After(ms(900)));
    let (slot, spec) = (sup.slot.clone(), slow.spec());
    let starting = tokio::spawn(async move { slot.start_child(spec).await });
    let slot = sup.slot.clone();
    let stopping = tokio::spawn(async move { slot.terminate_child("lazy").await });
    settle().await;
    assert_eq!(sup.which(), ["child2 running", "lazy stopping", "slow starting"]);
    assert!(bounded(starting).await.unwrap().is_ok());
    assert_eq!(bounded(stopping).await.unwrap(), Ok(()));
    assert_eq!(sup.which(), ["child2 running", "lazy down", "slow running"]);
    sup.stop_well().await;
}

#[tokio::test(start_paused = true)]
async fn which_children_simple_one_for_one() {
    let sup = flags(Strategy::SimpleOneForOne, 1, 5).start(vec![]).await;
    let (child1, child2) = (child("child1"), child("child2"));
    assert_eq!((sup.which(), one(&sup, "child1")), (vec![], None));
    sup.add(child1.restart(Restart::Temporary)).await;
    assert_eq!(sup.which(), ["child1 running"]);
    sup.add(child2.restart(Restart::Temporary)).await;
    assert_eq!(sup.which(), ["child1 running", "child2 running"]);
    assert_eq!(one(&sup, "child1"), Some(ActorState::Running));
    assert_eq!(sup.terminate_child("child1").await, Ok(()));
    assert_eq!(sup.which(), ["child2 running"]);
    assert_eq!((one(&sup, "child1"), one(&sup, "childx")), (None, None));
    sup.stop_well().await;
}
