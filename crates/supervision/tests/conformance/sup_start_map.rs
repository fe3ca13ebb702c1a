//! OTP's group `sup_start_map`: what a specification says when it says little, and which ones are refused.

use crate::support::*;

/// What is kept of a child's specification, as it prints: OTP's `get_childspec`.
async fn says(sup: &Sup, id: &str) -> Option<String> {
    let spec = bounded(sup.slot.child_spec(id)).await?;
    assert_eq!(spec.id(), id);
    Some(format!("{spec:?}"))
}

#[track_caller]
fn assert_says(spec: Option<&str>, parts: [&str; 4]) {
    let spec = spec.expect("this child's specification is kept");
    for part in parts {
        assert!(spec.contains(part), "{part} is not in {spec}");
    }
}

#[tokio::test(start_paused = true)]
async fn sup_start_map() {
    let (child1, child2, inner) = (child("child1"), child("child2"), child("inner"));
    let nested = {
        let inner = inner.clone();
        move || SupervisorSpec::one_for_one(vec![inner.spec().shutdown(Shutdown::Infinity)])
    };
    let specs =
        vec![child1.bare_spec(), child2.bare_spec().shutdown(Shutdown::Kill), ChildSpec::supervisor("child3", nested)];
    let sup = flags(Strategy::OneForOne, 2, 3600).start(specs).await;
    let [spec1, spec2, spec3] = [says(&sup, "child1").await, says(&sup, "child2").await, says(&sup, "child3").await];
    let defaults = ["restart: Permanent", "significant: false"];
    assert_says(spec1.as_deref(), [defaults[0], defaults[1], "kind: Worker", "shutdown: None"]);
    assert_says(spec2.as_deref(), [defaults[0], defaults[1], "kind: Worker", "shutdown: Some(Kill)"]);
    assert_says(spec3.as_deref(), [defaults[0], defaults[1], "kind: Supervisor", "shutdown: None"]);
    assert_eq!(says(&sup, "child4").await, None);

    // What is not said: a worker has five seconds to stop, a supervisor all the time that its children have.
    child1.ends(End::Never);
    child2.ends(End::Never);
    inner.ends(End::After(secs(3600)));
    let begun = Instant::now();
    sup.stop_well().await;
    assert_took(begun.elapsed(), secs(3605));
    assert_eq!(sup.log.exits("child1"), [ExitReason::Killed]);
    assert_eq!(sup.log.exits("child2"), [ExitReason::Killed]);
    assert_eq!(sup.log.exits("child3"), [ExitReason::Shutdown]);
}

#[tokio::test(start_paused = true)]
async fn sup_start_map_simple() {
    let sup = flags(Strategy::SimpleOneForOne, 2, 3600).start(vec![]).await;
    let all = children(&["child1", "child2", "child3"]);
    for child in &all {
        sup.add(child.bare_spec().restart(Restart::Temporary)).await;
    }
    for child in &all {
        let spec = says(&sup, child.id()).await;
        assert_says(spec.as_deref(), ["kind: Worker", "restart: Temporary", "shutdown: None", "significant: false"]);
    }
    assert_eq!(says(&sup, "nobody").await, None);
    assert_eq!(sup.terminate_child("child2").await, Ok(()));
    assert_eq!(says(&sup, "child2").await, None);
    sup.stop_well().await;
}

/// What OTP finds missing or unknown cannot be written down here; what is left is refused by its reason, at every depth.
#[tokio::test(start_paused = true)]
async fn sup_start_map_faulty_specs() {
    let fine = child("fine");
    let nested = |broken: ChildSpec| {
        let fine = fine.clone();
        let inner = move || SupervisorSpec::one_for_one(vec![fine.spec(), broken.clone()]);
        ChildSpec::supervisor("inner", move || {
            SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("innermost", inner.clone())])
        })
    };
    for (broken, reason) in [
        (child("").spec(), SpecError::EmptyName(String::new())),
        (fine.spec(), SpecError::Duplicate("fine".to_owned())),
        (child("a").spec().significant(), SpecError::SignificantPermanent("a".to_owned())),
    ] {
        let refused = flags(Strategy::OneForOne, 2, 3600).try_start(vec![child("first").spec(), nested(broken)]).await;
        let Err(StartError::Invalid { path, error }) = refused else { panic!("{refused:?}") };
        assert_eq!((path.as_str(), error), ("inner/innermost", reason));
        assert_eq!(fine.starts(), 0);
    }
}
