//! What to do when a connection ends or does not come about: try again, when and where, or give up.
//!
//! What lives here: decisions only, without clock, sockets or randomness of its own. What does not: doing it (`client`).

use std::time::Duration;

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
}

impl Default for ReconnectPolicy {
    /// 250 ms, doubled up to 10 s, give or take half; forgotten after 10 s; never giving up.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(250),
            max: Duration::from_secs(10),
            factor: 2.0,
            jitter: 0.5,
            forget_after: Duration::from_secs(10),
            attempts: None,
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
}

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
    endpoints: usize,
    endpoint: usize,
    /// In a row, since the last connection that stayed up.
    failures: u32,
    /// Times that a draining node was left without a wait, since the last connection that stayed up.
    handovers: usize,
    ever_connected: bool,
}

impl Reconnect {
    /// For so many endpoints (at least one), tried in order.
    pub(crate) fn new(policy: ReconnectPolicy, endpoints: usize) -> Self {
        Self { policy, endpoints: endpoints.max(1), endpoint: 0, failures: 0, handovers: 0, ever_connected: false }
    }

    /// The first attempt: at once, to the first endpoint.
    pub(crate) fn start(&self) -> Plan {
        self.connect(Duration::ZERO)
    }

    /// After an attempt failed (`up_for` is `None`) or a connection ended that was up for so long. `random` is from 0
    /// to 1.
    pub(crate) fn after(&mut self, ended: &Ended, up_for: Option<Duration>, random: f64) -> Plan {
        self.ever_connected |= up_for.is_some();
        if up_for.is_some_and(|up| up >= self.policy.forget_after) {
            self.failures = 0;
            self.handovers = 0;
        }
        let mut verdict = verdict(ended, self.ever_connected);
        // Nodes that all drain (or a proxy that answers for one) must not be asked in a busy loop: each endpoint once.
        if verdict == Verdict::Elsewhere {
            if self.handovers >= self.endpoints {
                verdict = Verdict::Later;
            } else {
                self.handovers += 1;
            }
        }
        match verdict {
            Verdict::Fatal => Plan::Finish(fatal(ended)),
            Verdict::Elsewhere => {
                self.rotate();
                self.connect(Duration::ZERO)
            }
            Verdict::Later => {
                self.failures = self.failures.saturating_add(1);
                if self.policy.attempts.is_some_and(|most| self.failures >= most) {
                    return Plan::Finish(ClosedReason::GaveUp { failures: self.failures, last: ended.to_string() });
                }
                self.rotate();
                self.connect(self.policy.delay(self.failures, random))
            }
        }
    }

    fn rotate(&mut self) {
        self.endpoint = (self.endpoint + 1) % self.endpoints;
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(60));
    const SHORT: Option<Duration> = Some(Duration::from_millis(5));

    fn machine(endpoints: usize) -> Reconnect {
        let policy = ReconnectPolicy { jitter: 0.0, ..ReconnectPolicy::default() };
        Reconnect::new(policy, endpoints)
    }

    fn lost() -> Ended {
        Ended::Lost("reset".into())
    }

    fn refused(status: u16) -> Ended {
        Ended::Refused { status, message: "no".into() }
    }

    fn connect(milliseconds: u64, endpoint: usize, attempt: u32) -> Plan {
        Plan::Connect { after: Duration::from_millis(milliseconds), endpoint, attempt }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut machine = machine(1);
        assert_eq!(machine.start(), connect(0, 0, 1));
        let waits = [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000];
        for (attempt, wait) in (2..).zip(waits) {
            assert_eq!(machine.after(&lost(), None, 0.5), connect(wait, 0, attempt));
        }
    }

    #[test]
    fn a_connection_that_stays_up_clears_the_count_and_a_short_one_does_not() {
        let mut machine = machine(1);
        assert_eq!(machine.after(&lost(), None, 0.0), connect(250, 0, 2));
        assert_eq!(machine.after(&lost(), SHORT, 0.0), connect(500, 0, 3));
        assert_eq!(machine.after(&lost(), LONG, 0.0), connect(250, 0, 2));
    }

    #[test]
    fn endpoints_take_turns() {
        let mut machine = machine(3);
        for endpoint in [1, 2, 0, 1] {
            let Plan::Connect { endpoint: next, .. } = machine.after(&lost(), None, 0.0) else { panic!("gave up") };
            assert_eq!(next, endpoint);
        }
    }

