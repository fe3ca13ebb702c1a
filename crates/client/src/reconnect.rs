//! What to do when a connection ends or does not come about: try again, when and where, or give up.
//!
//! What lives here: decisions only, without clock, sockets or randomness of its own. What does not: doing it (`client`,
//! `moving`), and which endpoint is a good one (`endpoints`).

use std::time::{Duration, Instant};

use crate::endpoints::Endpoints;

/// How long to wait before trying again. The n-th failure in a row is followed by `initial * factor^(n-1)`, at most
/// `max`, varied by `jitter` so that the clients of a lost node do not all come back at once.
#[derive(Clone, Debug, PartialEq)]
pub struct ReconnectPolicy {
    /// The wait after the first failure. Above zero.
    pub initial: Duration,
    /// The longest wait, jitter included. At least `initial`.
    pub max: Duration,
    /// By how much each wait is longer than the last. At least 1.
    pub factor: f64,
    /// By what part a wait may be shorter or longer: 0 (never) to 1 (from nothing to double).
    pub jitter: f64,
    /// A connection that stayed up this long clears the count of failures.
    pub forget_after: Duration,
    /// After so many failures in a row the client gives up; `None`: never.
    pub attempts: Option<u32>,
    /// When a connection is lost that had stayed up, and another endpoint is there, the client goes there after a wait of
    /// anything between nothing and this: all clients of a lost node notice at the same moment.
    pub spread: Duration,
    /// How long an endpoint that failed or drains is avoided while there are others; up to eight times as long where it
    /// fails again and again.
    pub avoid: Duration,
    /// Where the first connection goes: `false`, to the first endpoint that works, in the order given; `true`, to any. Later
    /// ones go to any that is not avoided.
    pub random_first: bool,
}

impl Default for ReconnectPolicy {
    /// 250 ms, doubled up to 10 s, give or take half; forgotten after 10 s; never giving up. Up to 500 ms before the first
    /// attempt elsewhere; avoiding for 10 s; the first connection in order.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(250),
            max: Duration::from_secs(10),
            factor: 2.0,
            jitter: 0.5,
            forget_after: Duration::from_secs(10),
            attempts: None,
            spread: Duration::from_millis(500),
            avoid: Duration::from_secs(10),
            random_first: false,
        }
    }
}

/// Which value of a [`ReconnectPolicy`] is out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Zero would be a busy loop.
    #[error("reconnect.initial must be longer than zero")]
    Initial,
    /// Below `initial`.
    #[error("reconnect.max must not be shorter than reconnect.initial")]
    Max,
    /// Below 1, or not a number.
    #[error("reconnect.factor must be a number of at least 1")]
    Factor,
    /// Outside 0 to 1, or not a number.
    #[error("reconnect.jitter must be a number from 0 to 1")]
    Jitter,
    /// A time that nobody waits for.
    #[error("no time of reconnect may be longer than a day")]
    Longer,
}

/// The longest that any time of a policy may be; sums of them are within what a clock can tell.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl ReconnectPolicy {
    /// Checks the bounds of every value.
    pub fn validate(&self) -> Result<(), PolicyError> {
        if self.initial.is_zero() {
            Err(PolicyError::Initial)
        } else if self.max < self.initial {
            Err(PolicyError::Max)
        } else if !(self.factor >= 1.0 && self.factor.is_finite()) {
            Err(PolicyError::Factor)
        } else if !(0.0..=1.0).contains(&self.jitter) {
            Err(PolicyError::Jitter)
        } else if [self.max, self.forget_after, self.spread, self.avoid].into_iter().any(|time| time > DAY) {
            Err(PolicyError::Longer)
        } else {
            Ok(())
        }
    }

    /// The shortest and the longest wait after so many failures in a row (counted from 1).
    #[must_use]
    pub fn delay_range(&self, failures: u32) -> (Duration, Duration) {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let max = self.max.as_secs_f64();
        let base = (self.initial.as_secs_f64() * self.factor.powi(exponent)).min(max);
        let low = Duration::from_secs_f64(base * (1.0 - self.jitter)).min(self.max);
        let high = Duration::from_secs_f64((base * (1.0 + self.jitter)).min(max)).clamp(low, self.max);
        (low, high)
    }

    /// One wait within [`delay_range`](Self::delay_range); `random` is from 0 to 1.
    #[must_use]
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let (low, high) = self.delay_range(failures);
        low + (high - low).mul_f64(random.clamp(0.0, 1.0))
    }
}

