//! Who asked for this node's roster, and how fast they get it.
//!
//! One encoded roster answers all who asked when its turn began, a bounded share in each turn: a hundred nodes that ask at
//! once neither stall the node nor flood its bus.

use std::collections::VecDeque;

use bytes::Bytes;

use super::own::Own;
use super::{MAX_PEERS, Send, TURN};
use crate::Time;

/// Bytes and messages in one turn: some 20 MB/s, and well within what waits on the way to a broker.
const BYTES_AT_ONCE: usize = 1 << 20;
const MESSAGES_AT_ONCE: usize = 256;

/// A run of a node, and its name.
type Asker = (u64, String);

#[derive(Debug, Default)]
pub(super) struct Answers {
    waiting: VecDeque<Asker>,
    round: Option<Round>,
    /// No more before this.
    again: Option<Time>,
}

/// One roster for all who had asked for it.
#[derive(Debug)]
struct Round {
    parts: Vec<Bytes>,
    /// Who gets it, and the first one's next part.
    askers: VecDeque<Asker>,
    part: usize,
}

impl Answers {
    /// Somebody asks; who waits already waits on.
    pub(super) fn ask(&mut self, instance: u64, name: String) {
        let round = self.round.iter().flat_map(|round| &round.askers);
        let waits = round.chain(&self.waiting).any(|asker| asker.0 == instance);
        if !waits && self.waiting.len() < MAX_PEERS {
            self.waiting.push_back((instance, name));
        }
    }

    /// Nobody can be answered: who needs it will ask again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends what is due, and says when there is more to send.
    pub(super) fn answer(&mut self, now: Time, own: &mut Own, out: &mut Vec<Send>) -> Option<Time> {
        if self.again.is_some_and(|again| again > now) {
            return self.next();
        }
        self.again = None;
        let (mut bytes, mut messages) = (0, 0);
        while bytes < BYTES_AT_ONCE && messages < MESSAGES_AT_ONCE {
            let round = match &mut self.round {
                Some(round) => round,
                None if self.waiting.is_empty() || messages > 0 => break,
                None => {
                    let (parts, askers) = (own.whole(now, out), std::mem::take(&mut self.waiting));
                    self.round.insert(Round { parts, askers, part: 0 })
                }
            };
            let (Some((instance, name)), Some(part)) = (round.askers.front(), round.parts.get(round.part)) else {
                self.round = None;
                continue;
            };
            let send = own.part(*instance, name, part);
            (bytes, messages) = (bytes + send.payload.len(), messages + 1);
            out.push(send);
            round.part += 1;
            if round.part == round.parts.len() {
                round.part = 0;
                round.askers.pop_front();
            }
            if round.askers.is_empty() {
                self.round = None;
            }
        }
        if messages > 0 {
            self.again = Some(now.after(TURN));
        }
        self.next()
    }

    fn next(&self) -> Option<Time> {
        let more = self.round.is_some() || !self.waiting.is_empty();
        self.again.filter(|_| more)
    }
}
