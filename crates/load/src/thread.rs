//! One thread of load: its runtime, its members, and what they share. Nothing here is shared with another thread but the
//! timeline, so members cost no waiting for each other.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};

use crate::counts::{Counts, Timeline};
use crate::join::{Door, JoinError};
use crate::member::Member;
use crate::packet::{Finder, Template, Wrapping};
use crate::plan::Plan;

/// What one read takes at most: everything that waits, in nearly every case. One buffer for all connections of a thread.
const READ: usize = 256 * 1024;
/// Members of one thread that are joining at once.
const JOINING: usize = 64;

/// What a thread's members write to, one after the other.
pub(crate) struct Scratch {
    pub(crate) buffer: Box<[u8]>,
    pub(crate) websocket: Vec<Template>,
    pub(crate) webtransport: Vec<Template>,
    pub(crate) finder: Finder,
    pub(crate) counts: Counts,
}

/// What a thread's members share.
pub(crate) struct Thread {
    pub(crate) plan: Arc<Plan>,
    pub(crate) doors: Arc<Vec<Door>>,
    /// Rooms are named by this and their number.
    pub(crate) room_prefix: String,
    pub(crate) timeline: Arc<OnceLock<Timeline>>,
    epoch: Instant,
    /// Locked for one poll of one member; whoever reports takes it once a second.
    scratch: Mutex<Scratch>,
}

impl Thread {
    /// `run` names the run's rooms and packets; times are counted from `epoch`.
    pub(crate) fn new(
        plan: &Arc<Plan>,
        doors: &Arc<Vec<Door>>,
        timeline: &Arc<OnceLock<Timeline>>,
        run: u32,
        epoch: Instant,
    ) -> Self {
        let templates = |wrapping| -> Vec<Template> {
            plan.shapes.iter().map(|(kind, payload)| Template::new(wrapping, *kind, *payload, run)).collect()
        };
        let websocket = templates(Wrapping::WebSocket);
        let finder = Finder::new(&websocket, run);
        let scratch = Scratch {
            buffer: vec![0; READ].into(),
            websocket,
            webtransport: templates(Wrapping::WebTransport),
            finder,
            counts: Counts::default(),
        };
        Self {
            plan: Arc::clone(plan),
            doors: Arc::clone(doors),
            room_prefix: format!("bench-{run:08x}"),
            timeline: Arc::clone(timeline),
            epoch,
            scratch: Mutex::new(scratch),
        }
    }

    /// The shared buffers and counts. Never held across an await.
    pub(crate) fn scratch(&self) -> MutexGuard<'_, Scratch> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Microseconds of the run.
    pub(crate) fn now(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }

    /// The moment of a time of the run, for timers. What is too far away is never.
    pub(crate) fn moment(&self, time: u64) -> Option<tokio::time::Instant> {
        (time != u64::MAX).then(|| (self.epoch + Duration::from_micros(time)).into())
    }

    /// Drives the members that are this thread's, until `stop`. The first that cannot join is told to `failed`.
    pub(crate) fn drive(
        self: &Arc<Self>,
        number: u32,
        mut stop: oneshot::Receiver<()>,
        failed: &mpsc::Sender<JoinError>,
    ) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let joining = async {
                self.join_all(number, failed).await;
                // The members live in tasks of their own.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = &mut stop => {}
                () = joining => {}
            }
        });
        // With it go the members and their sockets.
        runtime.shutdown_background();
        Ok(())
    }

    async fn join_all(self: &Arc<Self>, number: u32, failed: &mpsc::Sender<JoinError>) {
        let plan = &self.plan;
        let gate = Arc::new(Semaphore::new(JOINING));
        let begin = tokio::time::Instant::now();
        let everybody = (0..plan.rooms).flat_map(|room| (0..plan.members).map(move |member| (room, member)));
        for (turn, (room, index)) in everybody.enumerate() {
            if plan.place(room, index).1 != number {
                continue;
            }
            if plan.ramp > 0 {
                let at = begin + Duration::from_secs_f64(turn as f64 / f64::from(plan.ramp));
                if at > tokio::time::Instant::now() {
                    tokio::time::sleep_until(at).await;
                }
            }
            let Ok(permit) = Arc::clone(&gate).acquire_owned().await else { return };
            let member = Member::new(self, room, index);
            let failed = failed.clone();
            tokio::spawn(async move {
                if let Err(error) = member.live(permit).await {
                    // Nobody listens any more where another has failed before.
                    let _ = failed.send(error);
                }
            });
        }
    }
}
