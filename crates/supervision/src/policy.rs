//! Restart policies by supervisor path, changed while running, and the backoff they hold. Pure but for the swap.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::path::{ActorPath, PathPattern};

/// A child that was up this long has recovered: the next crash is restarted at once again.
pub const QUIET_PERIOD: Duration = Duration::from_secs(1);

/// How long a supervisor waits for a killed child to be gone. A kill acts at the child's next await, so a child that
/// is stuck in a loop without one outlives it; after this time it is given up on ([`EventKind::Abandoned`]).
///
/// [`EventKind::Abandoned`]: crate::EventKind::Abandoned
pub const ABANDON_AFTER: Duration = Duration::from_secs(5);

/// How long to wait before a restart: nothing before the first, then growing by a factor up to a bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    initial: Duration,
    factor: f64,
    max: Duration,
    jitter: f64,
}

/// Why a backoff was refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum BackoffError {
    /// The factor would shrink the waits, or is not a number.
    #[error("factor is {0}; it must be at least 1 and at most 100")]
    Factor(f64),
    /// The jitter is no share of the wait.
    #[error("jitter is {0}; it must be between 0 and 1")]
    Jitter(f64),
    /// The bound lies below the first wait.
    #[error("max ({max:?}) is shorter than initial ({initial:?})")]
    Max {
        /// The first wait asked for.
        initial: Duration,
        /// The bound asked for.
        max: Duration,
    },
}

impl Backoff {
    /// Waits `initial` before the second restart in a row, `factor` times as long before each further one, never longer
    /// than `max`; each wait is shortened or lengthened by up to its `jitter` share (0.2: between 0.8 and 1.2 times),
    /// so that children that failed together do not come back together. The first restart is immediate.
    ///
    /// # Errors
    /// When a value is out of range.
    pub fn new(initial: Duration, factor: f64, max: Duration, jitter: f64) -> Result<Self, BackoffError> {
        if !(1.0..=100.0).contains(&factor) {
            return Err(BackoffError::Factor(factor));
        }
        if !(0.0..=1.0).contains(&jitter) {
            return Err(BackoffError::Jitter(jitter));
        }
        if max < initial {
            return Err(BackoffError::Max { initial, max });
        }
        Ok(Self { initial, factor, max, jitter })
    }

    /// The wait before restart number `attempt` in a row (0 is the first), for a `dice` throw in `[0, 1)`.
    pub fn delay(&self, attempt: u32, dice: f64) -> Duration {
        if attempt == 0 {
            return Duration::ZERO;
        }
        let growth = self.factor.powi(i32::try_from(attempt - 1).unwrap_or(i32::MAX));
        let seconds = (self.initial.as_secs_f64() * growth).min(self.max.as_secs_f64());
        let spread = 1.0 + self.jitter * (2.0 * dice - 1.0);
        // The bound holds for what is really waited, so a lengthened wait is cut again.
        Duration::try_from_secs_f64(seconds * spread).map_or(self.max, |wait| wait.min(self.max))
    }
}

impl Default for Backoff {
    /// 10 ms, doubling up to 5 s, by a fifth either way.
    fn default() -> Self {
        Self { initial: Duration::from_millis(10), factor: 2.0, max: Duration::from_secs(5), jitter: 0.2 }
    }
}

/// How one supervisor treats its children.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// More restarts than this within [`period`](Self::period) and the supervisor gives up. 0: the first crash is too many.
    pub intensity: u32,
    /// The time over which restarts are counted.
    pub period: Duration,
    /// How long a worker without a shutdown time of its own may take to stop before it is killed.
    pub shutdown: Duration,
    /// How long a worker's start may take before it is killed and the start has failed. A supervisor's start has no bound
    /// of its own: each of its children has one.
    pub start: Duration,
    /// The waits between restarts of the same child.
    pub backoff: Backoff,
}

/// Why a policy was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Restarts are counted over no time at all, so that no intensity would ever be exceeded.
    #[error("the period of `{0}` is zero; it must be longer")]
    Period(String),
    /// No start can take no time at all.
    #[error("the time to start of `{0}` is zero; it must be longer")]
    Start(String),
}

