//! What a client is told when it is made, and what is checked before anything starts.

use std::time::Duration;

use roomcast_protocol::{Dialect, Lobby, RoomId, UserId};
use roomcast_transport::tls::ClientTrust;
use url::Url;

use crate::outbox::QueueBounds;
use crate::pulse::KeepAlive;
use crate::reconnect::{PolicyError, ReconnectPolicy};

/// Where to join, as whom, and how patiently. Start from [`ClientOptions::new`].
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Nodes of one cluster, or what stands before them (`reconnect` says which is chosen when): `ws://` and `wss://` for WebSocket, `https://` for WebTransport. Scheme, host
    /// and port; a path, where given, goes before `/lobby/…`.
    pub endpoints: Vec<Url>,
    /// Who joins.
    pub user: UserId,
    /// Which room.
    pub room: RoomId,
    /// What the node speaks; it tells which packets are media.
    pub dialect: Dialect,
    /// Which certificates to believe; not used for `ws://`.
    pub trust: ClientTrust,
    /// What to do when a connection ends.
    pub reconnect: ReconnectPolicy,
    /// Whether a draining node may ask this client to move (it does by default): the client joins another node, of
    /// `endpoints`, while the old connection goes on, and goes over without a gap. Meanwhile it counts as two connections.
    /// `false`: such a node closes the connection with 1001, and the client reconnects.
    pub notices: bool,
    /// How to notice a dead server.
    pub keep_alive: KeepAlive,
    /// The longest that one attempt to connect may take, from the name's resolution to the join.
    pub connect_timeout: Duration,
    /// How long `close` may take to send what still waits.
    pub flush_timeout: Duration,
    /// How long [`Sender::send`](crate::Sender::send) waits for room in the queue.
    pub send_timeout: Duration,
    /// What may wait to be sent.
    pub send_queue: QueueBounds,
    /// What may wait to be received by the application. When it is full the connection is not read further.
    pub receive_queue: QueueBounds,
}

/// Why a client cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Nowhere to connect to.
    #[error("at least one endpoint is needed")]
    NoEndpoint,
    /// An endpoint's scheme is none of those known.
    #[error("{0}: an endpoint starts with ws://, wss:// (WebSocket) or https:// (WebTransport)")]
    Scheme(Url),
    /// An endpoint names no host, or holds a query.
    #[error("{0}: an endpoint is a scheme, a host, a port and perhaps a path, such as ws://127.0.0.1:8080")]
    Endpoint(Url),
    /// A value of the reconnect policy is out of bounds.
    #[error(transparent)]
    Reconnect(#[from] PolicyError),
    /// A ping interval of zero, or one not shorter than the time after which a server counts as dead.
    #[error("keep_alive.every must be longer than zero and shorter than keep_alive.dead_after")]
    KeepAlive,
    /// A queue that holds nothing.
    #[error("a queue must hold at least one packet and one byte")]
    Queue,
}

impl ClientOptions {
    /// The defaults: `seed` dialect, the system's certificate authorities, reconnecting for ever, a ping every 5 s, dead
    /// after 15 s, 10 s to connect, 2 s to flush, 1 s to wait for room, 1,024 packets and 8 MiB each way.
    #[must_use]
    pub fn new(endpoint: Url, user: UserId, room: RoomId) -> Self {
        let queue = QueueBounds { packets: 1024, bytes: 8 * 1024 * 1024 };
        Self {
            endpoints: vec![endpoint],
            user,
            room,
            dialect: Dialect::Seed,
            trust: ClientTrust::SystemRoots,
            reconnect: ReconnectPolicy::default(),
            notices: true,
            keep_alive: KeepAlive::default(),
            connect_timeout: Duration::from_secs(10),
            flush_timeout: Duration::from_secs(2),
            send_timeout: Duration::from_secs(1),
            send_queue: queue,
            receive_queue: queue,
        }
    }

    /// Checks everything that can be checked without connecting. Returns the URL to join at for each endpoint.
    pub(crate) fn validate(&self) -> Result<Vec<Url>, OptionsError> {
        if self.endpoints.is_empty() {
            return Err(OptionsError::NoEndpoint);
        }
        self.reconnect.validate()?;
        if self.keep_alive.every.is_zero() || self.keep_alive.every >= self.keep_alive.dead_after {
            return Err(OptionsError::KeepAlive);
        }
        for queue in [self.send_queue, self.receive_queue] {
            if queue.packets == 0 || queue.bytes == 0 {
                return Err(OptionsError::Queue);
            }
        }
        let target = Lobby { user: self.user.clone(), room: self.room.clone() }.target();
        self.endpoints.iter().map(|endpoint| join_url(endpoint, &target)).collect()
    }
}

fn join_url(endpoint: &Url, target: &str) -> Result<Url, OptionsError> {
    if !matches!(endpoint.scheme(), "ws" | "wss" | "https") {
        return Err(OptionsError::Scheme(endpoint.clone()));
    }
    if endpoint.host_str().is_none_or(str::is_empty) || endpoint.query().is_some() || endpoint.fragment().is_some() {
        return Err(OptionsError::Endpoint(endpoint.clone()));
    }
    let mut url = endpoint.clone();
    url.set_path(&format!("{}{target}", endpoint.path().trim_end_matches('/')));
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(endpoint: &str, user: &str, room: &str) -> ClientOptions {
        ClientOptions::new(endpoint.parse().unwrap(), UserId::parse(user).unwrap(), RoomId::parse(room).unwrap())
    }

    #[test]
    fn the_lobby_is_asked_for_with_encoded_names() {
        for (endpoint, user, room) in [
            ("ws://127.0.0.1:8080", "alice", "demo"),
            ("wss://node.example", "alice@example.com", "a.b-c_d"),
            ("https://[::1]:4433/", "50%+ x", "the room"),
        ] {
            let urls = options(endpoint, user, room).validate().unwrap();
            let lobby = Lobby::parse(urls[0].path()).unwrap();
            assert_eq!((lobby.user.as_str(), lobby.room.as_str()), (user, room));
            assert!(urls[0].as_str().starts_with(endpoint), "{}", urls[0]);
        }
        let behind_a_path = options("ws://host/calls/", "a", "b").validate().unwrap();
        assert_eq!(behind_a_path[0].as_str(), "ws://host/calls/lobby/a/b");
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_starts() {
        for (endpoint, starts) in [
            ("http://host", "http://host/: an endpoint starts with ws://"),
            ("ws://host/?token=x", "ws://host/?token=x: an endpoint is a scheme"),
        ] {
            let error = options(endpoint, "a", "b").validate().unwrap_err().to_string();
            assert!(error.starts_with(starts), "{error}");
        }
        let mut none = options("ws://host", "a", "b");
        none.endpoints.clear();
        assert_eq!(none.validate(), Err(OptionsError::NoEndpoint));
        let mut silent = options("ws://host", "a", "b");
        silent.keep_alive.every = silent.keep_alive.dead_after;
        assert_eq!(silent.validate(), Err(OptionsError::KeepAlive));
        let mut queueless = options("ws://host", "a", "b");
        queueless.receive_queue.packets = 0;
        assert_eq!(queueless.validate(), Err(OptionsError::Queue));
        let mut impatient = options("ws://host", "a", "b");
        impatient.reconnect.initial = Duration::ZERO;
        assert_eq!(impatient.validate(), Err(OptionsError::Reconnect(PolicyError::Initial)));
    }
}
