//! A run from its first join to its report: starts the threads, sets the times, looks at processes, waits for the last copies.

use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::counts::{Counts, Timeline};
use crate::join::{Door, JoinError};
use crate::plan::Plan;
use crate::plot::{Graphs, Sample};
use crate::process::{self, TooFewFiles, Usage, UsageError};
use crate::report::{Findings, Report};
use crate::thread::Thread;

/// From setting the times to the first packet: every sender has looked by then.
const LEAD: Duration = Duration::from_millis(300);
/// Between two looks at the counts, and at what is under way.
const TICK: Duration = Duration::from_millis(20);
/// Between two progress reports.
const PROGRESS: Duration = Duration::from_secs(1);
/// Between two samples of the processor's use, at the least.
const SAMPLE: Duration = Duration::from_millis(500);
/// The most samples.
const SAMPLES: u32 = 2_000;
/// After the window: how long copies may take to come, and how long none may have come before the rest are given up.
const LAST_WAIT: Duration = Duration::from_secs(10);
const LAST_QUIET: Duration = Duration::from_millis(1_500);

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The limit of open files.
    #[error(transparent)]
    Files(#[from] TooFewFiles),
    /// A process that cannot be looked at.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// A member could not join.
    #[error("{0}")]
    Join(String),
    /// A thread or its runtime could not be started, or broke.
    #[error("a thread of load failed: {0}")]
    Thread(String),
}

impl From<JoinError> for RunError {
    fn from(error: JoinError) -> Self {
        Self::Join(error.to_string())
    }
}

/// What a run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Members join.
    Joining,
    /// Senders send, nothing counts yet.
    WarmUp,
    /// The measured window.
    Measuring,
    /// Waiting for the last copies.
    LastCopies,
}

/// How a run goes, told once a second.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What it is at.
    pub phase: Phase,
    /// Since the window began.
    pub measured: Duration,
    /// Members that have joined, of all.
    pub joined: (u64, u64),
    /// Copies a second, since the last progress.
    pub copies_per_second: f64,
    /// The 99th percentile of the delay since the last progress, in milliseconds.
    pub delay_p99_ms: f64,
    /// Copies that were skipped and have not come so far.
    pub lost: u64,
}

/// Threads that make load, until this is dropped.
struct Load {
    threads: Vec<Arc<Thread>>,
    stops: Vec<oneshot::Sender<()>>,
    handles: Vec<JoinHandle<()>>,
    failed: mpsc::Receiver<JoinError>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stops.clear();
        for handle in self.handles.drain(..) {
            // A panic was printed when it happened; there is nothing left to do with it here.
            let _ = handle.join();
        }
    }
}

impl Load {
    fn start(plan: &Arc<Plan>, timeline: &Arc<OnceLock<Timeline>>, epoch: Instant) -> Result<Self, RunError> {
        let doors = plan.targets.iter().map(|target| Door::new(plan, target)).collect::<Result<Vec<_>, _>>()?;
        let doors = Arc::new(doors);
        let run = fastrand::u32(..);
        let (tell, failed) = mpsc::channel();
        let mut load = Self { threads: Vec::new(), stops: Vec::new(), handles: Vec::new(), failed };
        for number in 0..plan.threads {
            let thread = Arc::new(Thread::new(plan, &doors, timeline, run, epoch));
            let (stop, stopped) = oneshot::channel();
            let (driven, tell) = (Arc::clone(&thread), tell.clone());
            let handle = std::thread::Builder::new().name(format!("load-{number}")).spawn(move || {
                if let Err(error) = driven.drive(number, stopped, &tell) {
                    let _ = tell.send(JoinError::Trust(format!("no runtime: {error}")));
                }
            });
            load.handles.push(handle.map_err(|error| RunError::Thread(error.to_string()))?);
            load.threads.push(thread);
            load.stops.push(stop);
        }
        Ok(load)
    }

    /// All threads' counts; the recent delays are taken out where they are to be reported.
    fn counts(&self, take_recent: bool) -> Counts {
        let mut sum = Counts::default();
        for thread in &self.threads {
            let counts = &mut thread.scratch().counts;
            sum.merge(counts);
            if take_recent {
                counts.recent.clear();
            }
        }
        sum
    }

    /// Copies offered and arrived, and all that came: without the histograms.
    fn under_way(&self) -> (u64, u64, u64) {
        self.threads.iter().fold((0, 0, 0), |(offered, arrived, total), thread| {
            let counts = &thread.scratch().counts;
            (offered + counts.offered, arrived + counts.arrived, total + counts.total)
        })
    }

    fn check(&self) -> Result<(), RunError> {
        if let Ok(error) = self.failed.try_recv() {
            return Err(error.into());
        }
        match self.handles.iter().any(JoinHandle::is_finished) {
            true => Err(RunError::Thread("it ended early".to_owned())),
            false => Ok(()),
        }
    }
}

