//! Lanes: the threads that connections live on, one for each core. A connection's handshake, its reads and its writes all happen on
//! its lane, so that a packet's way from socket to socket needs no work stealing: with that, every packet that arrives would wake
//! a second thread to look for work, and the sockets' memory would wander between the cores.
//!
//! What lives here: the threads and who is on which. What does not: actors, which stay with the runtime that the node was started
//! on; they are not in the media path.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::flush::FlushSet;

/// The most lanes, whatever the machine has.
const MOST: usize = 64;

/// All lanes of the node. When it is dropped its threads end, and with them what still runs on them.
pub(crate) struct Lanes {
    lanes: Box<[Arc<Lane>]>,
    next: AtomicUsize,
    threads: Option<DropGuard>,
}

/// One lane.
pub(crate) struct Lane {
    /// Its connections with something to write.
    pub(crate) flush: FlushSet,
    runtime: Option<Handle>,
}

impl Lane {
    /// Where its tasks run.
    ///
    /// # Panics
    /// Outside a runtime, for a node that was made outside one.
    pub(crate) fn runtime(&self) -> Handle {
        self.runtime.clone().unwrap_or_else(Handle::current)
    }
}

impl Lanes {
    /// A lane for each core; where the calling runtime has one thread only, a single one on that thread: whoever chose that, such as
    /// a test on paused time, wants all of it there.
    pub(crate) fn start() -> std::io::Result<Self> {
        let current = Handle::try_current().ok();
        if current.as_ref().is_none_or(|handle| handle.runtime_flavor() == RuntimeFlavor::CurrentThread) {
            let lane = Lane { flush: FlushSet::default(), runtime: current };
            return Ok(Self { lanes: [Arc::new(lane)].into(), next: AtomicUsize::new(0), threads: None });
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
        let stop = CancellationToken::new();
        let lanes = (0..cores).map(|number| lane(number, stop.clone()).map(Arc::new)).collect::<Result<_, _>>();
        let threads = stop.drop_guard();
        Ok(Self { lanes: lanes?, next: AtomicUsize::new(0), threads: Some(threads) })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lanes.len()
    }

    /// One of them, by its number from 0.
    pub(crate) fn get(&self, number: usize) -> &Arc<Lane> {
        &self.lanes[number]
    }

    /// One for a new connection: each in turn.
    pub(crate) fn next(&self) -> &Arc<Lane> {
        &self.lanes[self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len()]
    }

    /// Tasks on their threads.
    pub(crate) fn tasks(&self) -> usize {
        let onthreads = self.lanes.iter().filter(|_| self.threads.is_some());
        onthreads.map(|lane| lane.runtime().metrics().num_alive_tasks()).sum()
    }

    /// Has all of them look at the settings again.
    pub(crate) fn retune(&self) {
        self.lanes.iter().for_each(|lane| lane.flush.rouse());
    }
}

fn lane(number: usize, stop: CancellationToken) -> std::io::Result<Lane> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name(format!("lane-{number}"))
        .spawn(move || runtime.block_on(stop.cancelled_owned()))?;
    Ok(Lane { flush: FlushSet::default(), runtime: Some(handle) })
}
