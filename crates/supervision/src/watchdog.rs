//! Who runs for too long without an await. Each thread notes which incarnation it polls; one OS thread per system looks at
//! the threads, not at the actors, so that idle actors cost nothing and a report needs no thread of the runtime.
//!
//! A note is two stores, without a clock or a lock: the watchdog measures, by seeing the same note again.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::event::EventKind;
use crate::life::Shared;
use crate::node::Node;

/// An actor that has been running for this long without an await is stuck: a handler, a start, a stop, a drop or an attached
/// task of a worker, or a closure that a supervisor calls. It is reported ([`EventKind::Stuck`](crate::EventKind::Stuck))
/// within half a second, by a thread of its own, so also when all threads of the runtime are stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(1);

/// It is reported again when it has been stuck for this many times as long.
const AGAIN: u32 = 10;
/// Between two looks; what is measured is too short by at most this.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The watchdog sleeps until something is polled after so many looks at which nothing was.
const QUIET_LOOKS: u32 = 4;

/// A number for each incarnation, unique in the process.
pub(crate) fn next_serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What one thread polls. Only that thread writes the first two.
struct Note {
    /// Odd while something is polled. Changes at each begin and end, never to an earlier value.
    beat: AtomicU64,
    /// The incarnation that is polled.
    who: AtomicU64,
    /// A report is there.
    reported: AtomicBool,
    report: Mutex<Option<Report>>,
    id: u64,
}

struct Report {
    node: Arc<Node>,
    generation: u64,
    since: Instant,
    shared: Weak<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // what is kept is whole between any two statements
}

/// The notes of all threads that ever polled an actor and still live.
static NOTES: Mutex<Vec<Weak<Note>>> = Mutex::new(Vec::new());
/// Watchdogs that sleep until something is polled.
static SLEEPERS: Mutex<Vec<thread::Thread>> = Mutex::new(Vec::new());
static ANY_SLEEPER: AtomicBool = AtomicBool::new(false);

thread_local! {
    static MINE: Arc<Note> = {
        let note = Arc::new(Note {
            beat: AtomicU64::new(0),
            who: AtomicU64::new(0),
            reported: AtomicBool::new(false),
            report: Mutex::new(None),
            id: next_serial(),
        });
        let mut notes = lock(&NOTES);
        notes.retain(|note| note.strong_count() > 0);
        notes.push(Arc::downgrade(&note));
        drop(notes);
        note
    };
}

/// This thread polls an incarnation, or runs its code in another way, until this is dropped.
pub(crate) struct Polling {
    /// What it was polling when this began: polls can be nested.
    outer: Option<u64>,
    /// It must be dropped in the same thread.
    _here: PhantomData<*const ()>,
}

impl Polling {
    pub(crate) fn begin(serial: u64) -> Self {
        // A thread that is ending has no note any more, and nobody to watch it.
        let outer = MINE.try_with(|note| {
            let beat = note.beat.load(Ordering::Relaxed);
            let busy = beat & 1;
            let outer = (busy == 1).then(|| note.who.load(Ordering::Relaxed));
            note.who.store(serial, Ordering::Relaxed);
            note.beat.store(beat + 1 + busy, Ordering::SeqCst);
            // Either a watchdog that falls asleep sees the beat, or this sees the watchdog.
            if ANY_SLEEPER.load(Ordering::SeqCst) {
                wake();
            }
            outer
        });
        Self { outer: outer.ok().flatten(), _here: PhantomData }
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        let _ = MINE.try_with(|note| {
            let beat = note.beat.load(Ordering::Relaxed);
            let next = match self.outer {
                Some(outer) => {
                    note.who.store(outer, Ordering::Relaxed);
                    beat + 2
                }
                None => beat + 1,
            };
            note.beat.store(next, Ordering::SeqCst);
            // Either the watchdog sees that the beat has changed, or this sees its report.
            if note.reported.load(Ordering::SeqCst) {
                note.settle();
            }
        });
    }
}

/// Polls `future` as a part of incarnation `serial`.
pub(crate) async fn watched<T>(serial: u64, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let _polling = Polling::begin(serial);
        future.as_mut().poll(cx)
    })
    .await
}

