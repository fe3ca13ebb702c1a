//! A node on a file in a directory of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use roomcast_node::actors::config::Message;
use roomcast_node::config::{self, ReloadOutcome};
use roomcast_node::{Node, NodeOptions};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

/// Long enough for a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// One listener on a port from the system, and nothing else that takes time to start.
pub(crate) const BASE: &str = "[listen.websocket]\nbind = \"127.0.0.1:0\"\n";

/// A good file that allows so many rooms.
pub(crate) fn rooms(count: usize) -> String {
    format!("{BASE}[limits]\nmax_rooms = {count}\n")
}

/// A directory whose path holds no symbolic link.
pub(crate) struct Folder {
    _guard: TempDir,
    pub(crate) path: PathBuf,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let guard = tempfile::tempdir().unwrap();
        let path = guard.path().canonicalize().unwrap();
        Self { _guard: guard, path }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path.join("supervisor.toml")
    }
}

pub(crate) async fn start(file: &Path) -> Node {
    let settings = config::load(Some(file), &[]).unwrap();
    Node::start(NodeOptions { settings, config_file: Some(file.to_owned()), ..NodeOptions::default() }).await.unwrap()
}

/// The rooms that the settings in force allow.
pub(crate) fn rooms_in_force(node: &Node) -> usize {
    node.settings().limits.max_rooms
}

/// One metric's value.
pub(crate) fn metric(node: &Node, name: &str) -> f64 {
    let text = node.store().metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("0");
    line.parse().unwrap()
}

/// Asks for a reload and waits for its outcome, over restarts of the actor.
pub(crate) async fn reload(node: &Node) -> ReloadOutcome {
    let deadline = Instant::now() + SOON;
    loop {
        let (asker, outcome) = oneshot::channel();
        if node.store().config.send(Message::Reload(Some(asker))).is_ok()
            && let Ok(outcome) = timeout(SOON, outcome).await.unwrap()
        {
            return outcome;
        }
        assert!(Instant::now() < deadline, "the configuration actor does not come back");
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}
