//! Specifications are made and checked at every depth before the first child starts, and made once per incarnation.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use roomcast_supervision::{
    ChildSpec, Fault, Policies, Policy, PolicyError, PolicySet, Restart, Slot, SpecError, StartChildError, StartError,
    SupervisorSlot, SupervisorSpec, System, SystemOptions,
};
use support::*;

fn supervisor(id: &str, children: impl Fn() -> Vec<ChildSpec> + Send + Sync + 'static) -> ChildSpec {
    ChildSpec::supervisor(id, move || SupervisorSpec::one_for_one(children()))
}

fn quiet(id: &str) -> ChildSpec {
    puppet(id, &Slot::default())
}

#[tokio::test(start_paused = true)]
async fn a_fault_three_levels_down_keeps_everything_from_starting() {
    let log = Log::default();
    let spec = SupervisorSpec::one_for_one(vec![
        quiet("first"),
        supervisor("outer", || {
            vec![quiet("second"), supervisor("in ner", || vec![quiet("twin"), quiet("twin")]), quiet("third")]
        }),
    ]);
    let error = System::start(spec, options(&log)).await.unwrap_err();
    assert_eq!(error.to_string(), "supervisor `outer/in%20ner`: two children share the id or the name of `twin`");
    let StartError::Invalid { path, error } = error else { panic!("{error}") };
    assert_eq!((path.as_str(), error), ("outer/in%20ner", SpecError::Duplicate("twin".to_owned())));
    assert_eq!(log.lines(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_policy_keeps_everything_from_starting() {
    let log = Log::default();
    let policy = Policy { period: Duration::ZERO, ..Policy::default() };
    let options = SystemOptions { policies: Arc::new(Policies::new(PolicySet::new(policy))), ..options(&log) };
    let error = System::start(SupervisorSpec::one_for_one(vec![quiet("a")]), options).await.unwrap_err();
    assert!(matches!(error, StartError::Policy(PolicyError::Period(_))), "{error}");
    assert_eq!(log.lines(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn each_incarnation_is_made_once() {
    let log = Log::default();
    let made: [Arc<AtomicUsize>; 2] = Default::default();
    let (outer, inner) = (Arc::clone(&made[0]), Arc::clone(&made[1]));
    let spec = SupervisorSpec::one_for_one(vec![supervisor("outer", move || {
        outer.fetch_add(1, Ordering::SeqCst);
        let inner = Arc::clone(&inner);
        vec![supervisor("inner", move || {
            inner.fetch_add(1, Ordering::SeqCst);
            vec![quiet("a")]
        })]
    })]);
    let system = start(spec, &log).await;
    let counts = || [&made[0], &made[1]].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(counts(), [1, 1]);
    system.tree().inject("outer/inner", Fault::Kill).unwrap();
    log.wait_for("outer/inner: started 2", 1).await;
    assert_eq!(counts(), [1, 2]);
    system.tree().inject("outer", Fault::Kill).unwrap();
    log.wait_for("outer/inner: started 3", 1).await;
    assert_eq!(counts(), [2, 3]);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_added_is_checked_with_all_below_it() {
    let log = Log::default();
    for dynamic in [false, true] {
        let slot = SupervisorSlot::new();
        let spec = match dynamic {
            true => SupervisorSpec::dynamic(Vec::new, &slot),
            false => SupervisorSpec::one_for_one(Vec::new()).in_slot(&slot),
        };
        let system = start(spec, &log).await;
        log.take();
        let bad = || supervisor("x", || vec![quiet("fine"), supervisor("y", || vec![quiet("")])]);
        let error = slot.start_child(bad()).await.unwrap_err();
        assert_eq!(error.to_string(), "supervisor `x/y`: child `` has an empty id or name");
        assert!(matches!(error, StartChildError::Invalid(SpecError::Below { .. })));
        let error = slot.start_child(quiet("z").significant()).await.unwrap_err();
        assert!(matches!(error, StartChildError::Invalid(SpecError::SignificantPermanent(_))), "{error}");
        assert_eq!(log.lines(), [""; 0]);
        assert!(slot.which_children().is_empty());
        system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_specification_that_goes_wrong_later_is_a_failed_restart() {
    let log = Log::default();
    let count = Arc::new(AtomicUsize::new(0));
    let spec = SupervisorSpec::one_for_one(vec![
        supervisor("a", move || match count.fetch_add(1, Ordering::SeqCst) {
            0 => vec![quiet("b")],
            1 => vec![quiet("b"), supervisor("c", || vec![quiet("d"), quiet("d")])],
            2 => panic!("told to panic"),
            _ => vec![quiet("e")],
        })
        .restart(Restart::Transient),
    ]);
    let system = start(spec, &log).await;
    system.tree().inject("a", Fault::Kill).unwrap();
    log.wait_for("a: started 4", 1).await;
    let failed = "a: start failed, failed: supervisor `a/c`: two children share the id or the name of `d`";
    assert_eq!(log.count(failed), 1, "{:?}", log.lines());
    assert_eq!(log.count("a: start failed, panicked: told to panic"), 1);
    assert_eq!(log.lines().iter().filter(|line| line.starts_with("a/b: started")).count(), 1);
    assert_eq!(system.tree().find("a").unwrap().generation, 4);
    system.stop().await;
}
