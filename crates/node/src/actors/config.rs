//! `config`: reads `supervisor.toml` again when asked to. A bad file is refused whole and the settings in force stay; of
//! a good one, what is live acts at once and the rest is named in the log as waiting for a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};
use tokio::sync::oneshot;

use crate::LogControl;
use crate::config::{self, Change, ReloadOutcome, Settings, Verdict};
use crate::store::{NodeEvent, Store};

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
    /// Read the configuration again, even if the file has not changed, and say what came of it to whoever asks. The answer
    /// never comes when the actor crashes meanwhile: ask again.
    Reload(Option<oneshot::Sender<ReloadOutcome>>),
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
        let Message::Reload(asker) = message;
        let outcome = self.reload();
        if let Some(asker) = asker {
            // Who asked may have gone; the outcome stands all the same.
            let _ = asker.send(outcome);
        }
        Ok(Flow::Continue)
    }
}

impl Config {
    fn reload(&self) -> ReloadOutcome {
        let outcome = match config::load(self.source.file.as_deref(), &self.source.overrides) {
            Ok(new) => self.accept(&new),
            Err(errors) => ReloadOutcome {
                verdict: Verdict::Refused,
                generation: self.store.config_generation(),
                changed: Vec::new(),
                errors: errors.into_vec(),
            },
        };
        self.tell(&outcome);
        outcome
    }

    /// Puts what is live in force and remembers what waits.
    fn accept(&self, new: &Settings) -> ReloadOutcome {
        let old = self.store.settings();
        let changed = config::diff(&old, new);
        let waiting: Vec<Change> = changed.iter().filter(|change| !change.live).cloned().collect();
        let acts = waiting.len() < changed.len();
        let verdict =
            if acts || waiting != *self.store.config_waiting() { Verdict::Applied } else { Verdict::Unchanged };
        if acts {
            let merged = config::in_force(&old, new);
            if let Err(reason) = self.source.log_control.set(&merged.telemetry.log) {
                tracing::warn!(%reason, "telemetry.log stays as it was");
            }
            self.store.apply(merged);
        }
        self.store.set_config_waiting(waiting);
        ReloadOutcome { verdict, generation: self.store.config_generation(), changed, errors: Vec::new() }
    }

    fn tell(&self, outcome: &ReloadOutcome) {
        self.store.events.publish(NodeEvent::Reload(outcome.into()));
        if outcome.verdict == Verdict::Refused {
            self.store.metrics.config_rejections.increment(1);
            for error in &outcome.errors {
                tracing::error!(%error, "settings refused; those in force stay");
            }
            return;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.store.metrics.config_read.set(now.as_secs_f64());
        let keys = |live: bool| {
            let keys = outcome.changed.iter().filter(|change| change.live == live).map(|change| change.key.as_str());
            keys.collect::<Vec<_>>().join(", ")
        };
        let (changed, waiting) = (keys(true), keys(false));
        tracing::info!(verdict = outcome.verdict.as_str(), generation = outcome.generation, changed, "settings read");
        if !waiting.is_empty() {
            tracing::warn!(waiting, "these settings wait for a restart");
        }
    }
}
