//! Restart policies and strategies out of the settings: the built-in ones, then `[supervision.defaults]`, then one per path
//! or pattern. Knows which supervisors the tree has; what they supervise is in `tree`.

use std::collections::BTreeMap;
use std::time::Duration;

use roomcast_supervision::{
    ActorPath, Backoff, BackoffError, PathPattern, PatternError, Policy, PolicyPatch, PolicySet,
};

use crate::config::{BackoffSettings, PolicySettings, Settings, StrategyName, nearest};

/// The table that is for all supervisors without one of their own.
const DEFAULTS: &str = "defaults";

/// What holds where the settings say nothing, as they would say it.
fn built_in() -> [(&'static str, PolicySettings); 4] {
    let intensity = |restarts| PolicySettings { intensity: Some(restarts), ..PolicySettings::default() };
    let Policy { shutdown, .. } = Policy::default();
    let ms = Duration::from_millis;
    let defaults = PolicySettings {
        strategy: None,
        intensity: Some(10),
        period: Some(Duration::from_secs(5)),
        shutdown: Some(shutdown),
        backoff: Some(BackoffSettings { initial: ms(10), factor: 2.0, max: ms(5_000), jitter: 0.2 }),
    };
    // A supervisor of many needs room for many: at the default intensity, a dozen bad rooms would end all the others.
    const MANY: u32 = 1_000;
    // The root's end is the process's. One child that cannot run uses up ten or eleven restarts in five seconds, then
    // hardly any: backoff sees to that. So it takes several that loop at the same time to end the node.
    const ROOT: u32 = 50;
    [(DEFAULTS, defaults), ("", intensity(ROOT)), ("rooms", intensity(MANY)), ("connections", intensity(MANY))]
}

/// The tables that are in force: those of the settings, filled up with what is built in.
pub(crate) fn in_force(settings: &Settings) -> BTreeMap<String, PolicySettings> {
    let mut tables = settings.supervision.clone();
    for (path, built_in) in built_in() {
        let table = tables.entry(path.to_owned()).or_default();
        table.intensity = table.intensity.or(built_in.intensity);
        table.period = table.period.or(built_in.period);
        table.shutdown = table.shutdown.or(built_in.shutdown);
        table.backoff = table.backoff.or(built_in.backoff);
    }
    tables
}

/// All policies that the settings ask for. What does not parse is left out: `config` refused it before.
pub(crate) fn policies(settings: &Settings) -> PolicySet {
    let mut tables = in_force(settings);
    let defaults = tables.remove(DEFAULTS).unwrap_or_default();
    let built_in = Policy::default();
    let patch_of = patch(&defaults);
    let default = Policy {
        intensity: patch_of.intensity.unwrap_or(built_in.intensity),
        period: patch_of.period.unwrap_or(built_in.period),
        shutdown: patch_of.shutdown.unwrap_or(built_in.shutdown),
        start: built_in.start,
        backoff: patch_of.backoff.unwrap_or(built_in.backoff),
    };
    let named = tables.iter().filter_map(|(path, policy)| Some((PathPattern::parse(path).ok()?, patch(policy))));
    named.fold(PolicySet::new(default), |set, (pattern, patch)| set.with(pattern, patch))
}

/// The supervisors of the tree, as a table may name them; a room by its name besides. A test holds them against a
/// running tree.
const SUPERVISORS: [&str; 9] = [DEFAULTS, "", "*", "bus", "flushers", "rooms", "rooms/*", "connections", "listeners"];

/// Why a table's name is no supervisor's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathError {
    /// It is no path at all.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The tree writes that name otherwise, so the pattern would match nothing.
    #[error("is not how the tree writes that name; write it as `{0}`")]
    Escapes(String),
    /// No actor has such a name.
    #[error("`{0}` stands for what no name holds: control characters, or bytes that are no UTF-8")]
    NoName(String),
    /// It is a worker's.
    #[error("this is a worker, and a policy is for the supervisor that restarts it: {}", shown(.0))]
    Worker(String),
    /// It is nobody's.
    #[error("the tree has no such supervisor; {}", .0.as_ref().map_or_else(known_supervisors, |near| format!("did you mean `{near}`?")))]
    Unknown(Option<String>),
}

impl PathError {
    /// The name that was probably meant.
    pub(crate) fn nearest(&self) -> Option<String> {
        match self {
            Self::Pattern(_) | Self::NoName(_) => None,
            Self::Escapes(near) => Some(near.clone()),
            Self::Worker(above) => Some(above.clone()),
            Self::Unknown(near) => near.clone(),
        }
    }
}