impl Note {
    /// What was reported goes on.
    fn settle(&self) {
        let report = {
            let mut report = lock(&self.report);
            self.reported.store(false, Ordering::SeqCst);
            report.take()
        };
        if let Some(Report { node, generation, since, shared }) = report {
            node.unstuck(generation);
            if let Some(shared) = shared.upgrade() {
                shared.emit(&node.path, EventKind::Unstuck { generation, busy: since.elapsed() });
            }
        }
    }

    /// Reports that incarnation `generation` at `node` has been polled here since `since`; false if it has just gone on.
    fn tell(&self, beat: u64, node: &Arc<Node>, generation: u64, since: Instant, shared: &Arc<Shared>) -> bool {
        let mut report = lock(&self.report);
        self.reported.store(true, Ordering::SeqCst);
        if self.beat.load(Ordering::SeqCst) != beat {
            self.reported.store(report.is_some(), Ordering::SeqCst);
            return false;
        }
        *report = Some(Report { node: Arc::clone(node), generation, since, shared: Arc::downgrade(shared) });
        node.stuck(generation, since);
        // Under the lock, so that the end of it is told after it.
        shared.emit(&node.path, EventKind::Stuck { generation, busy: since.elapsed() });
        true
    }
}

fn wake() {
    let mut sleepers = lock(&SLEEPERS);
    ANY_SLEEPER.store(false, Ordering::SeqCst);
    for sleeper in sleepers.drain(..) {
        sleeper.unpark();
    }
}

fn notes() -> Vec<Arc<Note>> {
    lock(&NOTES).iter().filter_map(Weak::upgrade).collect()
}

/// Starts the watchdog of a system; it ends with it. `None` when there is no thread to be had: then nobody is reported.
pub(crate) fn start(shared: &Arc<Shared>, root: &Arc<Node>) -> Option<thread::Thread> {
    let dog = Watchdog { shared: Arc::downgrade(shared), root: Arc::downgrade(root), seen: HashMap::new(), quiet: 0 };
    match thread::Builder::new().name("watchdog".to_owned()).spawn(move || dog.run()) {
        Ok(handle) => Some(handle.thread().clone()),
        Err(error) => {
            tracing::error!("no watchdog, stuck actors will not be reported: {error}");
            None
        }
    }
}

struct Watchdog {
    /// Weak: what the system holds is dropped where the system ends, not here.
    shared: Weak<Shared>,
    root: Weak<Node>,
    /// By thread: what was polled at the last look.
    seen: HashMap<u64, Seen>,
    quiet: u32,
}

struct Seen {
    beat: u64,
    since: Instant,
    told: u32,
}

impl Watchdog {
    fn run(mut self) {
        while self.shared.strong_count() > 0 {
            let busy = self.look(&notes());
            self.quiet = if busy { 0 } else { self.quiet + 1 };
            if self.quiet < QUIET_LOOKS {
                thread::park_timeout(LOOK_EVERY);
            } else {
                self.sleep();
                self.quiet = 0;
            }
        }
    }

    /// Looks at each thread; false if nothing has been polled since the last look.
    fn look(&mut self, notes: &[Arc<Note>]) -> bool {
        let mut busy = false;
        for note in notes {
            let beat = note.beat.load(Ordering::SeqCst);
            let seen = self.seen.entry(note.id).or_insert_with(|| Seen { beat, since: Instant::now(), told: 0 });
            if seen.beat != beat {
                *seen = Seen { beat, since: Instant::now(), told: 0 };
                busy = true;
            }
            if beat & 1 == 0 {
                continue;
            }
            busy = true;
            let due = match seen.told {
                0 => STUCK_AFTER,
                1 => STUCK_AFTER * AGAIN,
                _ => continue,
            };
            if seen.since.elapsed() < due {
                continue;
            }
            seen.told += 1;
            let who = note.who.load(Ordering::SeqCst);
            // Another system's, if it is not in this tree; or it ended just now.
            if let (Some(shared), Some(root)) = (self.shared.upgrade(), self.root.upgrade())
                && let Some((node, generation)) = root.find_incarnation(who)
            {
                note.tell(beat, &node, generation, seen.since, &shared);
            }
        }
        if self.seen.len() > notes.len() {
            self.seen.retain(|id, _| notes.iter().any(|note| note.id == *id));
        }
        busy
    }