/// How an attempt or a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The server answered with something else than a connection.
    Refused { status: u16, message: String },
    /// The server's certificate is not one that this client trusts.
    Untrusted(String),
    /// The server cannot be reached, or does not speak the transport.
    Unreachable(String),
    /// The server closed in order.
    Closed(Option<u16>),
    /// The connection broke.
    Lost(String),
    /// The server sent something that this client never accepts.
    Misbehaved(String),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { status, message } => write!(f, "refused with {status}: {message}"),
            Self::Untrusted(why) => write!(f, "the server's certificate is not trusted: {why}"),
            Self::Unreachable(why) => write!(f, "cannot connect: {why}"),
            Self::Closed(Some(code)) => write!(f, "closed by the server with {code} ({})", code_meaning(*code)),
            Self::Closed(None) => f.write_str("closed by the server without a code"),
            Self::Lost(why) => write!(f, "connection lost: {why}"),
            Self::Misbehaved(why) => write!(f, "the server broke the protocol: {why}"),
        }
    }
}

fn code_meaning(code: u16) -> &'static str {
    match code {
        1000 => "done",
        1001 => "the node is draining",
        1002 => "protocol error",
        1003 => "unsupported message",
        1008 => "against policy",
        1009 => "message too large",
        1011 => "the connection crashed",
        1013 => "full, try again later",
        _ => "unknown code",
    }
}

/// Why a client is closed and will not try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClosedReason {
    /// This side called `close`, or dropped the client.
    #[error("closed by this client")]
    Local,
    /// The server says that the call is over (1000).
    #[error("the call is over")]
    Done,
    /// The server does not take this client: a bad name, no right to join, a wrong path. Asking again would not help.
    #[error("the server refused with {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the server said.
        message: String,
    },
    /// The server does not take what this client did: 1008 (policy), 1009 (too large), 1002, 1003, 1007. It would happen
    /// again.
    #[error("the server closed with {code} ({meaning})", meaning = code_meaning(*.code))]
    Rejected {
        /// The close code.
        code: u16,
    },
    /// The server's certificate is not one that this client trusts, and no connection was ever made.
    #[error("the server's certificate is not trusted: {0}")]
    Untrusted(String),
    /// As many failures in a row as the policy allows.
    #[error("gave up after {failures} failures; the last one: {last}")]
    GaveUp {
        /// How many.
        failures: u32,
        /// What the last one was.
        last: String,
    },
}

/// What follows from an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Not again.
    Fatal,
    /// Again at another endpoint, without a wait.
    Elsewhere,
    /// Again after a wait.
    Later,
}

