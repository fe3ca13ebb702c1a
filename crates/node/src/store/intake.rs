//! What packets that are still arriving may take of this node: the bounds out of the live settings, the memory out of the
//! node's budget. What does not live here: the readers that ask.

use std::fmt;
use std::sync::Arc;

use roomcast_transport::intake::{Bounds, Intake, Share};

use super::Store;

/// What a packet must bring in a second once it has taken `timers.idle`: half of what the slowest link carries that a
/// call makes sense on.
const LEAST_RATE: u32 = 64_000;

/// The node, as its connections' readers ask it.
pub(crate) struct NodeIntake(Arc<Store>);

impl Store {
    /// For one connection's reader.
    pub(crate) fn intake(self: &Arc<Self>) -> Arc<dyn Intake> {
        Arc::new(NodeIntake(Arc::clone(self)))
    }
}

impl fmt::Debug for NodeIntake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeIntake").field(&self.bounds()).finish()
    }
}

impl Intake for NodeIntake {
    fn bounds(&self) -> Bounds {
        let live = self.0.live();
        Bounds { max_packet_bytes: live.limits.max_packet_bytes, patience: live.timers.idle, least_rate: LEAST_RATE }
    }

    fn share(&self) -> Box<dyn Share> {
        Box::new(Held(self.0.budget.share()))
    }
}

/// A share of the node's budget of bytes that wait.
struct Held(roomcast_relay::Share);

impl Share for Held {
    fn cover(&mut self, bytes: usize) -> bool {
        let covered = self.0.cover(bytes);
        if covered {
            self.0.settle(bytes);
        }
        covered
    }
}
