//! The history checker for members whose connections are cut and who come back: whoever was not cut has lost nothing, and
//! whoever was has lost only what passed while it was away. Pure.
//!
//! Packets are numbered from 0 by their sender. What anybody heard of a sender is what the router relayed, and all who were
//! in the room then must have heard it. A sender's own packets may be lost where its connection was cut, in one run for
//! each cut, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One connection of a member, from its join to its end.
#[derive(Clone, Debug, Default)]
pub struct Stay {
    /// By sender: the first number that was sent for sure after this join was answered.
    pub joined: BTreeMap<u32, u32>,
    /// By sender: the numbers heard, in order of arrival.
    pub heard: BTreeMap<u32, Vec<u32>>,
}

/// One member of a room.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// How many packets it sent, lost ones included.
    pub sent: u32,
    /// Its connections, in order. The last one was open until everything was heard; the others were cut.
    pub stays: Vec<Stay>,
}

/// A broken promise. `stay` counts a member's connections from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Others got the packet while this member was in.
    Lost {
        /// Who did not get it.
        to: u32,
        /// On which of its connections.
        stay: usize,
        /// Who sent it.
        from: u32,
        /// Which.
        number: u32,
    },
    /// It came after a later one, or again.
    Disordered {
        /// Who got it.
        to: u32,
        /// On which of its connections.
        stay: usize,
        /// Who sent it.
        from: u32,
        /// Which.
        number: u32,
    },
    /// Nobody sent it.
    Invented {
        /// Who got it.
        to: u32,
        /// From whom it says it is.
        from: u32,
        /// Which.
        number: u32,
    },
    /// Runs of packets that nobody got, more than the sender was cut.
    Swallowed {
        /// Who sent them.
        from: u32,
        /// How many runs.
        runs: usize,
        /// How often the sender was cut.
        cuts: usize,
        /// The first packet of the first run.
        first: u32,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { to, stay, from, number } => {
                write!(f, "{to} never got packet {number} of {from} on its connection {stay}")
            }
            Self::Disordered { to, stay, from, number } => {
                write!(f, "{to} got packet {number} of {from} late or again on its connection {stay}")
            }
            Self::Invented { to, from, number } => write!(f, "{to} got packet {number} of {from}, which nobody sent"),
            Self::Swallowed { from, runs, cuts, first } => {
                write!(
                    f,
                    "nobody got {runs} runs of {from}'s packets, who was cut {cuts} times; the first from {first}"
                )
            }
        }
    }
}

