//! When a sender sends what: its tracks' packets, each at a steady pace of its own. Pure.

use crate::plan::Track;

/// A sender that is so far behind (its router took nothing) does not send all it missed, in microseconds.
const FORGIVEN: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
struct Turn {
    due: u64,
    period: u64,
    at: usize,
    started: bool,
}

/// One sender's. Times are microseconds of the run.
#[derive(Debug)]
pub(crate) struct Pace {
    turns: Vec<Turn>,
}

impl Pace {
    /// Begins within one period of `begin`. A track's first packet is its first turn, then it goes on somewhere at random, so that
    /// different senders' key frames do not come together.
    pub(crate) fn new(tracks: &[Track], begin: u64, random: &mut fastrand::Rng) -> Self {
        let turns = tracks.iter().map(|track| {
            let period = (track.period.as_micros() as u64).max(1);
            Turn { due: begin + random.u64(0..period), period, at: 0, started: false }
        });
        Self { turns: turns.collect() }
    }

    /// When the next packet is due; never without tracks.
    pub(crate) fn due(&self) -> u64 {
        self.turns.iter().map(|turn| turn.due).min().unwrap_or(u64::MAX)
    }

    /// The shape of the packet that is due, which is then taken as sent at `now`.
    pub(crate) fn take(&mut self, tracks: &[Track], now: u64, random: &mut fastrand::Rng) -> usize {
        let Some((turn, track)) = self.turns.iter_mut().zip(tracks).min_by_key(|(turn, _)| turn.due) else {
            return 0;
        };
        let shape = track.turns[turn.at];
        turn.at = match track.turns.len() {
            length @ 2.. if !turn.started => random.usize(1..length),
            length => (turn.at + 1) % length,
        };
        turn.started = true;
        turn.due += turn.period;
        if now > turn.due + FORGIVEN {
            turn.due = now;
        }
        shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn track(millis: u64, turns: &[usize]) -> Track {
        Track { period: Duration::from_millis(millis), turns: turns.to_vec() }
    }

    #[test]
    fn each_track_keeps_its_pace_and_its_order() {
        let tracks = [track(20, &[0]), track(50, &[1, 2, 3, 4])];
        let mut random = fastrand::Rng::with_seed(4);
        let mut pace = Pace::new(&tracks, 1_000_000, &mut random);
        let mut sent = Vec::new();
        while pace.due() < 3_000_000 {
            let due = pace.due();
            sent.push((due, pace.take(&tracks, due, &mut random)));
        }
        assert!(sent.is_sorted_by_key(|(due, _)| *due));
        let sounds: Vec<u64> = sent.iter().filter(|(_, shape)| *shape == 0).map(|(due, _)| *due).collect();
        assert_eq!(sounds.len(), 100);
        assert!(sounds.windows(2).all(|pair| pair[1] - pair[0] == 20_000));
        let pictures: Vec<usize> = sent.iter().map(|(_, shape)| *shape).filter(|shape| *shape > 0).collect();
        assert_eq!((pictures.len(), pictures[0]), (40, 1), "a key frame first");
        assert_ne!(pictures[1], 1);
        assert!(pictures[1..].windows(2).all(|pair| pair[1] == pair[0] % 4 + 1), "then in order: {pictures:?}");
    }

    #[test]
    fn a_late_sender_catches_up_but_not_for_ever() {
        let tracks = [track(10, &[0])];
        let mut random = fastrand::Rng::with_seed(1);
        let mut pace = Pace::new(&tracks, 0, &mut random);
        let first = pace.due();
        pace.take(&tracks, first + 500_000, &mut random);
        assert_eq!(pace.due(), first + 10_000, "half a second late: all is sent");
        pace.take(&tracks, 5_000_000, &mut random);
        assert_eq!(pace.due(), 5_000_000, "five seconds late: from here on");
    }

    #[test]
    fn without_tracks_nothing_is_ever_due() {
        assert_eq!(Pace::new(&[], 5, &mut fastrand::Rng::with_seed(1)).due(), u64::MAX);
    }
}
