//! From one connection to the next without a gap: what the new one brings is handed on without what the old one had
//! brought already, and without the echo of this client's own packets.
//!
//! What lives here: memories and decisions, with time as an argument. What does not: connecting, moving packets
//! (`connection`), and when to switch (`moving`).
//!
//! # How packets are matched
//!
//! Packets carry no numbers, so they are told by their bytes (a keyed 64-bit hash of all of them). Both connections bring
//! each sender's packets in the order sent; the old one's tail is the new one's head. Only when the old one has ended is
//! anything of the new one handed on, in its order; so a sender's packets stay in order if each packet that the old one
//! brought is left out once, and nothing else is. That needs no order between the two: a packet is left out if the old one
//! brought an equal one that no other packet was matched with. It holds for any delay of either, for several senders under
//! one name, and where a node dropped some: **what the old one did not bring is never left out for being late**. (A packet
//! that the old node dropped and the new one did not comes late, then, behind those after it.)
//!
//! A node hears of a packet when it does, so the new connection may bring what the old one had brought before it was even
//! asked for: the memory reaches back [`REACH`] before the move.
//!
//! Equal packets of one sender need more, since the memory may hold copies from before the new connection's first packet,
//! which would then be matched with later ones. So what is held of the new one at the switch is laid against the memory,
//! sender by sender: where the end of the one is the beginning of the other without a mismatch, the new one began there.
//! (Several places may fit; then the times decide: both bring a packet at nearly the same time.) What the old one brought
//! before is forgotten, all but the unrepeated packets of the last [`STRAGGLING`], which may yet come: a sender that moves
//! itself is heard by two ways, and so are two senders under one name. Where nothing of a sender has come by the switch, a
//! node dropped some of it, or it repeats itself within that time, a packet may be taken for its twin: one of two equal
//! packets is then missing, and never an unlike one.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use roomcast_protocol::{Dialect, peek};

/// How much earlier than the new node the old one may have brought a packet: how long before a move the memory begins.
pub(crate) const REACH: Duration = Duration::from_secs(5);

/// How much later than the old node the new one may bring a packet: how long after a move packets are matched.
pub(crate) const MATCHED_FOR: Duration = Duration::from_secs(15);

/// How much later than in its sender's order a packet may come.
const STRAGGLING: Duration = Duration::from_millis(500);

/// The most packets that are remembered of a connection, and of what was sent: five seconds of 3,000 packets each.
pub(crate) const REMEMBERED: usize = 16_384;

/// What a packet is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Of who sent it, as far as the packet tells.
    pub(crate) sender: u64,
    /// Of all its bytes.
    pub(crate) packet: u64,
    /// Of its bytes as its sender sent them: without the stamp that a node of the `sessions` dialect appends.
    pub(crate) bare: u64,
}

/// Makes marks. The key is random: nobody can make two packets of one mark.
#[derive(Clone, Debug)]
pub(crate) struct Marker {
    key: RandomState,
    dialect: Dialect,
}

impl Marker {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self { key: RandomState::new(), dialect }
    }

    /// The mark of a packet that was received.
    pub(crate) fn mark(&self, bytes: &[u8]) -> Mark {
        let packet = self.sent(bytes);
        let Ok(header) = peek(self.dialect, bytes) else { return Mark { sender: 0, packet, bare: packet } };
        let sender = self.key.hash_one((header.user, header.session_id));
        let bare = match self.dialect {
            Dialect::Seed => packet,
            Dialect::Sessions => without_stamp(bytes, header.session_id).map_or(packet, |bare| self.sent(bare)),
        };
        Mark { sender, packet, bare }
    }

    /// The mark of a packet that is sent.
    pub(crate) fn sent(&self, bytes: &[u8]) -> u64 {
        self.key.hash_one(bytes)
    }
}

/// The packet before a node appended its sender's session (field 4, the protobuf way).
fn without_stamp(bytes: &[u8], session: u64) -> Option<&[u8]> {
    let mut stamp = vec![4 << 3];
    prost::encoding::encode_varint(session, &mut stamp);
    bytes.strip_suffix(stamp.as_slice())
}

/// The packets of the last [`REACH`], at most [`REMEMBERED`] of them. While it is kept, none is forgotten for its age.
#[derive(Clone, Debug)]
pub(crate) struct Memory<T> {
    entries: VecDeque<(T, Instant)>,
    kept: bool,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), kept: false }
    }
}

impl<T: Copy> Memory<T> {
    /// Remembers one more. `false` where an older one had to be forgotten for it while all were to be kept.
    pub(crate) fn add(&mut self, mark: T, now: Instant) -> bool {
        self.forget(now);
        let full = self.entries.len() >= REMEMBERED;
        if full {
            self.entries.pop_front();
        }
        self.entries.push_back((mark, now));
        !(full && self.kept)
    }

