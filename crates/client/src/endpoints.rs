//! Which endpoint to connect to: one that failed or drains is avoided for a while, and of the others chance decides, so
//! that the clients of a lost node spread over those that are left.
//!
//! What lives here: the choice, with time and chance as arguments. What does not: when to connect (`reconnect`).

use std::time::{Duration, Instant};

/// An endpoint that fails again when it is tried again is avoided for twice as long, at most this often.
const DOUBLINGS: u32 = 3;

/// The endpoints and what is known of them.
#[derive(Debug)]
pub(crate) struct Endpoints {
    health: Vec<Health>,
    avoid: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Health {
    /// Until when it is avoided, if it ever was.
    avoided_until: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

impl Endpoints {
    /// So many endpoints (at least one), of which one is avoided for `avoid` after its first failure.
    pub(crate) fn new(count: usize, avoid: Duration) -> Self {
        Self { health: vec![Health::default(); count.max(1)], avoid }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.health.len()
    }

    /// This one failed. It is avoided for a while, for longer if it failed before and has not been left alone since for as
    /// long as it was avoided.
    pub(crate) fn failed(&mut self, endpoint: usize, now: Instant) {
        let (avoid, Some(health)) = (self.avoid, self.health.get_mut(endpoint)) else { return };
        let time = |failures: u32| avoid * 2_u32.pow(failures.saturating_sub(1).min(DOUBLINGS));
        let forgotten = health.avoided_until.is_none_or(|until| now > until + time(health.failures));
        health.failures = if forgotten { 1 } else { health.failures.saturating_add(1) };
        health.avoided_until = Some(now + time(health.failures));
    }

    /// This one asks its clients to leave: no failure, but nowhere to go for a while.
    pub(crate) fn drains(&mut self, endpoint: usize, now: Instant) {
        let until = now + self.avoid;
        if let Some(health) = self.health.get_mut(endpoint) {
            health.avoided_until = Some(health.avoided_until.map_or(until, |before| before.max(until)));
        }
    }

    /// A connection to this one stayed up.
    pub(crate) fn is_good(&mut self, endpoint: usize) {
        if let Some(health) = self.health.get_mut(endpoint) {
            *health = Health::default();
        }
    }

    /// Whether there is another one that is not avoided.
    pub(crate) fn has_healthy(&self, except: usize, now: Instant) -> bool {
        (0..self.health.len()).any(|endpoint| endpoint != except && self.is_healthy(endpoint, now))
    }

    /// Where to connect next, rather not to `except`: one that is not avoided, the first of them if `in_order`, else any;
    /// where all are, the one that is avoided for the shortest time from now. `random` is from 0 to 1.
    pub(crate) fn choose(&self, except: Option<usize>, in_order: bool, now: Instant, random: f64) -> usize {
        let others = || (0..self.health.len()).filter(move |endpoint| Some(*endpoint) != except);
        let healthy: Vec<usize> = others().filter(|endpoint| self.is_healthy(*endpoint, now)).collect();
        if healthy.is_empty() {
            return others().min_by_key(|endpoint| self.health[*endpoint].avoided_until).or(except).unwrap_or(0);
        }
        let place = if in_order { 0 } else { (random * healthy.len() as f64) as usize };
        healthy[place.min(healthy.len() - 1)]
    }

    fn is_healthy(&self, endpoint: usize, now: Instant) -> bool {
        self.health[endpoint].avoided_until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;
