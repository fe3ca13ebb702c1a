//! What this node tells the others of itself, and what it knows of them, as far as it must outlive the actor that does the
//! talking: the view that `relay` keeps, and the stream from the bus.
//!
//! Joins and leaves come here straight from the rooms, under a lock that is held for a table's entry. The media path
//! comes here for one question, whose answer is an atomic load where all nodes speak one dialect.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use roomcast_bus::{BusState, Inbox};
use roomcast_protocol::{Dialect, SessionId};
use roomcast_relay::cluster::{Cluster, NodeState, OwnNode, OwnStatus, RosterEntry};
use tokio::sync::{Notify, watch};

use super::{Sockets, Store, random};
use crate::config::Settings;
use crate::metrics::Metrics;

/// The node's presence in the cluster.
pub(crate) struct Presence {
    inner: Mutex<Inner>,
    /// Something is to be told.
    pub(crate) due: Notify,
    /// Whether it has been heard who else is there, so that packets may cross.
    settled: watch::Sender<bool>,
    /// Whether there is a node of the other dialect: only then are sessions looked up.
    divided: AtomicBool,
    /// The stream from the bus; whichever incarnation of the actor holds the lock reads it.
    pub(crate) inbox: Arc<tokio::sync::Mutex<Option<Box<dyn Inbox>>>>,
}

/// What changes together.
pub(crate) struct Inner {
    pub(crate) cluster: Cluster,
    /// What the bus was like at the last look.
    pub(crate) bus: BusState,
}

impl Presence {
    /// `settled`: where there is nobody to be heard, nothing needs to wait for it.
    pub(crate) fn new(cluster: Cluster, settled: bool) -> Self {
        Self {
            inner: Mutex::new(Inner { cluster, bus: BusState::Connecting }),
            due: Notify::new(),
            settled: watch::Sender::new(settled),
            divided: AtomicBool::new(false),
            inbox: Arc::default(),
        }
    }

    /// A session of this node is a member of a room.
    pub(crate) fn joined(&self, entry: RosterEntry) {
        self.lock().cluster.joined(entry);
        self.due.notify_one();
    }

    /// It is none any more.
    pub(crate) fn left(&self, session: SessionId) {
        self.lock().cluster.left(session);
        self.due.notify_one();
    }

    /// Whether a session belongs to a node of the other dialect: nobody here could read its packets.
    pub(crate) fn refuses(&self, session: SessionId) -> bool {
        self.divided.load(Ordering::Relaxed) && self.lock().cluster.is_foreign_session(session)
    }

    /// Remembers what is asked for each packet.
    pub(crate) fn set_divided(&self, divided: bool) {
        self.divided.store(divided, Ordering::Relaxed);
    }

    /// It has been heard who else is there.
    pub(crate) fn set_settled(&self) {
        self.settled.send_if_modified(|settled| !std::mem::replace(settled, true));
    }

    /// Whether it has been heard who else is there.
    pub(crate) fn is_settled(&self) -> bool {
        *self.settled.borrow()
    }

    /// Waits until it has been heard who else is there.
    pub(crate) async fn settled(&self) {
        // An error is impossible: the sender is here.
        let _ = self.settled.subscribe().wait_for(|settled| *settled).await;
    }

    /// What is said of this node now.
    pub(crate) fn status(store: &Store) -> OwnStatus {
        OwnStatus {
            state: if store.is_draining() { NodeState::Draining } else { NodeState::Up },
            connections: store.connections() as u64,
            rooms: store.rooms.count() as u64,
            sessions: vec![store.sessions.announced()],
        }
    }

    /// The last word, when the node ends in order: the others need not wait until they miss it.
    pub(crate) fn leave(&self, store: &Store) {
        let mut out = Vec::new();
        self.lock().cluster.leave(&Self::status(store), &mut out);
        for send in out {
            // Where nobody can hear it, silence says the same a little later.
            let _ = store.bus.send(&send.subject, send.payload);
        }
    }

    /// Brings its figures up to date.
    pub(crate) fn collect(&self, metrics: &Metrics) {
        let mut inner = self.lock();
        let (nodes, refused, conflicting) = inner.cluster.counts();
        metrics.nodes.set(nodes as f64);
        metrics.nodes_refused.set(refused as f64);
        metrics.nodes_conflicting.set(conflicting as f64);
        metrics.cluster_members.set(inner.cluster.members() as f64);
        metrics.cluster_refused.increment(inner.cluster.take_malformed());
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this node says of itself as long as it runs.
pub(super) fn own_node(name: &str, dialect: Dialect, settings: &Settings, sockets: &Sockets) -> Cluster {
    let addresses = sockets.addresses;
    let scheme = if sockets.websocket_identity.is_some() { "wss" } else { "ws" };
    let listeners = [
        addresses.websocket.map(|address| format!("{scheme}://{address}")),
        addresses.webtransport.map(|address| format!("https://{address}")),
    ];
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let own = OwnNode {
        name: name.to_owned(),
        // Zero is nobody's.
        instance: random().max(1),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        region: settings.node.region.clone(),
        dialect,
        started_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        listeners: listeners.into_iter().flatten().collect(),
    };
    Cluster::new(own, random())
}
