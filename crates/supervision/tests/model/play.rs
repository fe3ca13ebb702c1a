//! Plays a case on the stage and on the model and compares; makes a case that fails short.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use roomcast_supervision::Fault;

use crate::calls::Model;
use crate::case::{self, Case, Plot, Step};
use crate::reference::Child;
use crate::stage::{Do, Stage};
use crate::world::{Plan, SLOW, World, join};

/// What a case came to, when nothing was wrong.
#[derive(Default, Debug)]
struct Played {
    steps: usize,
    restarts: u64,
    /// It ended where the contract leaves the order of two things open.
    unsure: bool,
    over: Option<&'static str>,
}

/// Runs `count` cases, or as many as the environment says, from seeds that follow from one.
pub fn many(name: &str, count: u64, plot: Plot) {
    hush();
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let base = number("ROOMCAST_MODEL_SEED").unwrap_or(1);
    let count = number("ROOMCAST_MODEL_SEQUENCES").unwrap_or(count);
    let (mut steps, mut restarts, mut unsure) = (0, 0, 0);
    let mut ends = std::collections::BTreeMap::<_, u64>::new();
    for seed in base..base + count {
        let case = case::write(seed, plot);
        match attempt(&case) {
            Ok(played) => {
                steps += played.steps;
                restarts += played.restarts;
                unsure += u64::from(played.unsure);
                *ends.entry(played.over.unwrap_or("running")).or_default() += 1;
            }
            Err(first) => {
                let (case, error) = shorten(case, first.clone());
                panic!("{name}: ROOMCAST_MODEL_SEED={seed}: {first}\n\nmade short: {error}\n{case}");
            }
        }
    }
    println!(
        "{name}: {count} sequences from seed {base}: {steps} steps, {restarts} restarts, ends {ends:?}, {unsure} cut"
    );
    assert!(unsure * 10 <= count + 10, "too many sequences were cut where the order of two things is open: {unsure}");
}

/// Panics that are part of a case are not worth a line each.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload().downcast_ref::<&str>().copied().unwrap_or_default();
            if !["told to panic", "injected"].contains(&text) {
                usual(panic);
            }
        }));
    });
}

fn attempt(case: &Case) -> Result<Played, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let played = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            // Long, and passes at once when nothing else can happen.
            let bound = Duration::from_secs(3600 * 24 * 365);
            tokio::time::timeout(bound, play(case)).await.unwrap_or_else(|_| Err("a call never returned".to_owned()))
        })
    }));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("panicked: {}", text.or(panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()))
    })
}

/// Leaves out what is not needed for the failure.
fn shorten(mut case: Case, mut error: String) -> (Case, String) {
    let mut size = case.steps.len().max(1);
    loop {
        let mut start = 0;
        while start < case.steps.len() {
            let mut shorter = case.clone();
            shorter.steps.drain(start..(start + size).min(case.steps.len()));
            match attempt(&shorter) {
                Err(other) => (case, error) = (shorter, other),
                Ok(_) => start += size,
            }
        }
        if size == 1 {
            break;
        }
        size /= 2;
    }
    for place in (0..case.spec.children.len()).rev() {
        let mut shorter = case.clone();
        shorter.spec.children.remove(place);
        if let Err(other) = attempt(&shorter) {
            (case, error) = (shorter, other);
        }
    }
    (case, error)
}

async fn play(case: &Case) -> Result<Played, String> {
    let world = World { policies: case.policies.clone(), plans: case.plans.clone(), ..World::default() };
    let mut model = Model::start(&case.spec, world);
    let stage = Stage::start(&case.spec, &case.policies, &case.plans).await;
    let mut played = Played::default();
    let mut done = "the start".to_owned();
    for step in case.steps.iter().map(Some).chain([None]) {
        settle(&mut model, &stage).await;
        if model.world.unsure {
            played.unsure = true;
            return Ok(played);
        }
        compare(&mut model, &stage, case).map_err(|error| format!("after {done}: {error}"))?;
        played.over = model.over;
        if model.over.is_some() {
            break;
        }
        let Some(step) = step else { break };
        played.steps += 1;
        done = format!("step {} ({step:?})", played.steps);
        let (expected, seen) = take(step, &mut model, &stage).await;
        if expected != seen && !model.world.unsure {
            return Err(format!("{done} gave `{seen}` instead of `{expected}`"));
        }
    }
    played.restarts = model.rows().iter().map(|row| row.3.saturating_sub(1)).sum();
    model.shutdown();
    stage.stop().await;
    settle(&mut model, &stage).await;
    if !model.world.unsure {
        compare(&mut model, &stage, case).map_err(|error| format!("after the shutdown: {error}"))?;
    }
    Ok(played)
}

/// Lets both come to rest: a moment in which nothing else happens.
async fn settle(model: &mut Model, stage: &Stage) {
    let mut until = model.world.now.max(stage.now()) + 1;
    loop {
        model.wait_until(until);
        if model.last_timer < until && model.world.now <= until {
            break;
        }
        until = model.world.now.max(until) + 1;
    }
    stage.wait_until(until).await;
}