    /// From now on what there is stays.
    pub(crate) fn keep(&mut self, now: Instant) {
        self.forget(now);
        self.kept = true;
    }

    /// What is remembered, the oldest first.
    pub(crate) fn entries(&mut self, now: Instant) -> &VecDeque<(T, Instant)> {
        self.forget(now);
        &self.entries
    }

    fn forget(&mut self, now: Instant) {
        while !self.kept && self.entries.front().is_some_and(|(_, at)| now.saturating_duration_since(*at) > REACH) {
            self.entries.pop_front();
        }
    }
}

/// What is to be done with a packet of the new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new: hand it on.
    New,
    /// The old connection brought it.
    Brought,
    /// It is this client's own, sent on the old connection.
    Echo,
}

/// Judges what a new connection brings, once the old one has ended.
#[derive(Debug)]
pub(crate) struct Matcher {
    /// How many packets of each mark the old one brought that are not matched yet.
    brought: HashMap<u64, usize>,
    /// The same of what was sent.
    sent: HashMap<u64, usize>,
    /// Until when packets are matched.
    until: Instant,
}

impl Matcher {
    /// `old` is what the old connection brought, `sent` what this client sent lately, `held` what the new connection has
    /// brought by now, each the oldest first.
    pub(crate) fn new<'a>(
        old: &VecDeque<(Mark, Instant)>,
        sent: &VecDeque<(u64, Instant)>,
        held: impl Iterator<Item = &'a (Mark, Instant)>,
        now: Instant,
    ) -> Self {
        let mut of_sender: HashMap<u64, (Sequence, Sequence)> = HashMap::new();
        for (mark, at) in old {
            of_sender.entry(mark.sender).or_default().0.push((mark.packet, *at));
        }
        for (mark, at) in held {
            if let Some((_, new)) = of_sender.get_mut(&mark.sender) {
                new.push((mark.packet, *at));
            }
        }
        let mut brought = HashMap::new();
        for (old, new) in of_sender.into_values() {
            let begins = beginning(&old, &new);
            let repeated: HashSet<u64> = old[begins..].iter().map(|(packet, _)| *packet).collect();
            for (place, (packet, at)) in old.iter().enumerate() {
                let straggles =
                    !repeated.contains(packet) && old[begins].1.saturating_duration_since(*at) <= STRAGGLING;
                if place >= begins || straggles {
                    *brought.entry(*packet).or_default() += 1;
                }
            }
        }
        let mut own = HashMap::new();
        for (packet, _) in sent {
            *own.entry(*packet).or_default() += 1;
        }
        Self { brought, sent: own, until: now + MATCHED_FOR }
    }

    /// Judges the next packet.
    pub(crate) fn judge(&mut self, mark: Mark) -> Verdict {
        if take(&mut self.brought, mark.packet) {
            Verdict::Brought
        } else if take(&mut self.sent, mark.bare) {
            Verdict::Echo
        } else {
            Verdict::New
        }
    }

    /// Whether there is nothing left to match.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.until || (self.brought.is_empty() && self.sent.is_empty())
    }

    /// Nothing was read for a while, for this side's reasons: what comes now may have come long ago.
    pub(crate) fn postpone(&mut self, now: Instant) {
        self.until = self.until.max(now + MATCHED_FOR);
    }
}

fn take(counts: &mut HashMap<u64, usize>, packet: u64) -> bool {
    let Some(count) = counts.get_mut(&packet) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(&packet);
    }
    true
}

/// One sender's packets and when they came.
type Sequence = Vec<(u64, Instant)>;

/// Where in `old` the new connection began: at the place from which on the two agree as far as both go, of several such
/// places at the one where the packets' times agree best. 0 where there is none.
fn beginning(old: &Sequence, new: &Sequence) -> usize {
    let Some((first, _)) = new.first() else { return 0 };
    let fits = |start: &usize| old[*start..].iter().zip(new).all(|((old, _), (new, _))| old == new);
    let starts = (0..old.len()).filter(|start| old[*start].0 == *first).filter(fits);
    // Bounded work: a sender that repeats itself without end is matched at its latest copies.
    let apart = |start: &usize| {
        let pairs = old[*start..].iter().zip(new);
        let count = pairs.len().max(1) as u32;
        pairs.map(|((_, old), (_, new))| distance(*old, *new)).sum::<Duration>() / count
    };
    starts.rev().take(MOST_PLACES).min_by_key(apart).unwrap_or(0)
}

/// How many places are compared.
const MOST_PLACES: usize = 64;

fn distance(a: Instant, b: Instant) -> Duration {
    a.max(b) - a.min(b)
}

#[cfg(test)]
#[path = "handover_tests.rs"]
mod tests;