    #[test]
    fn a_draining_node_is_left_at_once_but_not_in_a_loop() {
        let mut machine = machine(2);
        let draining = Ended::Closed(Some(1001));
        assert_eq!(machine.after(&draining, LONG, 0.0), connect(0, 1, 1));
        assert_eq!(machine.after(&draining, SHORT, 0.0), connect(0, 0, 1));
        assert_eq!(machine.after(&draining, SHORT, 0.0), connect(250, 1, 2));
        assert_eq!(machine.after(&draining, SHORT, 0.0), connect(500, 0, 3));
        assert_eq!(machine.after(&draining, LONG, 0.0), connect(0, 1, 1));
    }

    #[test]
    fn what_would_happen_again_is_fatal_and_says_why() {
        for (ended, reason) in [
            (Ended::Closed(Some(1000)), "the call is over"),
            (Ended::Closed(Some(1008)), "the server closed with 1008 (against policy)"),
            (Ended::Closed(Some(1009)), "the server closed with 1009 (message too large)"),
            (Ended::Closed(Some(1003)), "the server closed with 1003 (unsupported message)"),
            (refused(400), "the server refused with 400: no"),
            (refused(401), "the server refused with 401: no"),
            (refused(403), "the server refused with 403: no"),
            (refused(404), "the server refused with 404: no"),
            (refused(302), "the server refused with 302: no"),
            (Ended::Untrusted("hash".into()), "the server's certificate is not trusted: hash"),
        ] {
            let Plan::Finish(why) = machine(3).after(&ended, None, 0.0) else { panic!("{ended:?} is not fatal") };
            assert_eq!(why.to_string(), reason);
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_later() {
        let closes = [None, Some(1005), Some(1006), Some(1011), Some(1012), Some(1013), Some(4000)].map(Ended::Closed);
        let refusals = [200, 408, 421, 425, 429, 500, 502, 503].map(refused);
        let others = [lost(), Ended::Unreachable("x".into()), Ended::Misbehaved("x".into())];
        for ended in closes.into_iter().chain(refusals).chain(others) {
            assert_eq!(machine(1).after(&ended, SHORT, 0.0), connect(250, 0, 2), "{ended:?}");
        }
        assert_eq!(machine(1).after(&Ended::Untrusted("x".into()), SHORT, 0.0), connect(250, 0, 2));
    }

    #[test]
    fn it_gives_up_after_the_allowed_failures() {
        let policy = ReconnectPolicy { attempts: Some(3), ..ReconnectPolicy::default() };
        let mut machine = Reconnect::new(policy, 1);
        assert!(matches!(machine.after(&lost(), None, 0.0), Plan::Connect { .. }));
        assert!(matches!(machine.after(&lost(), None, 0.0), Plan::Connect { .. }));
        let Plan::Finish(reason) = machine.after(&lost(), None, 0.0) else { panic!("went on") };
        assert_eq!(reason.to_string(), "gave up after 3 failures; the last one: connection lost: reset");
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        let good = ReconnectPolicy::default();
        assert_eq!(good.validate(), Ok(()));
        for (bad, error) in [
            (ReconnectPolicy { initial: Duration::ZERO, ..good.clone() }, PolicyError::Initial),
            (ReconnectPolicy { max: Duration::from_millis(1), ..good.clone() }, PolicyError::Max),
            (ReconnectPolicy { factor: 0.9, ..good.clone() }, PolicyError::Factor),
            (ReconnectPolicy { factor: f64::NAN, ..good.clone() }, PolicyError::Factor),
            (ReconnectPolicy { factor: f64::INFINITY, ..good.clone() }, PolicyError::Factor),
            (ReconnectPolicy { jitter: 1.1, ..good.clone() }, PolicyError::Jitter),
            (ReconnectPolicy { jitter: f64::NAN, ..good }, PolicyError::Jitter),
        ] {
            assert_eq!(bad.validate(), Err(error));
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_in_its_range_and_ranges_do_not_shrink(
            initial in 1_u64..10_000,
            above in 0_u64..1_000_000,
            factor in 1.0..10.0_f64,
            jitter in 0.0..=1.0_f64,
            failures in prop_oneof![1_u32..40, Just(u32::MAX)],
            random in 0.0..=1.0_f64,
        ) {
            let policy = ReconnectPolicy {
                initial: Duration::from_millis(initial),
                max: Duration::from_millis(initial + above),
                factor,
                jitter,
                ..ReconnectPolicy::default()
            };
            prop_assert_eq!(policy.validate(), Ok(()));
            let (low, high) = policy.delay_range(failures);
            let delay = policy.delay(failures, random);
            prop_assert!(low <= delay && delay <= high && high <= policy.max);
            let (next_low, next_high) = policy.delay_range(failures.saturating_add(1));
            prop_assert!(low <= next_low && high <= next_high);
        }
    }
}
