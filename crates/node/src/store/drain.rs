//! The node's way out, as far as it must outlive the actor that paces it: that it has begun and when, that somebody is in a
//! hurry, that it is over. What lives elsewhere: the pace (`relay::drain`), the pacing (`actors::drain`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use roomcast_relay::Time;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// How far the node is on its way out. Each step is taken once and never taken back.
#[derive(Default)]
pub(crate) struct Drain {
    since: OnceLock<Time>,
    begun: CancellationToken,
    hurried: CancellationToken,
    over: CancellationToken,
    /// Connections that were told so far.
    told: AtomicUsize,
}

impl Drain {
    /// Begins. False where it had begun already.
    pub(crate) fn begin(&self, now: Time) -> bool {
        let first = self.since.set(now).is_ok();
        self.begun.cancel();
        first
    }

    pub(crate) fn is_begun(&self) -> bool {
        self.since.get().is_some()
    }

    /// When it began.
    pub(crate) fn since(&self) -> Option<Time> {
        self.since.get().copied()
    }

    /// Waits until it begins.
    pub(crate) fn begun(&self) -> WaitForCancellationFuture<'_> {
        self.begun.cancelled()
    }

    /// Connections that were told so far.
    pub(crate) fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }

    /// One more is told.
    pub(crate) fn count_told(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    /// Nobody is waited for any more.
    pub(crate) fn hurry(&self) {
        self.hurried.cancel();
    }

    /// Everybody was told, and whoever could leave has had the time.
    pub(crate) fn finish(&self) {
        self.over.cancel();
    }

    /// Waits until it is over, or somebody is in a hurry.
    pub(crate) async fn over(&self) {
        tokio::select! {
            () = self.over.cancelled() => {}
            () = self.hurried.cancelled() => {}
        }
    }
}