fn verdict(ended: &Ended, ever_connected: bool) -> Verdict {
    match ended {
        // Too Many Requests, Request Timeout, Too Early and Misdirected Request pass; whatever else blames the client, or
        // points elsewhere, does not.
        Ended::Refused { status: 408 | 421 | 425 | 429, .. } => Verdict::Later,
        Ended::Refused { status: 300..=499, .. } => Verdict::Fatal,
        Ended::Refused { .. } => Verdict::Later,
        // Once trusted, a strange certificate is a node in the middle of a renewal, or another one behind the same name.
        Ended::Untrusted(_) => {
            if ever_connected {
                Verdict::Later
            } else {
                Verdict::Fatal
            }
        }
        Ended::Closed(Some(1001)) => Verdict::Elsewhere,
        Ended::Closed(Some(1000 | 1002 | 1003 | 1007 | 1008 | 1009)) => Verdict::Fatal,
        Ended::Closed(_) | Ended::Unreachable(_) | Ended::Lost(_) | Ended::Misbehaved(_) => Verdict::Later,
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Connect to the endpoint with this index, after a wait that may be zero.
    Connect { after: Duration, endpoint: usize, attempt: u32 },
    /// Nothing any more.
    Finish(ClosedReason),
}

/// The memory behind the decisions.
#[derive(Debug)]
pub(crate) struct Reconnect {
    policy: ReconnectPolicy,
    endpoints: Endpoints,
    /// Where the last attempt went, or goes next.
    endpoint: usize,
    /// In a row, since the last connection that stayed up.
    failures: u32,
    /// Times that a draining node was left without a wait, since the last connection that stayed up.
    handovers: usize,
    /// Attempts in a row to join elsewhere while still connected.
    failed_moves: u32,
    ever_connected: bool,
    random: fastrand::Rng,
}

impl Reconnect {
    /// For so many endpoints (at least one). All its chance comes from `seed`.
    pub(crate) fn new(policy: ReconnectPolicy, endpoints: usize, seed: u64) -> Self {
        let endpoints = Endpoints::new(endpoints, policy.avoid);
        Self {
            policy,
            endpoints,
            endpoint: 0,
            failures: 0,
            handovers: 0,
            failed_moves: 0,
            ever_connected: false,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The first attempt, at once.
    pub(crate) fn start(&mut self, now: Instant) -> Plan {
        self.choose(None, now);
        self.connect(Duration::ZERO)
    }

    /// After an attempt failed (`up_for` is `None`) or a connection ended that was up for so long.
    pub(crate) fn after(&mut self, ended: &Ended, up_for: Option<Duration>, now: Instant) -> Plan {
        if let Some(up_for) = up_for {
            self.was_up(up_for);
        }
        let mut verdict = verdict(ended, self.ever_connected);
        // Nodes that all drain (or a proxy that answers for one) must not be asked in a busy loop: each endpoint once.
        if verdict == Verdict::Elsewhere {
            self.endpoints.drains(self.endpoint, now);
            if self.handovers >= self.endpoints.count() {
                verdict = Verdict::Later;
            } else {
                self.handovers += 1;
            }
        } else {
            self.endpoints.failed(self.endpoint, now);
        }
        match verdict {
            Verdict::Fatal => Plan::Finish(fatal(ended)),
            Verdict::Elsewhere => {
                self.choose(Some(self.endpoint), now);
                self.connect(Duration::ZERO)
            }
            Verdict::Later => {
                self.failures = self.failures.saturating_add(1);
                if self.policy.attempts.is_some_and(|most| self.failures >= most) {
                    return Plan::Finish(ClosedReason::GaveUp { failures: self.failures, last: ended.to_string() });
                }
                let first = self.failures == 1 && up_for.is_some();
                let after = if first && self.endpoints.has_healthy(self.endpoint, now) {
                    self.policy.spread.mul_f64(self.random.f64())
                } else {
                    self.policy.delay(self.failures, self.random.f64())
                };
                self.choose(Some(self.endpoint), now);
                self.connect(after)
            }
        }
    }

    /// The node of this connection asks to leave: nobody goes there for a while.
    pub(crate) fn asked_to_leave(&mut self, now: Instant) {
        self.endpoints.drains(self.endpoint, now);
    }

    /// Where to join while this connection goes on, and after which wait.
    pub(crate) fn next_move(&mut self, now: Instant) -> (Duration, usize) {
        let random = self.random.f64();
        let next = self.endpoints.choose(Some(self.endpoint), false, now, random);
        // Nodes that all drain are not asked in a busy loop: each endpoint once without a wait.
        let waits = u32::try_from(self.handovers.saturating_sub(self.endpoints.count())).unwrap_or(u32::MAX);
        let waits = waits.saturating_add(self.failed_moves);
        let after = if waits == 0 { Duration::ZERO } else { self.policy.delay(waits, self.random.f64()) };
        (after, next)
    }

    /// Joining there failed, or the connection there ended before it was used.
    pub(crate) fn move_failed(&mut self, endpoint: usize, now: Instant) {
        self.endpoints.failed(endpoint, now);
        self.failed_moves = self.failed_moves.saturating_add(1);
    }

    /// The new connection took over from one that was up for so long.
    pub(crate) fn moved(&mut self, endpoint: usize, up_for: Duration) {
        self.was_up(up_for);
        self.endpoint = endpoint;
        self.handovers += 1;
        self.failed_moves = 0;
    }

    /// Whether a connection that ended so must not be followed by another one.
    pub(crate) fn is_final(ended: &Ended) -> bool {
        verdict(ended, true) == Verdict::Fatal
    }

    fn was_up(&mut self, up_for: Duration) {
        self.ever_connected = true;
        if up_for >= self.policy.forget_after {
            self.failures = 0;
            self.handovers = 0;
            self.endpoints.is_good(self.endpoint);
        }
    }

    fn choose(&mut self, except: Option<usize>, now: Instant) {
        let in_order = !self.ever_connected && !self.policy.random_first;
        let random = self.random.f64();
        self.endpoint = self.endpoints.choose(except, in_order, now, random);
    }

    fn connect(&self, after: Duration) -> Plan {
        Plan::Connect { after, endpoint: self.endpoint, attempt: self.failures.saturating_add(1) }
    }
}

fn fatal(ended: &Ended) -> ClosedReason {
    match ended {
        Ended::Refused { status, message } => ClosedReason::Refused { status: *status, message: message.clone() },
        Ended::Untrusted(why) => ClosedReason::Untrusted(why.clone()),
        Ended::Closed(Some(1000)) => ClosedReason::Done,
        Ended::Closed(Some(code)) => ClosedReason::Rejected { code: *code },
        // The rest is never fatal by itself.
        other => ClosedReason::GaveUp { failures: 1, last: other.to_string() },
    }
}

#[cfg(test)]
#[path = "reconnect_tests.rs"]
mod tests;
