//! What one receiver had: of what, how late, and whether its pictures can be decoded.

use std::collections::HashMap;
use std::time::Duration;

use super::packet::{Kind, Picture};

/// One packet that was heard.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// What it was.
    pub picture: Picture,
    /// From its sending to its hearing.
    pub delay: Duration,
}

impl Heard {
    /// As a line of text, for another process.
    #[must_use]
    pub fn line(&self) -> String {
        let Picture { sender, number, kind, sent } = self.picture;
        format!("{sender} {number} {} {sent} {}", kind as u8, self.delay.as_micros())
    }

    /// Reads such a line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let mut next = || fields.next()?.parse::<u64>().ok();
        let (sender, number, kind, sent, delay) = (next()?, next()?, next()?, next()?, next()?);
        let kind = [Kind::Audio, Kind::Delta, Kind::Key].into_iter().find(|known| *known as u64 == kind)?;
        let picture = Picture { sender: sender.try_into().ok()?, number: number.try_into().ok()?, kind, sent };
        Some(Self { picture, delay: Duration::from_micros(delay) })
    }
}

/// What a receiver had within a time.
#[derive(Clone, Debug, Default)]
pub struct Had {
    /// In the order of hearing.
    pub heard: Vec<Heard>,
}

impl Had {
    /// What was sent from one moment to another, in the machine's microseconds.
    #[must_use]
    pub fn sent_within(&self, from: u64, to: u64) -> Self {
        Self { heard: self.heard.iter().filter(|heard| (from..to).contains(&heard.picture.sent)).copied().collect() }
    }

    /// How many of a kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.heard.iter().filter(|heard| heard.picture.kind == kind).count()
    }

    /// How many of a kind came within a time.
    #[must_use]
    pub fn in_time(&self, kind: Kind, time: Duration) -> usize {
        self.heard.iter().filter(|heard| heard.picture.kind == kind && heard.delay <= time).count()
    }

    /// The delay that so many in a thousand of a kind do not exceed; zero of none.
    #[must_use]
    pub fn delay(&self, kind: Kind, per_mille: usize) -> Duration {
        let of_kind = self.heard.iter().filter(|heard| heard.picture.kind == kind);
        let mut delays: Vec<_> = of_kind.map(|heard| heard.delay).collect();
        delays.sort_unstable();
        let index = (delays.len() * per_mille / 1_000).min(delays.len().saturating_sub(1));
        delays.get(index).copied().unwrap_or_default()
    }

    /// Whether each sender's packets came in the order sent.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        let mut last = HashMap::new();
        self.heard.iter().all(|heard| {
            let before = last.insert(heard.picture.sender, heard.picture.number);
            before.is_none_or(|before| before < heard.picture.number)
        })
    }

    /// The deltas that came although a frame between them and their key frame did not: `frames` has each sender's frames as they
    /// were sent, by number.
    #[must_use]
    pub fn undecodable(&self, frames: &[Picture]) -> Vec<Picture> {
        let mut before: HashMap<(u32, u32), Option<u32>> = HashMap::new();
        let mut last = HashMap::new();
        for frame in frames.iter().filter(|frame| frame.kind != Kind::Audio) {
            before.insert((frame.sender, frame.number), last.insert(frame.sender, frame.number));
        }
        let mut had: HashMap<u32, u32> = HashMap::new();
        let mut wrong = Vec::new();
        for picture in self.heard.iter().map(|heard| heard.picture).filter(|picture| picture.kind != Kind::Audio) {
            let needs = before.get(&(picture.sender, picture.number)).copied().flatten();
            // What was sent before this receiver came is no gap of the router's making.
            if picture.kind == Kind::Delta && had.get(&picture.sender).is_some_and(|last| Some(*last) != needs) {
                wrong.push(picture);
            }
            had.insert(picture.sender, picture.number);
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(number: u32, kind: Kind, millis: u64) -> Heard {
        Heard {
            picture: Picture { sender: 1, number, kind, sent: u64::from(number) },
            delay: Duration::from_millis(millis),
        }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        for kind in [Kind::Audio, Kind::Delta, Kind::Key] {
            let before = heard(5, kind, 7);
            let after = Heard::parse(&before.line()).unwrap();
            assert_eq!((after.picture, after.delay), (before.picture, before.delay));
        }
        assert!(Heard::parse("1 2 9 4 5").is_none() && Heard::parse("1 2").is_none());
    }

    #[test]
    fn a_delta_behind_a_gap_and_a_reorder_are_seen() {
        let kinds = [Kind::Key, Kind::Audio, Kind::Delta, Kind::Delta, Kind::Key, Kind::Delta];
        let all: Vec<_> = kinds.into_iter().enumerate().map(|(number, kind)| heard(number as u32, kind, 1)).collect();
        let frames: Vec<_> = all.iter().map(|heard| heard.picture).collect();
        let without = |gone: &[u32]| Had {
            heard: all.iter().filter(|heard| !gone.contains(&heard.picture.number)).copied().collect(),
        };
        assert!(without(&[]).undecodable(&frames).is_empty());
        assert!(without(&[1, 3]).undecodable(&frames).is_empty(), "the next is a key frame");
        assert_eq!(without(&[2]).undecodable(&frames), [frames[3]]);
        assert_eq!(without(&[4]).undecodable(&frames), [frames[5]]);
        assert!(without(&[2, 3]).is_in_order());
        let reversed = Had { heard: all.iter().rev().copied().collect() };
        assert!(!reversed.is_in_order());
    }
}
