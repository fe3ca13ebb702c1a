//! The history checker: from what every client sent and received, whether the router kept its promises. Pure.
//!
//! Nothing lost, nothing twice, nothing out of a sender's order, nothing back to its sender, nothing across rooms,
//! nothing changed, nothing invented.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// One client of a history.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The room that it was in, from before the first packet to after the last.
    pub room: String,
    /// What it sent, in order.
    pub sent: Vec<Vec<u8>>,
    /// What it received, in order.
    pub received: Vec<Vec<u8>>,
}

/// All clients by name. Every packet must be unlike every other: tests number them.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By name.
    pub clients: BTreeMap<String, Client>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A member of the room never got a packet.
    Lost {
        /// Who sent it.
        from: String,
        /// Who did not get it.
        to: String,
        /// The how-many-eth of the sender's packets.
        index: usize,
    },
    /// A member got a packet more than once.
    Duplicated {
        /// Who sent it.
        from: String,
        /// Who got it again.
        to: String,
        /// The how-many-eth of the sender's packets.
        index: usize,
    },
    /// A member got a sender's packet after a later one of the same sender.
    Reordered {
        /// Who sent it.
        from: String,
        /// Who got it late.
        to: String,
        /// The how-many-eth of the sender's packets.
        index: usize,
    },
    /// A client got its own packet.
    Echoed {
        /// Who.
        client: String,
        /// The how-many-eth of its packets.
        index: usize,
    },
    /// A client got a packet of another room.
    Leaked {
        /// Who sent it.
        from: String,
        /// Who got it.
        to: String,
        /// The how-many-eth of the sender's packets.
        index: usize,
    },
    /// A client got what nobody sent.
    Invented {
        /// Who got it.
        to: String,
        /// Its place among what the client received.
        place: usize,
    },
    /// Two packets of the history are alike, so it proves nothing.
    NotUnique {
        /// Who sent the second one.
        from: String,
        /// The how-many-eth of the sender's packets.
        index: usize,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { from, to, index } => write!(f, "{to} never got packet {index} of {from}"),
            Self::Duplicated { from, to, index } => write!(f, "{to} got packet {index} of {from} again"),
            Self::Reordered { from, to, index } => write!(f, "{to} got packet {index} of {from} after a later one"),
            Self::Echoed { client, index } => write!(f, "{client} got its own packet {index}"),
            Self::Leaked { from, to, index } => write!(f, "{to} got packet {index} of {from}, who is in another room"),
            Self::Invented { to, place } => write!(f, "{to} got at place {place} what nobody sent"),
            Self::NotUnique { from, index } => write!(f, "packet {index} of {from} is like another one"),
        }
    }
}

