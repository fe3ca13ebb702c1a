//! An actor that runs without ever awaiting is reported, with its path and for how long, wherever in it that happens, also when
//! no thread of the runtime is left.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use roomcast_supervision::{
    ChildSpec, Context, EventKind, Failure, Fault, Flow, STUCK_AFTER, Slot, StartError, SupervisorSpec, System,
    SystemOptions, Tree, Worker,
};
use support::*;

/// Where a [`Blocker`] blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Args,
    Start,
    Handle,
    Task,
    TaskDrop,
    Stop,
    Drop,
}

/// Blocks its thread, once, until it is released.
#[derive(Clone)]
struct Gate(Arc<Mutex<Option<Receiver<()>>>>);

impl Gate {
    fn new() -> (Sender<()>, Self) {
        let (release, gate) = channel();
        (release, Self(Arc::new(Mutex::new(Some(gate)))))
    }

    fn block(&self) {
        if let Some(gate) = self.0.lock().unwrap().take() {
            let _ = gate.recv_timeout(Duration::from_secs(60)); // whoever did not report it fails below
        }
    }
}

struct Blocker(Place, Gate);

impl Blocker {
    fn at(&self, place: Place) {
        if self.0 == place {
            self.1.block();
        }
    }
}

/// Blocks when it is dropped.
struct AtDrop(Gate);

impl Drop for AtDrop {
    fn drop(&mut self) {
        self.0.block();
    }
}

impl Worker for Blocker {
    type Message = ();
    type Args = (Place, Gate);

    async fn start((place, gate): (Place, Gate), _: &Context<Self>) -> Result<Self, StartError> {
        let worker = Self(place, gate);
        worker.at(Place::Start);
        Ok(worker)
    }

    async fn handle(&mut self, (): (), ctx: &Context<Self>) -> Result<Flow, Failure> {
        self.at(Place::Handle);
        let gate = self.1.clone();
        match self.0 {
            Place::Task => ctx.attach_helper("blocks", async move {
                gate.block();
                Ok(())
            }),
            Place::TaskDrop => ctx.attach_helper("blocks when dropped", async move {
                let _guard = AtDrop(gate);
                std::future::pending().await
            }),
            _ => {}
        }
        Ok(Flow::Continue)
    }

    async fn stop(&mut self) {
        self.at(Place::Stop);
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        self.at(Place::Drop);
    }
}

/// Waits for what has to come, by the real clock.
async fn soon(what: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("nothing came");
}

/// Starts a tree with one that blocks at `place`, and a sibling that awaits for ever, lets it block, and checks what was
/// told. Only the report of it lets it go on: the runtime has no other thread.
async fn is_reported(place: Place) {
    let log = Log::default();
    let (release, gate) = Gate::new();
    let (slot, waiter) = (Slot::default(), Slot::default());
    let tree = Arc::new(OnceLock::<Tree>::new());
    let stuck_for = Arc::new(Mutex::new(None));
    let (note, seen, entries) = (log.observer(), Arc::clone(&stuck_for), Arc::clone(&tree));
    let options = SystemOptions {
        observer: Some(Arc::new(move |event| {
            note(event);
            if let EventKind::Stuck { .. } = event.kind {
                if let Some(tree) = entries.get() {
                    *seen.lock().unwrap() = tree.find("outer/blocker").unwrap().stuck;
                }
                release.send(()).unwrap();
            }
        })),
        ..SystemOptions::default()
    };
    let (inner, idle) = (slot.clone(), waiter.clone());
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("outer", move || {
        let gate = gate.clone();
        let args = move || {
            if place == Place::Args {
                gate.block();
            }
            (place, gate.clone())
        };
        SupervisorSpec::one_for_one(vec![
            puppet("waiter", &idle),
            ChildSpec::worker_in::<Blocker>("blocker", &inner, args),
        ])
    })]);
    let system = System::start(spec, options).await.unwrap();
    tree.set(system.tree()).unwrap();
    waiter.send(Do::Hang).unwrap();
    slot.send(()).unwrap();
    match place {
        Place::Args | Place::Start | Place::Handle | Place::Task => {}
        // Not at the end of the system: nobody would be left to tell of.
        Place::TaskDrop | Place::Stop | Place::Drop => {
            while slot.current().unwrap().depth() > 0 {
                tokio::task::yield_now().await;
            }
            system.request_stop();
        }
    }
    let goes_on = |log: &Log| log.events().iter().any(|event| matches!(event.kind, EventKind::Unstuck { .. }));
    soon(log.wait_until("it goes on", goes_on)).await;
    let told: Vec<_> = log
        .events()
        .into_iter()
        .filter_map(|event| match event.kind {
            EventKind::Stuck { generation, busy } => Some((event.path.to_string(), "stuck", generation, busy)),
            EventKind::Unstuck { generation, busy } => Some((event.path.to_string(), "unstuck", generation, busy)),
            _ => None,
        })
        .collect();
    // A machine that is too busy may keep anybody else from an await for so long, but hardly one that does nothing.
    assert!(told.iter().all(|(path, ..)| path != "outer/waiter"), "{told:?}");
    let told: Vec<_> = told.into_iter().filter(|(path, ..)| path == "outer/blocker").collect();
    let whats: Vec<_> = told.iter().map(|(path, what, generation, _)| (path.as_str(), *what, *generation)).collect();
    assert_eq!(whats, [("outer/blocker", "stuck", 1), ("outer/blocker", "unstuck", 1)], "{place:?}");
    assert!(told.iter().all(|(.., busy)| *busy >= STUCK_AFTER), "{told:?}");
    if !matches!(place, Place::Args | Place::Start) {
        assert!(stuck_for.lock().unwrap().is_some_and(|busy| busy >= STUCK_AFTER), "it is seen while it is stuck");
    }
    assert!(system.tree().snapshot().iter().all(|entry| entry.stuck.is_none()));
    waiter.send(Do::Stop).ok();
    system.tree().inject("outer/waiter", Fault::Kill).ok();
    system.stop().await;
}