    /// Sleeps until something is polled or the system ends.
    fn sleep(&self) {
        {
            let mut sleepers = lock(&SLEEPERS);
            sleepers.push(thread::current());
            ANY_SLEEPER.store(true, Ordering::SeqCst);
        }
        let idle = |note: &Arc<Note>| note.beat.load(Ordering::SeqCst) & 1 == 0;
        if self.shared.strong_count() > 0 && notes().iter().all(idle) {
            thread::park();
        }
        let me = thread::current().id();
        lock(&SLEEPERS).retain(|sleeper| sleeper.id() != me);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::path::ActorPath;

    fn mine() -> Arc<Note> {
        MINE.with(Arc::clone)
    }

    #[test]
    fn polls_nest_and_each_changes_the_beat() {
        let note = mine();
        let beat = || note.beat.load(Ordering::SeqCst);
        let (start, mut beats) = (beat(), Vec::new());
        {
            let _outer = Polling::begin(7);
            beats.push((beat() - start, note.who.load(Ordering::SeqCst)));
            {
                let _inner = Polling::begin(8);
                beats.push((beat() - start, note.who.load(Ordering::SeqCst)));
            }
            beats.push((beat() - start, note.who.load(Ordering::SeqCst)));
        }
        assert_eq!(beats, [(1, 7), (3, 8), (5, 7)]);
        assert_eq!(beat() - start, 6);
    }

    #[test]
    fn a_panic_ends_the_poll() {
        let note = mine();
        let panicked = std::panic::catch_unwind(|| {
            let _polling = Polling::begin(1);
            panic!("told to panic");
        });
        assert!(panicked.is_err());
        assert_eq!(note.beat.load(Ordering::SeqCst) & 1, 0);
    }

    #[test]
    fn the_note_of_a_thread_goes_with_it() {
        let note = std::thread::spawn(|| Arc::downgrade(&mine())).join().unwrap();
        assert_eq!(note.strong_count(), 0);
    }

    #[test]
    fn it_sleeps_while_nothing_is_polled_and_wakes_to_report() {
        let root = Node::root(ActorPath::root("root"));
        let (sender, events) = std::sync::mpsc::channel();
        let observer =
            Arc::new(move |event: &Event| sender.send((event.kind.clone(), thread::current().id())).unwrap());
        let shared = Shared::new(Arc::default(), Some(observer), &root);
        let dog = shared.watchdog().unwrap().id();
        let (serial, deadline) = (next_serial(), Instant::now() + Duration::from_secs(60));
        let generation = root.begin(serial);
        while !lock(&SLEEPERS).iter().any(|sleeper| sleeper.id() == dog) {
            assert!(Instant::now() < deadline, "it never sleeps");
            thread::yield_now();
        }
        let polling = Polling::begin(serial);
        let (event, teller) = events.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(matches!(event, EventKind::Stuck { generation: 1, busy } if busy >= STUCK_AFTER), "{event:?}");
        assert_eq!((generation, teller), (1, dog));
        assert!(root.entry().stuck.is_some_and(|busy| busy >= STUCK_AFTER));
        drop(polling);
        let (event, teller) = events.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(matches!(event, EventKind::Unstuck { generation: 1, .. }), "{event:?}");
        assert_eq!((root.entry().stuck, teller), (None, thread::current().id()));
    }

    #[test]
    fn a_note_costs_little() {
        const POLLS: u32 = 200_000;
        let begun = Instant::now();
        for serial in 0..POLLS {
            let _polling = Polling::begin(serial.into());
        }
        let each = begun.elapsed() / POLLS;
        println!("{each:?} for each poll");
        // Tens of nanoseconds when optimized; this is for a debug build on a busy machine.
        assert!(each < Duration::from_micros(20), "{each:?}");
    }
}
