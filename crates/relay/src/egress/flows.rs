//! Which video flows of which senders lost a frame and wait for their next key frame, and where each flow's queued frames
//! stand. What lives here: that memory and its bounds. What does not: which packet goes.
//!
//! A queue keeps this only while it matters (see `EgressQueue`): a receiver that keeps up has none of it.
//!
//! Bounds. A flow is remembered while frames of it are queued, or while its state differs from what is assumed of a flow that
//! is not remembered. That is at first: nothing was lost. A sender of which more than [`FLOWS_PER_SENDER`] flows wait (no
//! client has so many streams, but one could invent 2^32) turns around: from then on its unremembered flows are assumed
//! to wait, and only so many of them that had a key frame since are remembered as sound. Either way no delta follows a gap.
//! All senders together have [`FLOWS`] remembered flows and [`TURNED_SENDERS`] that turned around; past that, the half that
//! has waited longest (or all that turned around) is forgotten, most likely flows of senders long gone. Should one of these
//! go on without a key frame, its receiver gets deltas that it cannot decode.

use std::collections::HashMap;

use roomcast_protocol::{SessionId, Tag};

use super::slots::List;

/// Most flows of one sender that are remembered without being queued.
pub(super) const FLOWS_PER_SENDER: u32 = 64;

/// Most flows of all senders that are remembered without being queued.
pub(super) const FLOWS: usize = 4_096;

/// Most senders that are turned around at once; one more, and all of them are forgotten.
pub(super) const TURNED_SENDERS: usize = 1_024;

type Key = (SessionId, u32);

fn key(tag: &Tag) -> Key {
    (tag.sender, tag.flow)
}

#[derive(Debug)]
struct Flow {
    queued: List,
    waiting: bool,
    /// Which change made `waiting` what it is.
    since: u64,
}

#[derive(Debug, Default)]
struct Sender {
    /// What holds for its flows that are not in the map.
    assumed_waiting: bool,
    /// How many of its flows in the map differ from that.
    different: u32,
}

/// The flows of one queue.
#[derive(Debug, Default)]
pub(super) struct Flows {
    flows: HashMap<Key, Flow>,
    /// Senders of which some flow waits or is assumed to.
    senders: HashMap<SessionId, Sender>,
    /// The sum of `different` over all senders.
    different: usize,
    /// How many senders are assumed to wait.
    turned: usize,
    /// How often a flow has come to differ from what is assumed.
    changes: u64,
}

impl Flows {
    /// Whether nothing would be lost by forgetting everything once the queue is empty.
    pub(super) fn is_sound(&self) -> bool {
        self.senders.is_empty()
    }

    /// Whether a delta of this flow would follow a gap.
    pub(super) fn waits(&self, tag: &Tag) -> bool {
        match self.flows.get(&key(tag)) {
            Some(flow) => flow.waiting,
            None => self.assumed(tag.sender),
        }
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.flows.len()
    }

    #[cfg(test)]
    pub(super) fn senders(&self) -> usize {
        self.senders.len()
    }

    fn assumed(&self, sender: SessionId) -> bool {
        self.senders.get(&sender).is_some_and(|sender| sender.assumed_waiting)
    }

    /// Lets `change` work on the list of the flow's queued frames.
    pub(super) fn with_queued<R>(&mut self, tag: &Tag, change: impl FnOnce(&mut List) -> R) -> R {
        let assumed = self.assumed(tag.sender);
        let flow = self.flows.entry(key(tag)).or_insert(Flow { queued: List::EMPTY, waiting: assumed, since: 0 });
        let result = change(&mut flow.queued);
        if flow.queued.is_empty() && flow.waiting == assumed {
            self.flows.remove(&key(tag));
        }
        result
    }

    /// From now on the flow waits for a key frame, or has had one.
    pub(super) fn set_waiting(&mut self, tag: &Tag, waiting: bool) {
        if self.waits(tag) == waiting {
            return;
        }
        let sender = self.senders.entry(tag.sender).or_default();
        if waiting == sender.assumed_waiting {
            sender.different -= 1;
            self.different -= 1;
            let flow = self.flows.get_mut(&key(tag)).expect("a flow that differs from what is assumed is in the map");
            flow.waiting = waiting;
            if flow.queued.is_empty() {
                self.flows.remove(&key(tag));
            }
            if sender.different == 0 && !sender.assumed_waiting {
                self.senders.remove(&tag.sender);
            }
        } else if sender.different < FLOWS_PER_SENDER {
            sender.different += 1;
            self.different += 1;
            self.changes += 1;
            let since = self.changes;
            let flow = self.flows.entry(key(tag)).or_insert(Flow { queued: List::EMPTY, waiting, since });
            (flow.waiting, flow.since) = (waiting, since);
            if self.different > FLOWS {
                self.forget_the_oldest_half();
            }
        } else if waiting {
            if let Some(flow) = self.flows.get_mut(&key(tag)) {
                flow.waiting = true;
            }
            self.turn_around(tag.sender);
        }
        // Else: one sound flow too many of a sender whose flows are assumed to wait. It goes on waiting.
    }

    /// Assumes from now on that the unremembered flows of a sender wait. Those that have frames queued behind no gap stay sound.
    fn turn_around(&mut self, id: SessionId) {
        if self.turned == TURNED_SENDERS {
            self.forget_the_turned();
        }
        self.turned += 1;
        self.flows.retain(|(sender, _), flow| *sender != id || !flow.waiting || !flow.queued.is_empty());
        let sender = self.senders.entry(id).or_default();
        self.different -= sender.different as usize;
        sender.assumed_waiting = true;
        sender.different = 0;
        for ((owner, _), flow) in &mut self.flows {
            if *owner == id && !flow.waiting {
                // At most as many as there are packets in the queue.
                sender.different += 1;
            }
        }
        self.different += sender.different as usize;
    }

    /// Makes room where very many senders have come, turned around and, most likely, gone.
    fn forget_the_turned(&mut self) {
        let senders = &self.senders;
        self.flows.retain(|(owner, _), flow| {
            !flow.queued.is_empty() || !senders.get(owner).is_some_and(|sender| sender.assumed_waiting)
        });
        self.senders.retain(|_, sender| !sender.assumed_waiting);
        self.turned = 0;
        // What is still queued of the forgotten is judged anew: a flow that waits now differs from what is assumed.
        let mut different = 0;
        for sender in self.senders.values_mut() {
            sender.different = 0;
        }
        for ((owner, _), flow) in &self.flows {
            if flow.waiting {
                self.senders.entry(*owner).or_default().different += 1;
                different += 1;
            }
        }
        self.different = different;
    }

    /// Makes room, at a cost that as many calls to `set_waiting` have paid for.
    fn forget_the_oldest_half(&mut self) {
        let mut ages: Vec<u64> =
            self.flows.values().filter(|flow| flow.queued.is_empty()).map(|flow| flow.since).collect();
        let middle = ages.len() / 2;
        let Some((_, &mut oldest_kept, _)) = (middle < ages.len()).then(|| ages.select_nth_unstable(middle)) else {
            return;
        };
        let forgotten: Vec<Key> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.queued.is_empty() && flow.since <= oldest_kept)
            .map(|(key, _)| *key)
            .collect();
        for key in forgotten {
            self.flows.remove(&key);
            if let Some(sender) = self.senders.get_mut(&key.0) {
                sender.different -= 1;
                self.different -= 1;
                if sender.different == 0 && !sender.assumed_waiting {
                    self.senders.remove(&key.0);
                }
            }
        }
    }
}