/// Tells progress once a second.
struct Watch<'a> {
    tell: &'a mut dyn FnMut(&Progress),
    last: Instant,
    total: u64,
    members: u64,
}

impl Watch<'_> {
    fn look(&mut self, load: &Load, phase: Phase, measured: Duration) {
        let passed = self.last.elapsed();
        if passed < PROGRESS {
            return;
        }
        let counts = load.counts(true);
        (self.tell)(&Progress {
            phase,
            measured,
            joined: (counts.joined, self.members),
            copies_per_second: (counts.total - self.total) as f64 / passed.as_secs_f64(),
            delay_p99_ms: counts.recent.quantile(0.99) as f64 / 1e3,
            lost: counts.missing,
        });
        self.last = Instant::now();
        self.total = counts.total;
    }
}

/// Makes a run. Blocks until it is over; `tell` hears of it once a second.
///
/// # Errors
///
/// It could not be made. Loss is no error: it is in the report.
pub fn run(plan: Plan, tell: &mut dyn FnMut(&Progress)) -> Result<(Report, Graphs), RunError> {
    process::allow_files(plan.connections())?;
    process::usage(&plan.pids)?;
    let plan = Arc::new(plan);
    let epoch = Instant::now();
    let timeline = Arc::new(OnceLock::new());
    let load = Load::start(&plan, &timeline, epoch)?;
    let members = plan.connections() as u64;
    let mut watch = Watch { tell, last: Instant::now(), total: 0, members };
    while load.threads.iter().map(|thread| thread.scratch().counts.joined).sum::<u64>() < members {
        load.check()?;
        watch.look(&load, Phase::Joining, Duration::ZERO);
        std::thread::sleep(TICK);
    }

    let begin = epoch.elapsed() + LEAD;
    let start = begin + plan.warmup;
    let end = start + plan.duration;
    let micros = |time: Duration| time.as_micros() as u64;
    timeline.get_or_init(|| Timeline { begin: micros(begin), start: micros(start), end: micros(end) });
    wait_until(epoch + start, || {
        watch.look(&load, Phase::WarmUp, Duration::ZERO);
        load.check()
    })?;

    let look = || -> (Duration, Duration, Option<Usage>) {
        (epoch.elapsed(), process::own_cpu(), process::usage(&plan.pids).ok().filter(|_| !plan.pids.is_empty()))
    };
    let first = look();
    let mut samples = vec![first];
    let step = SAMPLE.max(plan.duration / SAMPLES);
    let mut next = start + step;
    while next < end {
        wait_until(epoch + next, || {
            watch.look(&load, Phase::Measuring, epoch.elapsed().saturating_sub(start));
            load.check()
        })?;
        samples.push(look());
        next += step;
    }
    wait_until(epoch + end, || {
        watch.look(&load, Phase::Measuring, epoch.elapsed().saturating_sub(start));
        load.check()
    })?;
    let last = look();
    samples.push(last);

    wait_for_last(&load, |load| watch.look(load, Phase::LastCopies, plan.duration));
    let counts = load.counts(false);
    drop(load);
    let report = Report::new(&Findings {
        window: plan.duration,
        counts: &counts,
        threads: plan.threads,
        own_cpu: last.1 - first.1,
        pids: &plan.pids,
        routers: first.2.zip(last.2),
    });
    let graphs = Graphs { summary: plan.summary(), delays: counts.delays, samples: shares(&samples, start) };
    Ok((report, graphs))
}

/// Waits, and does something in between.
fn wait_until(moment: Instant, mut meanwhile: impl FnMut() -> Result<(), RunError>) -> Result<(), RunError> {
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(TICK));
        meanwhile()?;
    }
}

/// Until all that is owed has come, or nothing has for a while.
fn wait_for_last(load: &Load, mut meanwhile: impl FnMut(&Load)) {
    let deadline = Instant::now() + LAST_WAIT;
    let (mut before, mut since) = (0, Instant::now());
    while Instant::now() < deadline {
        let (offered, arrived, total) = load.under_way();
        if total != before {
            (before, since) = (total, Instant::now());
        }
        if arrived >= offered || since.elapsed() > LAST_QUIET {
            return;
        }
        meanwhile(load);
        std::thread::sleep(TICK);
    }
}

/// The processor's use between each two looks, in cores.
fn shares(looks: &[(Duration, Duration, Option<Usage>)], start: Duration) -> Vec<Sample> {
    let pairs = looks.iter().zip(looks.iter().skip(1));
    pairs
        .filter(|(one, other)| other.0 > one.0)
        .map(|(one, other)| {
            let time = (other.0 - one.0).as_secs_f64();
            let routers = one.2.zip(other.2).map(|(a, b)| b.cpu.saturating_sub(a.cpu).as_secs_f64() / time);
            Sample {
                second: other.0.saturating_sub(start).as_secs_f64(),
                generator: (other.1 - one.1).as_secs_f64() / time,
                routers,
            }
        })
        .collect()
}