fn shown(path: &str) -> String {
    if path.is_empty() { "`\"\"`, the root".to_owned() } else { format!("`{path}`") }
}

fn known_supervisors() -> String {
    format!(
        "known: {}, rooms/NAME",
        SUPERVISORS.map(|name| if name.is_empty() { "\"\" (the root)" } else { name }).join(", ")
    )
}

/// A segment as the tree writes the name that it stands for; `None` where no actor has such a name.
fn as_the_tree_writes(segment: &str) -> Option<String> {
    if segment == "*" {
        return Some(segment.to_owned());
    }
    let mut name = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            name.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            name.push(*first);
        }
    }
    let name = String::from_utf8(name).ok().filter(|name| !name.contains(char::is_control))?;
    Some(ActorPath::root("").child(&name).as_str().to_owned())
}

/// Checks one table's name.
///
/// # Errors
/// When it is neither `defaults` nor the path of a supervisor nor a pattern that one could match.
pub(crate) fn check_path(path: &str) -> Result<(), PathError> {
    PathPattern::parse(path)?;
    if SUPERVISORS.contains(&path) {
        return Ok(());
    }
    let names: Vec<&str> = path.split('/').collect();
    let written =
        names.iter().map(|name| as_the_tree_writes(name).ok_or_else(|| PathError::NoName((*name).to_owned())));
    let written = written.collect::<Result<Vec<_>, _>>()?.join("/");
    if written != path {
        return Err(PathError::Escapes(written));
    }
    match names[..] {
        ["rooms" | "*", _] => Ok(()),
        ["telemetry" | "config" | "admin"] => Err(PathError::Worker(String::new())),
        ["bus" | "flushers" | "connections" | "listeners", _] => Err(PathError::Worker(names[0].to_owned())),
        ["rooms" | "*", _, "room" | "subscription" | "*"] => Err(PathError::Worker(names[..2].join("/"))),
        _ => {
            let rest: Vec<&str> = names.iter().skip(1).copied().collect();
            let known = SUPERVISORS.into_iter().filter(|name| !name.is_empty() && !name.contains(['/', '*']));
            let near = nearest(names[0], known).filter(|near| rest.is_empty() || (*near == "rooms" && rest.len() == 1));
            Err(PathError::Unknown(near.map(|near| [&[near], &rest[..]].concat().join("/"))))
        }
    }
}

/// Why a strategy was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StrategyError {
    /// It would end connections that have not crashed.
    #[error("`{}` would end {ended} when one of them crashes; this supervisor stays `one_for_one`", .strategy.as_str())]
    EndsConnections {
        /// What was asked for.
        strategy: StrategyName,
        /// Who would end.
        ended: &'static str,
    },
    /// A room's actor would be down for as long as its subscription is, and joins with it.
    #[error(
        "`one_for_all` would let joins wait for the bus: a room that cannot subscribe would be restarted whole again \
             and again; use `one_for_one` or `rest_for_one`"
    )]
    JoinsWait,
    /// It is not said which supervisor is meant.
    #[error("a strategy is set by name: for `bus`, `flushers`, `listeners`, `rooms/*` or one room, `rooms/NAME`")]
    NotByName,
}

/// Checks one table's strategy. `path` has passed [`check_path`].
///
/// # Errors
/// When the crash of one child would end connections or keep clients from joining, or no supervisor is named.
pub(crate) fn check_strategy(path: &str, strategy: StrategyName) -> Result<(), StrategyError> {
    let ended = match path {
        "" => "all connections, and all else that runs,",
        "connections" => "all connections",
        "rooms" => "the actors of all rooms",
        "bus" | "flushers" | "listeners" => return Ok(()),
        name if name.starts_with("rooms/") && strategy == StrategyName::OneForAll => {
            return Err(StrategyError::JoinsWait);
        }
        name if name.starts_with("rooms/") => return Ok(()),
        _ => return Err(StrategyError::NotByName),
    };
    if strategy == StrategyName::OneForOne {
        return Ok(());
    }
    Err(StrategyError::EndsConnections { strategy, ended })
}

/// The strategy of the supervisor at `path`; a room's own goes before that of all rooms.
pub(crate) fn strategy(settings: &Settings, path: &str) -> StrategyName {
    let named = |name: &str| settings.supervision.get(name).and_then(|policy| policy.strategy);
    let general = || if path.starts_with("rooms/") { named("rooms/*") } else { None };
    named(path).or_else(general).unwrap_or(StrategyName::OneForOne)
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
