//! `config`: reads `supervisor.toml` again when asked to. A bad file is refused whole and the settings in force stay; of
//! a good one, what is live acts at once and the rest is named in the log as waiting for a restart.

use std::path::PathBuf;
use std::sync::Arc;

use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};

use crate::LogControl;
use crate::config::{self, ConfigError, Settings};
use crate::store::Store;

/// Where settings come from, and where the log's filter goes.
pub struct Source {
    /// The file; `None`: there is only the default and the overrides.
    pub file: Option<PathBuf>,
    /// `--set` values, laid over the file.
    pub overrides: Vec<String>,
    /// Changes the log's filter.
    pub log_control: LogControl,
}

/// What the configuration actor is told.
#[derive(Debug)]
pub enum Message {
    /// Read the file again.
    Reload,
}

/// One incarnation of the configuration actor.
pub struct Config {
    store: Arc<Store>,
    source: Arc<Source>,
}

impl Worker for Config {
    type Message = Message;
    type Args = (Arc<Store>, Arc<Source>);

    async fn start((store, source): Self::Args, _: &Context<Self>) -> Result<Self, StartError> {
        Ok(Self { store, source })
    }

    async fn handle(&mut self, message: Message, _: &Context<Self>) -> Result<Flow, Failure> {
        let Message::Reload = message;
        match self.reload() {
            Ok(waiting) if waiting.is_empty() => tracing::info!("settings reloaded"),
            Ok(waiting) => {
                tracing::warn!(waiting = waiting.join(", "), "settings reloaded; these wait for a restart");
            }
            Err(error) => {
                self.store.metrics.config_rejections.increment(1);
                tracing::error!(%error, "settings refused; those in force stay");
            }
        }
        Ok(Flow::Continue)
    }
}

impl Config {
    fn reload(&self) -> Result<Vec<&'static str>, ConfigError> {
        let new = config::load(self.source.file.as_deref(), &self.source.overrides)?;
        let (merged, waiting) = merge(&self.store.settings(), new);
        if let Err(reason) = self.source.log_control.set(&merged.telemetry.log) {
            tracing::warn!(%reason, "telemetry.log stays as it was");
        }
        self.store.apply(merged);
        Ok(waiting)
    }
}

/// The new settings where they are live, the old ones where they are not, and the names of what waits for a restart.
fn merge(old: &Settings, new: Settings) -> (Settings, Vec<&'static str>) {
    let mut waiting = Vec::new();
    let mut note = |differs: bool, what| {
        if differs {
            waiting.push(what);
        }
    };
    note(old.node != new.node, "[node]");
    note(old.listen != new.listen, "[listen]");
    note(old.bus != new.bus, "[bus]");
    note(old.auth != new.auth, "[auth]");
    note(old.telemetry.format != new.telemetry.format, "telemetry.format");
    let mut merged = Settings {
        node: old.node.clone(),
        listen: old.listen.clone(),
        bus: old.bus.clone(),
        auth: old.auth.clone(),
        ..new
    };
    merged.telemetry.format = old.telemetry.format;
    (merged, waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_settings_are_taken_and_the_others_are_named_and_kept() {
        let old = Settings::default();
        let text =
            "[node]\nregion = \"far\"\n[limits]\nmax_rooms = 3\n[telemetry]\nlog = \"debug\"\nformat = \"json\"\n";
        let (merged, waiting) = merge(&old, config::parse("supervisor.toml", text, &[]).unwrap());
        assert_eq!(waiting, ["[node]", "telemetry.format"]);
        assert_eq!(merged.limits.max_rooms, 3);
        assert_eq!(merged.telemetry.log, "debug");
        assert_eq!(merged.node, old.node);
        assert_eq!(merged.telemetry.format, old.telemetry.format);
    }
}
