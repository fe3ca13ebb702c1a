//! Restart policies out of the settings: the built-in ones, then `[supervision.defaults]`, then one per path or pattern.

use std::time::Duration;

use roomcast_supervision::{Backoff, BackoffError, PathPattern, PatternError, Policy, PolicyPatch, PolicySet};

use crate::config::{BackoffSettings, PolicySettings, Settings};

/// The table that is for all supervisors without one of their own.
const DEFAULTS: &str = "defaults";

/// A supervisor of many needs room for many: at the default intensity, a dozen bad rooms would end all the others.
const MANY: PolicyPatch =
    PolicyPatch { intensity: Some(1000), period: None, shutdown: None, start: None, backoff: None };

/// All policies that the settings ask for. What does not parse is left out: `config` refused it before.
pub(crate) fn policies(settings: &Settings) -> PolicySet {
    let mut default = Policy { intensity: 10, period: Duration::from_secs(5), ..Policy::default() };
    if let Some(defaults) = settings.supervision.get(DEFAULTS) {
        let patch = patch(defaults);
        default = Policy {
            intensity: patch.intensity.unwrap_or(default.intensity),
            period: patch.period.unwrap_or(default.period),
            shutdown: patch.shutdown.unwrap_or(default.shutdown),
            start: default.start,
            backoff: patch.backoff.unwrap_or(default.backoff),
        };
    }
    let many = ["rooms", "connections"].map(|path| (path, MANY));
    let configured = settings.supervision.iter().filter(|(path, _)| path.as_str() != DEFAULTS);
    many.into_iter()
        .chain(configured.map(|(path, policy)| (path.as_str(), patch(policy))))
        .filter_map(|(path, patch)| Some((PathPattern::parse(path).ok()?, patch)))
        .fold(PolicySet::new(default), |set, (pattern, patch)| set.with(pattern, patch))
}

/// Checks one table's path.
///
/// # Errors
/// When it is neither `defaults` nor a path or pattern.
pub(crate) fn check_path(path: &str) -> Result<(), PatternError> {
    if path == DEFAULTS { Ok(()) } else { PathPattern::parse(path).map(drop) }
}

/// Checks one backoff.
///
/// # Errors
/// When its numbers make no sense together.
pub(crate) fn backoff(settings: &BackoffSettings) -> Result<Backoff, BackoffError> {
    Backoff::new(settings.initial, settings.factor, settings.max, settings.jitter)
}

fn patch(settings: &PolicySettings) -> PolicyPatch {
    PolicyPatch {
        intensity: settings.intensity,
        period: settings.period,
        shutdown: settings.shutdown,
        start: None,
        backoff: settings.backoff.as_ref().and_then(|settings| backoff(settings).ok()),
    }
}