/// All that is wrong with what the members of one room sent and heard.
#[must_use]
pub fn violations(members: &BTreeMap<u32, Member>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut relayed: BTreeMap<u32, BTreeSet<u32>> = members.keys().map(|id| (*id, BTreeSet::new())).collect();
    for stay in members.values().flat_map(|member| &member.stays) {
        for (from, numbers) in &stay.heard {
            relayed.entry(*from).or_default().extend(numbers);
        }
    }
    for (to, member) in members {
        for (index, stay) in member.stays.iter().enumerate() {
            let last = index + 1 == member.stays.len();
            for (from, sender) in members.iter().filter(|(from, _)| *from != to) {
                let heard = stay.heard.get(from).map_or(&[][..], Vec::as_slice);
                let lost = |number: &u32| Violation::Lost { to: *to, stay: index, from: *from, number: *number };
                let late = heard.windows(2).filter(|pair| pair[1] <= pair[0]).map(|pair| pair[1]);
                found.extend(late.map(|number| Violation::Disordered { to: *to, stay: index, from: *from, number }));
                let unsent = heard.iter().filter(|number| **number >= sender.sent);
                found.extend(unsent.map(|number| Violation::Invented { to: *to, from: *from, number: *number }));
                // From the first that it had to hear, or did hear, to the last: everything that was relayed.
                let joined = stay.joined.get(from).copied().unwrap_or(u32::MAX);
                let begin = heard.first().map_or(joined, |first| joined.min(*first));
                let end = if last { sender.sent } else { heard.last().map_or(0, |last| last.saturating_add(1)) };
                if begin < end {
                    let heard: BTreeSet<u32> = heard.iter().copied().collect();
                    found.extend(relayed[from].range(begin..end).filter(|number| !heard.contains(number)).map(lost));
                }
            }
            let strangers = stay.heard.iter().filter(|(from, _)| *from == to || !members.contains_key(from));
            found.extend(strangers.flat_map(|(from, numbers)| {
                numbers.iter().map(|number| Violation::Invented { to: *to, from: *from, number: *number })
            }));
        }
        let missing: Vec<u32> = (0..member.sent).filter(|number| !relayed[to].contains(number)).collect();
        let begins = |at: &usize| *at == 0 || missing[at - 1] + 1 != missing[*at];
        let (runs, cuts) = ((0..missing.len()).filter(begins).count(), member.stays.len().saturating_sub(1));
        if runs > cuts {
            found.push(Violation::Swallowed { from: *to, runs, cuts, first: missing[0] });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: u32 = 1;
    const BOB: u32 = 2;
    const CAT: u32 = 3;

    /// Ann and Bob stay. Cat is cut after she heard 0 to 3 of both and sent 4 packets, of which the last is lost; she is
    /// back before their packet 6. Everybody sends ten packets.
    fn story() -> BTreeMap<u32, Member> {
        let all: Vec<u32> = (0..10).collect();
        let cats: Vec<u32> = (0..10).filter(|number| *number != 3).collect();
        let here = |joined: u32, senders: [(u32, &[u32]); 2]| Stay {
            joined: senders.iter().map(|(from, _)| (*from, joined)).collect(),
            heard: senders.iter().map(|(from, numbers)| (*from, numbers.to_vec())).collect(),
        };
        let member = |stays| Member { sent: 10, stays };
        BTreeMap::from([
            (ANN, member(vec![here(0, [(BOB, &all), (CAT, &cats)])])),
            (BOB, member(vec![here(0, [(ANN, &all), (CAT, &cats)])])),
            (
                CAT,
                member(vec![
                    here(0, [(ANN, &all[..4]), (BOB, &all[..4])]),
                    here(6, [(ANN, &all[5..]), (BOB, &all[6..])]),
                ]),
            ),
        ])
    }

    /// What is wrong once `change` was made to what somebody heard of somebody.
    fn after(to: u32, stay: usize, from: u32, change: impl FnOnce(&mut Vec<u32>)) -> Vec<Violation> {
        let mut story = story();
        change(story.get_mut(&to).unwrap().stays[stay].heard.entry(from).or_default());
        violations(&story)
    }

    fn forget(heard: &mut Vec<u32>, at: usize) {
        heard.remove(at);
    }

    #[test]
    fn being_cut_is_no_violation() {
        assert_eq!(violations(&story()), []);
    }

    #[test]
    fn a_loss_of_somebody_who_was_in_is_found() {
        let lost = |to, stay, from, number| [Violation::Lost { to, stay, from, number }];
        assert_eq!(after(ANN, 0, BOB, |heard| forget(heard, 2)), lost(ANN, 0, BOB, 2));
        assert_eq!(
            after(ANN, 0, CAT, |heard| forget(heard, heard.len() - 1)),
            lost(ANN, 0, CAT, 9),
            "the end of the last stay"
        );
        assert_eq!(after(CAT, 0, ANN, |heard| forget(heard, 2)), lost(CAT, 0, ANN, 2), "in the middle of a stay");
        assert_eq!(after(CAT, 1, BOB, |heard| forget(heard, 0)), lost(CAT, 1, BOB, 6), "the first after the join");
        assert_eq!(after(CAT, 1, BOB, |heard| heard.clear()).len(), 4);
        assert_eq!(after(CAT, 0, BOB, |heard| forget(heard, heard.len() - 1)), [], "under way when it was cut");
        assert_eq!(after(CAT, 1, ANN, |heard| forget(heard, 0)), [], "sent before the join was answered");
    }

    #[test]
    fn what_comes_again_or_late_or_from_nowhere_is_found() {
        let disordered = |number| [Violation::Disordered { to: ANN, stay: 0, from: BOB, number }];
        assert_eq!(after(ANN, 0, BOB, |heard| heard.insert(5, 4)), disordered(4));
        assert_eq!(after(ANN, 0, BOB, |heard| heard.swap(4, 5)), disordered(4));
        let invented = |from, number| [Violation::Invented { to: ANN, from, number }];
        assert_eq!(after(ANN, 0, BOB, |heard| heard.push(10)), invented(BOB, 10));
        assert_eq!(after(ANN, 0, 99, |heard| heard.push(0)), invented(99, 0));
        assert_eq!(after(ANN, 0, ANN, |heard| heard.push(3)), invented(ANN, 3));
    }

    #[test]
    fn a_sender_may_lose_packets_only_where_it_was_cut() {
        let mut story = story();
        for to in [ANN, BOB] {
            story.get_mut(&to).unwrap().stays[0].heard.get_mut(&CAT).unwrap().retain(|number| *number != 7);
        }
        assert_eq!(violations(&story), [Violation::Swallowed { from: CAT, runs: 2, cuts: 1, first: 3 }]);
        for member in story.values_mut() {
            for stay in &mut member.stays {
                stay.heard.entry(BOB).or_default().retain(|number| *number != 8);
            }
        }
        story.get_mut(&BOB).unwrap().stays[0].heard.remove(&BOB);
        story.get_mut(&CAT).unwrap().stays.push(Stay::default());
        let found = violations(&story);
        assert_eq!(found, [Violation::Swallowed { from: BOB, runs: 1, cuts: 0, first: 8 }]);
    }
}