impl Policy {
    /// Checks the values that can be wrong. Any intensity is right, and a shutdown time of zero, too: asked, and killed
    /// unless it is gone at once. `of` is named in the error.
    ///
    /// # Errors
    /// When the period or the time to start is zero.
    pub fn check(&self, of: &str) -> Result<(), PolicyError> {
        if self.period.is_zero() {
            return Err(PolicyError::Period(of.to_owned()));
        }
        if self.start.is_zero() {
            return Err(PolicyError::Start(of.to_owned()));
        }
        Ok(())
    }
}

impl Default for Policy {
    /// 10 restarts in 5 s, 5 s to stop, 30 s to start, the default backoff.
    fn default() -> Self {
        Self {
            intensity: 10,
            period: Duration::from_secs(5),
            shutdown: Duration::from_secs(5),
            start: Duration::from_secs(30),
            backoff: Backoff::default(),
        }
    }
}

/// What a pattern changes of the default policy; `None` leaves it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PolicyPatch {
    /// See [`Policy::intensity`].
    pub intensity: Option<u32>,
    /// See [`Policy::period`].
    pub period: Option<Duration>,
    /// See [`Policy::shutdown`].
    pub shutdown: Option<Duration>,
    /// See [`Policy::start`].
    pub start: Option<Duration>,
    /// See [`Policy::backoff`].
    pub backoff: Option<Backoff>,
}

impl PolicyPatch {
    fn apply(&self, policy: &mut Policy) {
        policy.intensity = self.intensity.unwrap_or(policy.intensity);
        policy.period = self.period.unwrap_or(policy.period);
        policy.shutdown = self.shutdown.unwrap_or(policy.shutdown);
        policy.start = self.start.unwrap_or(policy.start);
        policy.backoff = self.backoff.unwrap_or(policy.backoff);
    }
}

/// A default policy and what patterns of supervisor paths change of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicySet {
    default: Policy,
    /// Least exact first, so that the last to match wins.
    patches: Vec<(PathPattern, PolicyPatch)>,
}

impl PolicySet {
    /// The same policy everywhere.
    pub fn new(default: Policy) -> Self {
        Self { default, patches: Vec::new() }
    }

    /// Changes the policy of the supervisors whose path matches. The more exact pattern wins (`rooms/standup` over
    /// `rooms/*`), key by key; of equal ones the later.
    #[must_use]
    pub fn with(mut self, pattern: PathPattern, patch: PolicyPatch) -> Self {
        let place = self.patches.partition_point(|(other, _)| other.exactness() <= pattern.exactness());
        self.patches.insert(place, (pattern, patch));
        self
    }

    /// Checks the default policy and each patch.
    ///
    /// # Errors
    /// As [`Policy::check`]; the error names the pattern, or `default`.
    pub fn check(&self) -> Result<(), PolicyError> {
        self.default.check("default")?;
        for (pattern, patch) in &self.patches {
            let mut policy = self.default;
            patch.apply(&mut policy);
            policy.check(&pattern.to_string())?;
        }
        Ok(())
    }

    /// The policy of the supervisor at `path`.
    pub fn policy(&self, path: &ActorPath) -> Policy {
        let mut policy = self.default;
        for (pattern, patch) in &self.patches {
            if pattern.matches(path) {
                patch.apply(&mut policy);
            }
        }
        policy
    }
}

/// The policies in force. Looked up at each decision, so a replacement acts at once: intensity and period at the next
/// restart, the times to start and to stop at the next start and stop, backoff on the waits that are under way, too.
/// Children keep running.
#[derive(Debug)]
pub struct Policies {
    set: ArcSwap<PolicySet>,
    changes: watch::Sender<()>,
}

impl Default for Policies {
    fn default() -> Self {
        Self::new(PolicySet::default())
    }
}

