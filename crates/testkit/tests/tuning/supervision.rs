//! `[supervision.…]`: a policy is looked up at each decision, by the supervisor's path, so a changed one acts at the next.
//! The call in the room goes on whatever its actors do.

use std::time::Duration;

use roomcast_supervision::{ActorState, Fault, Tree};
use roomcast_testkit::{Member, SOON, Via, eventually};

use crate::bench::{Call, Setting, Tuned};

/// The room that is made to crash, and whom the call is not in.
const SICK: &str = "rooms/sick/room";
/// Restarts at once, as often as it takes, and all crashes of a test within one period.
const PATIENT: [Setting<'static>; 3] = [
    ("supervision.defaults.intensity", "1000"),
    ("supervision.defaults.period", "\"1h\""),
    ("supervision.defaults.backoff", "{ initial = \"1ms\", factor = 1.0, max = \"1ms\", jitter = 0.0 }"),
];

fn state(tree: &Tree, path: &str) -> Option<(ActorState, u64)> {
    tree.find(path).map(|entry| (entry.state, entry.generation))
}

/// Crashes an actor that is running.
fn crash(tree: &Tree, path: &str) -> u64 {
    let (state, generation) = state(tree, path).unwrap();
    assert_eq!(state, ActorState::Running);
    assert_eq!(tree.inject(path, Fault::Panic), Ok(1));
    generation
}

async fn is_up_after(tree: &Tree, path: &str, generation: u64) {
    eventually("it is up again", SOON, async || {
        state(tree, path).is_some_and(|(state, now)| state == ActorState::Running && now > generation)
    })
    .await;
}

async fn crash_and_recover(tree: &Tree, path: &str, times: usize) {
    for _ in 0..times {
        let generation = crash(tree, path);
        is_up_after(tree, path, generation).await;
    }
}

/// A room with two members of its own.
struct Sick {
    ann: Member,
    bob: Member,
}

impl Sick {
    async fn room(tuned: &Tuned) -> Self {
        let ann = Member::join(&tuned.node, Via::WebSocket, "ann", "sick").await;
        let bob = Member::join(&tuned.node, Via::WebTransport, "bob", "sick").await;
        is_up_after(&tuned.node.node().tree(), SICK, 0).await;
        Self { ann, bob }
    }

    async fn talk(&mut self) {
        self.ann.say("are you there?").await;
        assert_eq!(self.bob.hear_content().await, "are you there?");
    }

    /// The room was given up on.
    async fn ends(mut self) {
        assert_eq!(self.ann.hear_close().await, Some(1011));
        assert_eq!(self.bob.hear_close().await, Some(1011));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_intensity_acts_in_the_middle_of_a_crash_loop() {
    // By a room's path, by the pattern of all rooms, and by default.
    for key in
        ["supervision.\"rooms/sick\".intensity", "supervision.\"rooms/*\".intensity", "supervision.defaults.intensity"]
    {
        let mut settings = PATIENT.to_vec();
        settings.push((key, "4"));
        if key.contains("defaults") {
            settings.remove(0);
        }
        let tuned = Tuned::start(&settings).await;
        let call = Call::begin(&tuned.node).await;
        let mut sick = Sick::room(&tuned).await;
        let tree = tuned.node.node().tree();
        crash_and_recover(&tree, SICK, 4).await;
        let deadline = tuned.set(&[(key, "1000")]).await;
        crash_and_recover(&tree, SICK, 1).await;
        deadline.is_kept();
        crash_and_recover(&tree, SICK, 10).await;
        sick.talk().await;
        let deadline = tuned.set(&[(key, "4")]).await;
        sick.talk().await;
        crash(&tree, SICK);
        sick.ends().await;
        deadline.is_kept();
        call.end().await;
        tuned.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_period_acts_on_the_crashes_that_have_been() {
    let mut settings = PATIENT.to_vec();
    settings.extend([("supervision.\"rooms/*\".intensity", "4"), ("supervision.\"rooms/*\".period", "\"1h\"")]);
    let tuned = Tuned::start(&settings).await;
    let call = Call::begin(&tuned.node).await;
    let mut sick = Sick::room(&tuned).await;
    let tree = tuned.node.node().tree();
    crash_and_recover(&tree, SICK, 4).await;
    // So short that two crashes hardly ever fall into it.
    let deadline = tuned.set(&[("supervision.\"rooms/*\".period", "\"1ms\"")]).await;
    crash_and_recover(&tree, SICK, 1).await;
    deadline.is_kept();
    crash_and_recover(&tree, SICK, 10).await;
    sick.talk().await;
    let deadline = tuned.set(&[("supervision.\"rooms/*\".period", "\"1h\"")]).await;
    let mut more = 0;
    while tree.find(SICK).is_some_and(|entry| entry.state == ActorState::Running) && more < 20 {
        let generation = crash(&tree, SICK);
        more += 1;
        eventually("it is up again, or over", SOON, async || {
            state(&tree, SICK).is_none_or(|(state, now)| state == ActorState::Running && now > generation)
        })
        .await;
    }
    assert!(more <= 5, "after {more} more crashes");
    sick.ends().await;
    deadline.is_kept();
    call.end().await;
    tuned.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_backoff_acts_at_the_next_restart() {
    let slow = "{ initial = \"1h\", factor = 1.0, max = \"1h\", jitter = 0.0 }";
    let fast = "{ initial = \"1ms\", factor = 1.0, max = \"1ms\", jitter = 0.0 }";
    let key = "supervision.\"rooms/*\".backoff";
    let mut settings = PATIENT.to_vec();
    settings.push((key, slow));
    let tuned = Tuned::start(&settings).await;
    let call = Call::begin(&tuned.node).await;
    let mut sick = Sick::room(&tuned).await;
    let tree = tuned.node.node().tree();
    // The first restart waits for nothing; the second would, for an hour.
    crash_and_recover(&tree, SICK, 1).await;
    let deadline = tuned.set(&[(key, fast)]).await;
    let generation = crash(&tree, SICK);
    is_up_after(&tree, SICK, generation).await;
    deadline.is_kept();
    let deadline = tuned.set(&[(key, slow)]).await;
    // Twice, in case that it was up for long enough to begin anew.
    let waits = || state(&tree, SICK).is_some_and(|(state, _)| state == ActorState::Restarting);
    let generation = crash(&tree, SICK);
    eventually("it waits, or is up", SOON, async || {
        waits() || state(&tree, SICK).is_some_and(|(state, now)| state == ActorState::Running && now > generation)
    })
    .await;
    if !waits() {
        crash(&tree, SICK);
    }
    deadline.shows("it waits", async || waits()).await;
    sick.talk().await;
    call.end().await;
    tuned.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_shutdown_time_acts_at_the_next_stop() {
    let mut settings = PATIENT.to_vec();
    settings.push(("supervision.defaults.shutdown", "\"1h\""));
    let tuned = Tuned::start(&settings).await;
    let call = Call::begin(&tuned.node).await;
    let sick = Sick::room(&tuned).await;
    let tree = tuned.node.node().tree();
    // When the room ends, its subscription is asked to stop, and does not listen.
    assert_eq!(tree.inject("rooms/sick/subscription", Fault::Stall(Duration::from_secs(3_600))), Ok(1));
    let time = Duration::from_millis(100);
    let deadline = tuned.set(&[("supervision.\"rooms/sick\".shutdown", "\"100ms\"")]).await.and(time);
    sick.ann.leave().await;
    sick.bob.leave().await;
    deadline.shows("it is killed", async || tree.find("rooms/sick").is_none()).await;
    call.end().await;
    tuned.node.stop().await;
}