impl History {
    /// Everything that is wrong with it; empty when all promises were kept.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut origins: HashMap<&[u8], (&str, usize)> = HashMap::new();
        for (from, client) in &self.clients {
            for (index, packet) in client.sent.iter().enumerate() {
                if origins.insert(packet, (from, index)).is_some() {
                    violations.push(Violation::NotUnique { from: from.clone(), index });
                }
            }
        }
        for (to, receiver) in &self.clients {
            let mut seen: HashMap<&str, Vec<bool>> = HashMap::new();
            let mut newest: HashMap<&str, usize> = HashMap::new();
            for (place, packet) in receiver.received.iter().enumerate() {
                let Some((from, index)) = origins.get(packet.as_slice()).copied() else {
                    violations.push(Violation::Invented { to: to.clone(), place });
                    continue;
                };
                let sender = &self.clients[from];
                if from == to {
                    violations.push(Violation::Echoed { client: to.clone(), index });
                    continue;
                }
                let (from, to) = (from.to_owned(), to.clone());
                if sender.room != receiver.room {
                    violations.push(Violation::Leaked { from, to, index });
                    continue;
                }
                let key = self.clients.get_key_value(&from).map_or("", |(name, _)| name);
                let seen = seen.entry(key).or_insert_with(|| vec![false; sender.sent.len()]);
                let newest = newest.entry(key).or_insert(index);
                if std::mem::replace(&mut seen[index], true) {
                    violations.push(Violation::Duplicated { from, to, index });
                } else if index < *newest {
                    violations.push(Violation::Reordered { from, to, index });
                } else {
                    *newest = index;
                }
            }
            for (from, sender) in &self.clients {
                if from == to || sender.room != receiver.room {
                    continue;
                }
                let seen = seen.get(from.as_str());
                for index in (0..sender.sent.len()).filter(|index| !seen.is_some_and(|seen| seen[*index])) {
                    violations.push(Violation::Lost { from: from.clone(), to: to.clone(), index });
                }
            }
        }
        violations
    }

    /// Fails with what is wrong.
    ///
    /// # Panics
    /// When anything is.
    pub fn check(&self) {
        let violations = self.violations();
        let shown: Vec<String> = violations.iter().take(20).map(ToString::to_string).collect();
        assert!(violations.is_empty(), "{} violations, the first: {shown:#?}", violations.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three clients in one room and one in another, each of which sent three packets, all delivered.
    fn perfect() -> History {
        let mut history = History::default();
        for (name, room) in [("ann", "a"), ("bob", "a"), ("cat", "a"), ("dan", "b")] {
            let sent = (0..3).map(|index| format!("{name}-{index}").into_bytes()).collect();
            history.clients.insert(name.into(), Client { room: room.into(), sent, received: Vec::new() });
        }
        for to in ["ann", "bob", "cat"] {
            for index in 0..3 {
                for from in ["cat", "ann", "bob"].into_iter().filter(|from| *from != to) {
                    receive(&mut history, to, &format!("{from}-{index}"));
                }
            }
        }
        history
    }

    fn receive(history: &mut History, to: &str, packet: &str) {
        history.clients.get_mut(to).unwrap().received.push(packet.as_bytes().to_vec());
    }

    fn received<'a>(history: &'a mut History, name: &str) -> &'a mut Vec<Vec<u8>> {
        &mut history.clients.get_mut(name).unwrap().received
    }

    #[test]
    fn a_perfect_history_has_no_violation() {
        assert_eq!(perfect().violations(), []);
        perfect().check();
    }

    #[test]
    fn every_planted_fault_is_found() {
        let (ann, bob) = (|| "ann".to_owned(), || "bob".to_owned());
        let mut lost = perfect();
        received(&mut lost, "ann").retain(|packet| packet != b"bob-1");
        assert_eq!(lost.violations(), [Violation::Lost { from: bob(), to: ann(), index: 1 }]);

        let mut twice = perfect();
        receive(&mut twice, "ann", "bob-2");
        assert_eq!(twice.violations(), [Violation::Duplicated { from: bob(), to: ann(), index: 2 }]);

        let mut disordered = perfect();
        let (first, second) = (1, 3);
        assert_eq!(received(&mut disordered, "ann")[first], b"bob-0");
        received(&mut disordered, "ann").swap(first, second);
        assert_eq!(disordered.violations(), [Violation::Reordered { from: bob(), to: ann(), index: 0 }]);

        let mut echo = perfect();
        receive(&mut echo, "ann", "ann-0");
        assert_eq!(echo.violations(), [Violation::Echoed { client: ann(), index: 0 }]);

        let mut leak = perfect();
        receive(&mut leak, "ann", "dan-0");
        assert_eq!(leak.violations(), [Violation::Leaked { from: "dan".into(), to: ann(), index: 0 }]);

        let mut changed = perfect();
        received(&mut changed, "ann")[1].push(0);
        assert_eq!(
            changed.violations(),
            [Violation::Invented { to: ann(), place: 1 }, Violation::Lost { from: bob(), to: ann(), index: 0 }]
        );

        let mut alike = perfect();
        alike.clients.get_mut("bob").unwrap().sent[0] = b"ann-0".to_vec();
        assert!(alike.violations().contains(&Violation::NotUnique { from: bob(), index: 0 }));
    }
}
