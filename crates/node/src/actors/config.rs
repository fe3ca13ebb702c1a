//! `config`: reads `supervisor.toml` again when it was changed and when asked to. A bad file is refused whole and the
//! settings in force stay; of a good one, what is live acts at once and the rest is named as waiting for a restart.
//!
//! What was read last is in the store: a new incarnation compares the file with that, so a change that was made while no
//! configuration actor was running is not lost, and one that was judged is not judged twice.

mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};
use tokio::sync::oneshot;

use crate::LogControl;
use crate::config::{self, Change, ConfigErrors, Content, ReloadOutcome, Settings, Verdict};
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

impl Source {
    /// What the file says now.
    async fn content(self: &Arc<Self>) -> Result<Content, Failure> {
        let Some(file) = self.file.clone() else { return Ok(Content::Bytes(Vec::new())) };
        Ok(tokio::task::spawn_blocking(move || watch::look(&file)).await?)
    }

    fn parse(&self, content: &Content) -> Result<Settings, ConfigErrors> {
        match (&self.file, content) {
            (None, _) => config::load(None, &self.overrides),
            (Some(file), Content::Bytes(bytes)) => config::parse_bytes(file, bytes.clone(), &self.overrides),
            (Some(file), Content::Unreadable(why)) => Err(config::unreadable(file, why)),
        }
    }
}

/// What the configuration actor is told.
#[derive(Debug)]
pub enum Message {
    /// Read the configuration again, even if the file has not changed, and say what came of it to whoever asks. The answer
    /// never comes when the actor crashes meanwhile: ask again.
    Reload(Option<oneshot::Sender<ReloadOutcome>>),
    /// The file has changed and settled on this. Sent by the actor's own watch, which waits for the end of it.
    Settled(Content, oneshot::Sender<()>),
}

/// One incarnation of the configuration actor.
pub struct Config {
    store: Arc<Store>,
    source: Arc<Source>,
}

impl Worker for Config {
    type Message = Message;
    type Args = (Arc<Store>, Arc<Source>);

    async fn start((store, source): Self::Args, ctx: &Context<Self>) -> Result<Self, StartError> {
        if let Some(file) = source.file.clone() {
            ctx.attach("watch", watch::watch(file, Arc::clone(&store), ctx.address()));
        }
        Ok(Self { store, source })
    }

    async fn handle(&mut self, message: Message, _: &Context<Self>) -> Result<Flow, Failure> {
        match message {
            Message::Reload(asker) => {
                let outcome = self.judge(self.source.content().await?).await;
                self.tell(&outcome);
                if let Some(asker) = asker {
                    // Who asked may have gone; the outcome stands all the same.
                    let _ = asker.send(outcome);
                }
            }
            Message::Settled(content, done) => {
                let before = self.store.judged();
                if before.as_deref() != Some(&content) {
                    let outcome = self.judge(content).await;
                    // The first look at the file that the node was started with is no news.
                    if before.is_some() || outcome.verdict != Verdict::Unchanged {
                        self.tell(&outcome);
                    }
                }
                // The watch ends only with the actor.
                let _ = done.send(());
            }
        }
        Ok(Flow::Continue)
    }
}

impl Config {
    /// Checks what was read; puts it in force if it is good.
    async fn judge(&self, content: Content) -> ReloadOutcome {
        let content = Arc::new(content);
        let parsed = {
            let (source, content) = (Arc::clone(&self.source), Arc::clone(&content));
            // A large file with many mistakes takes a while, and media must not wait for it.
            tokio::task::spawn_blocking(move || source.parse(&content)).await
        };
        // From here on nothing awaits, so no kill can come between: what counts as judged is in force.
        self.store.set_judged(content);
        let errors = match parsed {
            Ok(Ok(new)) => return self.accept(&new),
            Ok(Err(errors)) => errors,
            // A crash over a file would come back with each incarnation, and take the node with it.
            Err(panic) => config::internal(self.source.file.as_deref(), &panic.to_string()),
        };
        ReloadOutcome {
            verdict: Verdict::Refused,
            generation: self.store.config_generation(),
            changed: Vec::new(),
            errors: errors.into_vec(),
        }
    }

    /// Puts what is live in force and remembers what waits.
    fn accept(&self, new: &Settings) -> ReloadOutcome {
        let old = self.store.settings();
        let changed = config::diff(&old, new);
        let waiting: Vec<Change> = changed.iter().filter(|change| !change.live).cloned().collect();
        let acts = waiting.len() < changed.len();
        let verdict =
            if acts || waiting != *self.store.config_waiting() { Verdict::Applied } else { Verdict::Unchanged };
        self.store.set_config_waiting(waiting);
        if acts {
            let merged = config::in_force(&old, new);
            if let Err(reason) = self.source.log_control.set(&merged.telemetry.log) {
                tracing::warn!(%reason, "telemetry.log stays as it was");
            }
            self.store.apply(merged);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.store.metrics.config_read.set(now.as_secs_f64());
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