#[tokio::test]
async fn while_its_arguments_are_made() {
    is_reported(Place::Args).await;
}

#[tokio::test]
async fn in_its_start() {
    is_reported(Place::Start).await;
}

#[tokio::test]
async fn in_its_handler() {
    is_reported(Place::Handle).await;
}

#[tokio::test]
async fn in_an_attached_task() {
    is_reported(Place::Task).await;
}

#[tokio::test]
async fn when_an_attached_task_is_dropped() {
    is_reported(Place::TaskDrop).await;
}

#[tokio::test]
async fn in_its_stop() {
    is_reported(Place::Stop).await;
}

#[tokio::test]
async fn in_its_drop() {
    is_reported(Place::Drop).await;
}

#[tokio::test]
async fn a_supervisor_while_its_specification_is_made() {
    let log = Log::default();
    let (release, gate) = Gate::new();
    let note = log.observer();
    let options = SystemOptions {
        observer: Some(Arc::new(move |event| {
            note(event);
            if let EventKind::Stuck { .. } = event.kind {
                release.send(()).unwrap();
            }
        })),
        ..SystemOptions::default()
    };
    let first = std::sync::atomic::AtomicBool::new(true);
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("s", move || {
        if !first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            gate.block();
        }
        SupervisorSpec::one_for_one(Vec::new())
    })]);
    let system = System::start(spec, options).await.unwrap();
    system.tree().inject("s", Fault::Kill).unwrap();
    soon(log.wait_for("s: started 2", 1)).await;
    let told = log.lines().into_iter().filter(|line| line.contains("tuck {")).count();
    assert_eq!(told, 2, "{:?}", log.lines());
    system.stop().await;
}

#[tokio::test]
async fn one_that_is_killed_meanwhile_ends_when_it_goes_on() {
    let log = Log::default();
    let (release, gate) = Gate::new();
    let slot = Slot::default();
    let tree = Arc::new(OnceLock::<Tree>::new());
    let (note, entries) = (log.observer(), Arc::clone(&tree));
    let options = SystemOptions {
        observer: Some(Arc::new(move |event| {
            note(event);
            if let EventKind::Stuck { .. } = event.kind {
                entries.get().unwrap().inject("blocker", Fault::Kill).unwrap();
                release.send(()).unwrap();
            }
        })),
        ..SystemOptions::default()
    };
    let args = move || (Place::Handle, gate.clone());
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::worker_in::<Blocker>("blocker", &slot, args)]);
    let system = System::start(spec, options).await.unwrap();
    tree.set(system.tree()).unwrap();
    slot.send(()).unwrap();
    soon(log.wait_for("blocker: started 2", 1)).await;
    let of_it = log.lines().into_iter().filter(|line| line.starts_with("blocker: "));
    let lines: Vec<_> = of_it.map(|line| line.split(" {").next().unwrap().to_owned()).collect();
    let expected =
        ["Stuck", "Unstuck", "exited, killed", "restart", "started 2"].map(|what| format!("blocker: {what}"));
    assert_eq!(lines[lines.len() - 5..], expected);
    system.stop().await;
}

#[cfg(target_os = "linux")]
#[test]
fn the_watchdog_ends_with_its_system() {
    // In a process of its own, since other tests have watchdogs, too.
    if std::env::var_os("ALONE").is_none() {
        let test = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_watchdog_ends_with_its_system", "--nocapture"])
            .env("ALONE", "1")
            .status();
        assert!(test.unwrap().success());
        return;
    }
    let dogs = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let name =
            |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
        tasks.filter_map(name).filter(|name| name.trim() == "watchdog").count()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let system = start(SupervisorSpec::one_for_one(Vec::new()), &Log::default()).await;
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while dogs() != 1 {
            assert!(std::time::Instant::now() < deadline, "there are {}", dogs()); // it names itself when it begins
            tokio::task::yield_now().await;
        }
        system.stop().await;
    });
    drop(runtime);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while dogs() > 0 {
        assert!(std::time::Instant::now() < deadline, "it is still there");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_stops_though_a_worker_does_not() {
    let (release, gate) = Gate::new();
    let slot = Slot::default();
    let mine = slot.clone();
    let spec = SupervisorSpec::one_for_one(vec![
        ChildSpec::worker_in::<Blocker>("blocker", &mine, move || (Place::Handle, gate.clone()))
            .shutdown(roomcast_supervision::Shutdown::Timeout(Duration::from_millis(10))),
    ]);
    let system = System::start(spec, SystemOptions::default()).await.unwrap();
    slot.send(()).unwrap();
    soon(async {
        while system.tree().find("blocker").unwrap().stuck.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Less than the minute for which it blocks.
    let stopped = tokio::time::timeout(Duration::from_secs(40), system.stop()).await;
    assert_eq!(stopped.expect("it stops without the one that does not"), roomcast_supervision::ExitReason::Shutdown);
    drop(release);
}
