//! A node in a box: the real node, on ports from the system, with its own temporary directory.

use std::sync::Arc;
use std::time::Duration;

use roomcast_bus::Bus;
use roomcast_node::config::{self, Settings};
use roomcast_node::{LogControl, Node, NodeOptions};
use roomcast_supervision::Observer;
use roomcast_transport::tls::ClientTrust;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::http;

/// The configuration file's name.
const CONFIG_FILE: &str = "supervisor.toml";

/// How long the admin port may take to answer.
const ADMIN: Duration = Duration::from_secs(10);

/// What every box is told: all ports from the system, faults allowed, and limits that tests do not meet by accident.
const BOXED: &str = r#"
[listen.websocket]
bind = "127.0.0.1:0"
[listen.webtransport]
bind = "127.0.0.1:0"
[listen.admin]
bind = "127.0.0.1:0"
[chaos]
enabled = true
"#;

/// What a box with a configuration file is told besides the file, as after `--set`: all ports from the system.
const ANY_PORT: [&str; 3] =
    ["listen.websocket.bind=127.0.0.1:0", "listen.webtransport.bind=127.0.0.1:0", "listen.admin.bind=127.0.0.1:0"];

/// A running node and how to reach it.
pub struct NodeBox {
    node: Arc<Node>,
    /// Where its configuration file is, if it has one.
    home: Option<TempDir>,
}

/// How a client is to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// Over `ws://`.
    WebSocket,
    /// Over `https://`, HTTP/3.
    WebTransport,
}

impl Via {
    /// Both.
    pub const ALL: [Self; 2] = [Self::WebSocket, Self::WebTransport];
}

impl NodeBox {
    /// Starts a node on the box's settings.
    ///
    /// # Panics
    /// When it does not start: a test cannot go on.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a node on the box's settings with `key=value` overrides, as after `--set`.
    ///
    /// # Panics
    /// When it does not start: a test cannot go on.
    pub async fn start_with(overrides: &[&str]) -> Self {
        Self::start_on(overrides, None).await
    }

    /// The same on a bus of the test's own, which other nodes may share; `None`: a bus of its own.
    ///
    /// # Panics
    /// When it does not start: a test cannot go on.
    pub async fn start_on(overrides: &[&str], bus: Option<Arc<dyn Bus>>) -> Self {
        Self::start_observed(overrides, bus, None).await
    }

    /// The same, with somebody who is told of all that happens in the tree.
    ///
    /// # Panics
    /// When it does not start: a test cannot go on.
    pub async fn start_observed(overrides: &[&str], bus: Option<Arc<dyn Bus>>, observer: Option<Observer>) -> Self {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let settings: Settings = config::parse("box", BOXED, &overrides).expect("the overrides are good settings");
        let node = Node::start(NodeOptions { settings, overrides, bus, observer, ..NodeOptions::default() });
        Self { node: Arc::new(node.await.expect("a node on ports from the system starts")), home: None }
    }

    /// Starts a node on a `supervisor.toml` with this text, in a directory of its own, and ports from the system. The text
    /// is all there is besides the defaults: faults are off unless it says otherwise.
    ///
    /// # Panics
    /// When the text is refused or the node does not start: a test cannot go on.
    pub async fn start_from(text: &str, log_control: LogControl) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let config_file = home.path().join(CONFIG_FILE);
        std::fs::write(&config_file, text).expect("a file can be written there");
        let overrides: Vec<String> = ANY_PORT.map(str::to_owned).into();
        let settings = config::load(Some(&config_file), &overrides).expect("the text is good settings");
        let config_file = Some(config_file);
        let node = Node::start(NodeOptions { settings, config_file, overrides, log_control, ..NodeOptions::default() });
        Self { node: Arc::new(node.await.expect("a node on ports from the system starts")), home: Some(home) }
    }

    /// Replaces the text of `supervisor.toml`, asks for a reload, and waits until other settings than before are in force.
    ///
    /// # Panics
    /// When the box has no such file, or the settings stay: the text was refused.
    pub async fn rewrite(&self, text: &str) {
        let home = self.home.as_ref().expect("the box was started from a file");
        let before = self.node.settings();
        // As careful editors do it: nobody reads half a file.
        let draft = home.path().join("draft");
        std::fs::write(&draft, text).expect("a file can be written there");
        std::fs::rename(&draft, home.path().join(CONFIG_FILE)).expect("a file can be renamed there");
        self.node.reload();
        eventually("the settings are replaced", Duration::from_secs(10), async || {
            !Arc::ptr_eq(&before, &self.node.settings())
        })
        .await;
    }

    /// The node itself.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Where clients connect, without a path: `ws://127.0.0.1:PORT` or `https://127.0.0.1:PORT`.
    ///
    /// # Panics
    /// When that listener was switched off.
    #[must_use]
    pub fn base(&self, via: Via) -> String {
        let addresses = self.node.addresses();
        match via {
            Via::WebSocket => {
                let scheme = if self.node.websocket_identity().is_some() { "wss" } else { "ws" };
                format!("{scheme}://{}", addresses.websocket.expect("the WebSocket listener is on"))
            }
            Via::WebTransport => {
                format!("https://{}", addresses.webtransport.expect("the WebTransport listener is on"))
            }
        }
    }

    /// The lobby URL of a user and a room that need no encoding.
    #[must_use]
    pub fn url(&self, via: Via, user: &str, room: &str) -> String {
        format!("{}/lobby/{user}/{room}", self.base(via))
    }

    /// What a client must trust: the certificate's hash.
    #[must_use]
    pub fn trust(&self) -> ClientTrust {
        let identities = [self.node.websocket_identity(), self.node.webtransport_identity()];
        ClientTrust::Hashes(identities.into_iter().flatten().map(|identity| identity.current().sha256()).collect())
    }

    /// The WebTransport certificate's hash, as a browser takes it.
    ///
    /// # Panics
    /// When that listener was switched off.
    #[must_use]
    pub fn hash_base64(&self) -> String {
        self.node.webtransport_identity().expect("the WebTransport listener is on").current().hash_base64()
    }

    /// Asks the admin port, with the token. Gives the status and the body.
    ///
    /// # Panics
    /// When it does not answer as HTTP does.
    pub async fn admin(&self, method: &str, path: &str) -> (u16, String) {
        let token = std::fs::read_to_string(self.node.token_file().expect("the box has an admin listener"))
            .expect("the token's file can be read");
        self.admin_as(method, path, token.trim()).await
    }

    /// Asks the admin port with any token. Gives the status and the body.
    ///
    /// # Panics
    /// When it does not answer as HTTP does.
    pub async fn admin_as(&self, method: &str, path: &str, token: &str) -> (u16, String) {
        let address = self.node.addresses().admin.expect("the box has an admin listener");
        http::ask(address, method, path, token, ADMIN).await.expect("the admin port answers in time, as HTTP does")
    }

    /// One metric's value, summed over its labels; `labels` must all occur in a line for it to count.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, body) = self.admin("GET", "/metrics").await;
        http::metric(&body, name, labels)
    }

    /// Stops the node in order.
    pub async fn stop(self) {
        self.node.stop().await;
    }
}

/// Waits until a condition holds, looking often.
///
/// # Panics
/// When it does not hold within the time given.
pub async fn eventually<F: Future<Output = bool>>(what: &str, within: Duration, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + within;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
