//! `[supervision.…]`: a supervisor's strategy, restart intensity and backoff, as an operator writes them. What they mean
//! for the tree is in `policy`.

use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::duration::{HumanDuration, OptionalDuration};

/// `[supervision.…]`: what is left out comes from `[supervision.defaults]`, and there from the built-in policy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySettings {
    /// What becomes of its other children when one crashes; for `bus`, `listeners`, `rooms/*` and `rooms/NAME`. Waits for a
    /// restart.
    pub strategy: Option<StrategyName>,
    /// More restarts than this within the period: the supervisor gives up and its parent decides.
    #[schemars(range(max = 1_000_000))]
    pub intensity: Option<u32>,
    /// The window in which restarts are counted.
    #[serde(with = "OptionalDuration")]
    pub period: Option<Duration>,
    /// How long a child may take to stop before it is killed.
    #[serde(with = "OptionalDuration")]
    pub shutdown: Option<Duration>,
    /// The wait between restarts; the first is immediate.
    pub backoff: Option<BackoffSettings>,
}

/// What becomes of the other children when one crashes. Those that were started later are stopped in reverse order first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StrategyName {
    /// Nothing.
    OneForOne,
    /// All are restarted.
    OneForAll,
    /// Those that were started after it are restarted.
    RestForOne,
}

impl StrategyName {
    /// As in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::OneForAll => "one_for_all",
            Self::RestForOne => "rest_for_one",
        }
    }
}

/// `backoff = { initial, factor, max, jitter }`
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackoffSettings {
    /// The wait before the second restart.
    #[serde(with = "HumanDuration")]
    pub initial: Duration,
    /// What each further wait is multiplied by.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub factor: f64,
    /// The longest wait.
    #[serde(with = "HumanDuration")]
    pub max: Duration,
    /// By how much a wait may differ at random, as a part of it: 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub jitter: f64,
}

/// The map's schema: the supervisors of this tree by name, so that an editor offers them, and patterns besides.
pub(super) fn policies_schema(generator: &mut SchemaGenerator) -> Schema {
    let policy = generator.subschema_for::<PolicySettings>();
    let named = ["defaults", "", "bus", "flushers", "rooms", "rooms/*", "connections", "listeners"];
    let properties: serde_json::Map<_, _> =
        named.iter().map(|name| ((*name).to_owned(), policy.clone().to_value())).collect();
    json_schema!({
        "type": "object",
        "properties": properties,
        "patternProperties": { "^(rooms|\\*)/[^/]+$|^\\*$": policy },
        "additionalProperties": false,
    })
}
