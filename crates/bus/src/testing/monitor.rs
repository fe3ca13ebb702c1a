//! What a broker counts, asked of its monitoring port. What lives here: the few requests and the few fields. What does not: its process.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest that one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a broker counts since it was started; all clients and routes together.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct BrokerCounters {
    /// Messages that it received.
    pub in_msgs: u64,
    /// Messages that it sent.
    pub out_msgs: u64,
    /// Payload bytes that it received.
    pub in_bytes: u64,
    /// Payload bytes that it sent.
    pub out_bytes: u64,
    /// Clients that were cut off because they read too slowly.
    #[serde(default)]
    pub slow_consumers: u64,
    /// Each client that is connected now.
    #[serde(skip)]
    pub connections: Vec<ConnectionCounters>,
}

impl BrokerCounters {
    /// The connection of a client of this name.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&ConnectionCounters> {
        self.connections.iter().find(|connection| connection.name == name)
    }
}

/// What a broker counts of one client; in and out as the broker sees it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct ConnectionCounters {
    /// The name that the client gave itself; empty without.
    #[serde(default)]
    pub name: String,
    /// Messages that the client published.
    pub in_msgs: u64,
    /// Messages that were sent to it.
    pub out_msgs: u64,
    /// Payload bytes that it published.
    pub in_bytes: u64,
    /// Payload bytes that were sent to it.
    pub out_bytes: u64,
    /// Its subscriptions.
    #[serde(default)]
    pub subscriptions: usize,
    /// Bytes that wait to be sent to it.
    #[serde(default)]
    pub pending_bytes: u64,
}

/// All counters.
///
/// # Panics
///
/// Where the broker does not answer in time: it is killed or frozen.
pub(super) async fn counters(monitor: SocketAddr) -> BrokerCounters {
    #[derive(Deserialize)]
    struct Connections {
        #[serde(default)]
        connections: Vec<ConnectionCounters>,
    }
    let mut counters: BrokerCounters = get(monitor, "/varz").await.expect("a broker that answers");
    let Connections { connections } = get(monitor, "/connz?limit=4096").await.expect("a broker that answers");
    counters.connections = connections;
    counters
}

/// `Some` once the broker answers.
pub(super) async fn is_up(monitor: SocketAddr) -> Option<()> {
    get::<serde_json::Value>(monitor, "/healthz").await.map(|_| ())
}

/// How many other brokers it is connected to; with each it may have several connections.
pub(super) async fn peers(monitor: SocketAddr) -> Option<usize> {
    #[derive(Deserialize)]
    struct Routes {
        #[serde(default)]
        routes: Vec<Route>,
    }
    #[derive(Deserialize)]
    struct Route {
        remote_id: String,
    }
    let Routes { routes } = get(monitor, "/routez").await?;
    Some(routes.into_iter().map(|route| route.remote_id).collect::<HashSet<_>>().len())
}

/// One request; `None` where no whole answer comes.
async fn get<T: DeserializeOwned>(monitor: SocketAddr, path: &str) -> Option<T> {
    let answer = async {
        let mut stream = TcpStream::connect(monitor).await.ok()?;
        // HTTP/1.0: the answer ends with the connection, and is not cut into chunks.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {monitor}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let body = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        serde_json::from_slice(&answer[body..]).ok()
    };
    timeout(PATIENCE, answer).await.ok().flatten()
}