impl Policies {
    /// Starts with this set.
    pub fn new(set: PolicySet) -> Self {
        Self { set: ArcSwap::from_pointee(set), changes: watch::Sender::new(()) }
    }

    /// Puts another set in force. [`PolicySet::check`] says whether it makes sense; a zero period would mean that no
    /// intensity is ever exceeded, and a zero time to start that nothing ever starts.
    pub fn replace(&self, set: PolicySet) {
        self.set.store(Arc::new(set));
        self.changes.send_replace(());
    }

    /// Sees each replacement from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The set in force.
    pub fn current(&self) -> Arc<PolicySet> {
        self.set.load_full()
    }

    /// The policy in force for the supervisor at `path`.
    pub fn policy(&self, path: &ActorPath) -> Policy {
        self.set.load().policy(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_restart_is_immediate_and_the_rest_grow_to_the_bound() {
        let ms = Duration::from_millis;
        let backoff = Backoff::new(ms(10), 2.0, ms(50), 0.0).unwrap();
        let waits: Vec<_> = (0..6).map(|attempt| backoff.delay(attempt, 0.5).as_millis()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 50, 50]);
        assert_eq!(backoff.delay(u32::MAX, 0.5), ms(50));
    }

    #[test]
    fn nonsense_is_refused() {
        let s = Duration::from_secs;
        for factor in [0.9, f64::NAN, f64::INFINITY, -1.0] {
            assert!(matches!(Backoff::new(s(1), factor, s(2), 0.0), Err(BackoffError::Factor(_))));
        }
        assert!(matches!(Backoff::new(s(1), 2.0, s(2), 1.1), Err(BackoffError::Jitter(_))));
        assert!(matches!(Backoff::new(s(3), 2.0, s(2), 0.0), Err(BackoffError::Max { .. })));
    }

    #[test]
    fn a_set_with_a_wrong_policy_names_it() {
        assert_eq!(PolicySet::default().check(), Ok(()));
        let policy = Policy { period: Duration::ZERO, ..Policy::default() };
        assert_eq!(PolicySet::new(policy).check(), Err(PolicyError::Period("default".to_owned())));
        let patch = PolicyPatch { start: Some(Duration::ZERO), ..PolicyPatch::default() };
        let set = PolicySet::default().with(PathPattern::parse("rooms/*").unwrap(), patch);
        assert_eq!(set.check(), Err(PolicyError::Start("rooms/*".to_owned())));
    }

    #[test]
    fn the_most_exact_pattern_wins_key_by_key() {
        let pattern = |text| PathPattern::parse(text).unwrap();
        let intensity = |n| PolicyPatch { intensity: Some(n), ..PolicyPatch::default() };
        let period = PolicyPatch { period: Some(Duration::from_secs(9)), ..intensity(2) };
        let set = PolicySet::default()
            .with(pattern("rooms/a"), intensity(3))
            .with(pattern("rooms/*"), period)
            .with(pattern("*/*"), intensity(1))
            .with(pattern(""), intensity(7));
        let root = ActorPath::root("r");
        let policy = |path: &ActorPath| (set.policy(path).intensity, set.policy(path).period.as_secs());
        let rooms = root.child("rooms");
        assert_eq!(policy(&rooms.child("a")), (3, 9));
        assert_eq!(policy(&rooms.child("b")), (2, 9));
        assert_eq!(policy(&root.child("x").child("b")), (1, 5));
        assert_eq!(policy(&rooms), (10, 5));
        assert_eq!(policy(&root), (7, 5));
    }

    proptest! {
        #[test]
        fn a_wait_never_passes_the_bound(
            initial in 0_u64..10_000, more in 0_u64..10_000_000, factor in 1.0..100.0_f64, jitter in 0.0..=1.0_f64,
            attempt in any::<u32>(), dice in 0.0..1.0_f64,
        ) {
            let (initial, max) = (Duration::from_micros(initial), Duration::from_micros(initial + more));
            let backoff = Backoff::new(initial, factor, max, jitter).unwrap();
            prop_assert!(backoff.delay(attempt, dice) <= max);
        }
    }
}