fn compare(model: &mut Model, stage: &Stage, case: &Case) -> Result<(), String> {
    let log = stage.backstage.take_log();
    let mut rest = &log[..];
    if std::mem::take(&mut model.world.loose) {
        model.world.merge(0);
    }
    for notes in std::mem::take(&mut model.world.log) {
        let (now, later) = rest.split_at(notes.len().min(rest.len()));
        let (mut now, mut expected) = (now.to_vec(), notes.clone());
        now.sort();
        expected.sort();
        if now != expected {
            return Err(format!("workers noted {rest:?}; next should be {notes:?}"));
        }
        rest = later;
    }
    if !rest.is_empty() {
        return Err(format!("workers noted too much: {rest:?}"));
    }
    if model.over != stage.over() {
        return Err(format!("it ended {:?} instead of {:?}", stage.over(), model.over));
    }
    let (expected, seen) = (model.rows(), stage.rows());
    if expected != seen {
        return Err(format!("the tree is\n{seen:#?}\ninstead of\n{expected:#?}"));
    }
    for path in case.policies.keys() {
        let (expected, seen) = (model.count_children(path), stage.count_children(path));
        if expected != seen {
            return Err(format!("`{path}` counts {seen:?} instead of {expected:?}"));
        }
        let (expected, seen) = (model.which_children(path), stage.which_children(path));
        if expected != seen {
            return Err(format!("the children of `{path}` are {seen:?} instead of {expected:?}"));
        }
    }
    Ok(())
}

/// Does a step on both. What they answer, which has to be the same.
async fn take(step: &Step, model: &mut Model, stage: &Stage) -> (String, String) {
    let none = || (String::new(), String::new());
    let same = |expected: bool, seen: bool| (format!("{expected}"), format!("{seen}"));
    match step {
        Step::Exit(path, reason) => {
            let what = match *reason {
                "normal" => Do::Stop,
                "failed" => Do::Fail,
                _ => Do::Panic,
            };
            let expected = is_up(model, path) && model.supervisor(path).is_none();
            model.exit(path, reason);
            same(expected, stage.tell(path, what))
        }
        Step::Kill(path) => {
            let expected = is_up(model, path);
            model.die(path, "killed");
            same(expected, stage.inject(path, Fault::Kill))
        }
        Step::PanicSupervisor(path) => {
            let expected = is_up(model, path);
            model.die(path, "panicked");
            same(expected, stage.inject(path, Fault::Panic))
        }
        Step::Plan(path, plan, times) => {
            let plans = vec![*plan; *times];
            model.world.plans.insert(path.clone(), plans.clone().into());
            stage.backstage.plans.lock().unwrap().insert(path.clone(), plans.into());
            none()
        }
        Step::StartChild(path, spec) => (model.start_child(path, spec), stage.start_child(path, spec).await),
        Step::StartAndTerminate(path, spec, after) => {
            if model.supervisor(path).is_none_or(|above| above.place(&spec.id).is_some()) {
                return none();
            }
            let slow = VecDeque::from([Plan::Slow]);
            stage.backstage.plans.lock().unwrap().insert(join(path, &spec.id), slow);
            let terminate = async {
                stage.wait_until(stage.now() + after).await;
                stage.terminate_child(path, &spec.id).await
            };
            let (started, ended) = tokio::join!(stage.start_child(path, spec), terminate);
            stage.backstage.plans.lock().unwrap().remove(&join(path, &spec.id));
            model.world.plans.remove(&join(path, &spec.id));
            // Both at the same instant: either may come first, but it has to be gone in the end.
            let tie = *after == SLOW;
            model.start_and_terminate(path, spec, *after, tie && started == "up");
            if tie || *after == 0 {
                settle(model, stage).await;
                model.world.log.clear();
                stage.backstage.take_log();
            }
            let expected = if tie && started == "up" { "up, done" } else { "failed: shutdown, done" };
            (expected.to_owned(), format!("{started}, {ended}"))
        }
        Step::TerminateChild(path, id) => (model.terminate_child(path, id), stage.terminate_child(path, id).await),
        Step::RestartChild(path, id) => (model.restart_child(path, id), stage.restart_child(path, id).await),
        Step::DeleteChild(path, id) => (model.delete_child(path, id), stage.delete_child(path, id).await),
        Step::Wait(time) => {
            let end = model.world.now + time;
            model.wait_until(end);
            stage.wait_until(end).await;
            none()
        }
        Step::WaitForPeriod(path, more) => {
            let oldest = model.supervisor(path).and_then(|above| above.restarts.first()).copied();
            let end = oldest.unwrap_or_default() + model.world.policies[path].period + more;
            // Not at the instant of a timer, where it would be open what comes first.
            if end > model.world.now && model.next_timer().is_none_or(|timer| timer > end) {
                model.wait_until(end);
                stage.wait_until(end).await;
            }
            none()
        }
        Step::Policies(policies) => {
            model.world.policies.extend(policies.clone());
            stage.replace(&model.world.policies);
            none()
        }
    }
}

fn is_up(model: &Model, path: &str) -> bool {
    model.child(path).is_some_and(Child::is_up)
}
