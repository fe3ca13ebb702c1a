//! Every figure that this node shows, as handles made once: counting costs an atomic add and never a look-up.
//!
//! The recorder belongs to the node, not to the process, so that two nodes in one process count apart. Labels are
//! bounded: a transport, a class, a reason, a code; never a room, a user or a session.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use roomcast_protocol::{Class, CloseCode};
use roomcast_relay::DropReason;
use roomcast_supervision::ActorState;

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One binary message per packet.
    WebSocket,
    /// One unidirectional stream or datagram per packet.
    WebTransport,
}

impl Transport {
    /// All transports, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::WebSocket, Self::WebTransport];

    /// The value of the metrics label `transport`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::WebTransport => "webtransport",
        }
    }
}

/// What one transport's connections count.
pub struct TransportMetrics {
    /// Open connections.
    pub connections: Gauge,
    /// Packets received, by class.
    packets_in: Vec<Counter>,
    /// Bytes received.
    bytes_in: Counter,
    /// Packets written to sockets, by class.
    packets_out: Vec<Counter>,
    /// Bytes written to sockets.
    bytes_out: Counter,
}

/// All of the node's metrics.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    transports: Vec<TransportMetrics>,
    drops: Vec<Counter>,
    /// Packets that waited when a writer came for them.
    pub egress_depth: Histogram,
    /// From the read of a packet to the write to a receiver's socket, the oldest packet of each batch.
    pub delivery_delay: Histogram,
    /// Rooms on this node.
    pub rooms: Gauge,
    /// Members of all rooms on this node.
    pub members: Gauge,
    /// Messages waiting in all mailboxes.
    pub mailbox_depth: Gauge,
    /// Bytes waiting in all egress queues.
    pub buffered_bytes: Gauge,
    /// 1 for the state that the bus is in.
    pub bus_states: Vec<(roomcast_bus::BusState, Gauge)>,
    /// Packets handed to the bus.
    pub bus_publishes: Counter,
    /// Packets received from the bus.
    pub bus_deliveries: Counter,
    /// Connections made to the broker.
    pub bus_connections: Counter,
    /// Times that this node, or a subscription of it, was too slow for the broker.
    pub bus_slow: Counter,
    /// Publications and subscriptions that the broker did not permit.
    pub bus_refused: Counter,
    /// The number of the settings in force, from 1.
    pub config_generation: Gauge,
    /// Configurations that were refused.
    pub config_rejections: Counter,
    /// Keys that differ in the configuration and wait for a restart.
    pub config_waiting: Gauge,
    /// When a configuration was last read and found good, in seconds since 1970; 0 before the first.
    pub config_read: Gauge,
    /// Events that followers of `/events` were too slow for.
    pub events_missed: Counter,
    /// Reports of actors that run without an await.
    pub stuck: Counter,
    /// The number of actors in each of [`ActorState::ALL`].
    actors: Vec<Gauge>,
    /// Time from an actor's crash to its next incarnation's running.
    pub recovery: Histogram,
    /// Nodes seen on the bus, this one included.
    pub nodes: Gauge,
    /// Of those, the ones that speak the other dialect.
    pub nodes_refused: Gauge,
    /// Of those, the ones whose name another one has too.
    pub nodes_conflicting: Gauge,
    /// Nodes that fell silent.
    pub nodes_lost: Counter,
    /// Members of all rooms on all nodes, as far as this one knows.
    pub cluster_members: Gauge,
    /// Messages between nodes that made no sense.
    pub cluster_refused: Counter,
}

const META: Metadata<'static> = Metadata::new("roomcast", Level::INFO, None);

impl Metrics {
    /// Makes all handles; `node` and `version` are for `roomcast_build_info`.
    ///
    /// # Panics
    /// Never: the buckets are constants and not empty.
    #[must_use]
    pub fn new(version: &str, dialect: &str) -> Self {
        const DELAYS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];
        // From a restart at once to one after a long backoff, dense around the promised 50 ms.
        const RECOVERIES: [f64; 15] =
            [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 10.0];
        const DEPTHS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &DELAYS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Full("roomcast_actor_recovery_seconds".into()), &RECOVERIES)
            })
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_packets".into()), &DEPTHS))
            .expect("the buckets are constants and not empty")
            .build_recorder();
        let handle = recorder.handle();
        let make = Maker(&recorder);
        let transports = Transport::ALL.map(|transport| make.transport(transport)).into();
        let drops = DropReason::ALL
            .iter()
            .map(|reason| {
                make.counter("roomcast_drops_total", "Packets not delivered, by reason", &[("reason", reason.label())])
            })
            .collect();
        use roomcast_bus::BusState;
        let bus_states = [
            (BusState::Connecting, "connecting"),
            (BusState::Up, "up"),
            (BusState::Down, "down"),
            (BusState::Closed, "closed"),
        ]
        .map(|(state, label)| (state, make.gauge("roomcast_bus_state", "1 for the bus's state", &[("state", label)])))
        .into();
        let build = [("version", version), ("dialect", dialect)];
        make.gauge("roomcast_build_info", "What is running; always 1", &build).set(1.0);
        let this = Self {
            transports,
            drops,
            egress_depth: make.histogram(
                "roomcast_egress_queue_packets",
                "Packets that waited when a connection's writer came for them",
            ),
            delivery_delay: make.histogram(
                "roomcast_delivery_delay_seconds",
                "From a packet's arrival to its write to a receiver's socket, the oldest of each batch",
            ),
            rooms: make.gauge("roomcast_rooms", "Rooms on this node", &[]),
            members: make.gauge("roomcast_members", "Members of all rooms on this node", &[]),
            mailbox_depth: make.gauge("roomcast_mailbox_depth", "Messages waiting in all mailboxes", &[]),
            buffered_bytes: make.gauge("roomcast_buffered_bytes", "Bytes waiting in all egress queues", &[]),
            bus_states,
            bus_publishes: make.counter("roomcast_bus_publishes_total", "Packets handed to the bus", &[]),
            bus_deliveries: make.counter("roomcast_bus_deliveries_total", "Packets received from the bus", &[]),
            bus_connections: make.counter(
                "roomcast_bus_connections_total",
                "Connections made to the broker, the first included",
                &[],
            ),
            bus_slow: make.counter("roomcast_bus_slow_total", "Times that this node was too slow for the broker", &[]),
            bus_refused: make.counter(
                "roomcast_bus_refused_total",
                "Publications and subscriptions that the broker did not permit",
                &[],
            ),
            config_generation: make.gauge("roomcast_config_generation", "The settings in force, from 1", &[]),
            config_rejections: make.counter("roomcast_config_rejections_total", "Configurations refused", &[]),
            config_waiting: make.gauge("roomcast_config_waiting", "Changed keys that wait for a restart", &[]),
            config_read: make.gauge(
                "roomcast_config_last_good_timestamp_seconds",
                "When a configuration was last read and found good, since 1970",
                &[],
            ),
            recovery: make.histogram(
                "roomcast_actor_recovery_seconds",
                "From an actor's crash to its next incarnation's running",
            ),
            stuck: make.counter(
                "roomcast_actors_stuck_total",
                "Reports of actors that ran without an await for a second or more",
                &[],
            ),
            events_missed: make.counter(
                "roomcast_events_missed_total",
                "Events that followers of /events were too slow for",
                &[],
            ),
            actors: ActorState::ALL
                .map(|state| {
                    let label = ("state", state.as_str());
                    make.gauge("roomcast_actors", "Actors of the tree, by state", &[label])
                })
                .into(),
            nodes: make.gauge("roomcast_nodes", "Nodes seen on the bus, this one included", &[]),
            nodes_refused: make.gauge("roomcast_nodes_refused", "Nodes seen that speak the other dialect", &[]),
            nodes_conflicting: make.gauge("roomcast_nodes_conflicting", "Nodes seen that share a name", &[]),
            nodes_lost: make.counter("roomcast_nodes_lost_total", "Nodes that fell silent", &[]),
            cluster_members: make.gauge(
                "roomcast_cluster_members",
                "Members of all rooms on all nodes, as this one knows them",
                &[],
            ),
            cluster_refused: make.counter(
                "roomcast_cluster_messages_refused_total",
                "Messages between nodes that made no sense",
                &[],
            ),
            handle,
            recorder,
        };
        this.nodes.set(1.0);
        // A counter that is born at 1 hides its first increase from whoever watches its rate.
        for supervisor in ["roomcast", "bus", "flushers", "rooms", "rooms/*", "connections", "listeners"] {
            this.escalations(supervisor).increment(0);
        }
        this
    }

    /// Sets the number of actors in each state.
    pub fn actors_are(&self, counts: impl IntoIterator<Item = (ActorState, usize)>) {
        for (state, count) in counts {
            if let Some(place) = ActorState::ALL.iter().position(|each| *each == state) {
                self.actors[place].set(count as f64);
            }
        }
    }

    /// One transport's figures.
    #[must_use]
    pub fn transport(&self, transport: Transport) -> &TransportMetrics {
        &self.transports[transport as usize]
    }

    /// Counts packets that some receiver did not get.
    pub fn dropped(&self, reason: DropReason, packets: u64) {
        self.drops[reason as usize].increment(packets);
    }

    /// Counts a connection's end by the code that its client was told; `None`: there was nobody to tell.
    pub fn closed(&self, code: Option<CloseCode>) {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.number().to_string());
        self.counter("roomcast_closes_total", "Connections ended, by close code", &[("code", code)]).increment(1);
    }

    /// Counts a handshake that did not become a connection.
    pub fn refused(&self, transport: Transport, answer: &'static str) {
        let labels = [("transport", transport.label().to_owned()), ("answer", answer.to_owned())];
        self.counter("roomcast_handshakes_refused_total", "Handshakes that became no connection", &labels).increment(1);
    }

    /// Counts an actor's crash.
    pub fn crashed(&self, supervisor: &str, reason: &'static str) {
        let labels = [("supervisor", supervisor.to_owned()), ("reason", reason.to_owned())];
        self.counter("roomcast_actor_crashes_total", "Actors that crashed, by their supervisor", &labels).increment(1);
    }

    /// Counts a restart, by the kind of the supervisor and why the incarnation before ended.
    pub fn restarted(&self, supervisor: &str, reason: &'static str) {
        let labels = [("supervisor", supervisor.to_owned()), ("reason", reason.to_owned())];
        self.counter("roomcast_actor_restarts_total", "Restarts, by supervisor and reason", &labels).increment(1);
    }

    /// Counts a supervisor that gave up.
    pub fn escalated(&self, supervisor: &str) {
        self.escalations(supervisor).increment(1);
    }

    fn escalations(&self, supervisor: &str) -> Counter {
        let labels = [("supervisor", supervisor.to_owned())];
        self.counter("roomcast_escalations_total", "Supervisors that gave up", &labels)
    }

    /// Counts a listener's trouble with accepting.
    pub fn accept_failed(&self, transport: Transport) {
        let labels = [("transport", transport.label().to_owned())];
        self.counter("roomcast_accept_failures_total", "Failed accepts", &labels).increment(1);
    }

    /// Counts WebTransport streams that were given up on.
    pub fn streams_abandoned(&self, reason: &'static str, streams: u64) {
        let labels = [("reason", reason.to_owned())];
        self.counter("roomcast_streams_abandoned_total", "Incoming streams given up on", &labels).increment(streams);
    }

    /// All figures in Prometheus's text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds what histograms gathered since the last call; bounds their memory. Called every few seconds.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Counts one batch written to one receiver.
    pub fn batch_written(&self, transport: Transport, batch: &[roomcast_protocol::Packet], oldest: Duration) {
        let mut by_class = [0_u64; Class::ALL.len()];
        let mut bytes = 0;
        for packet in batch {
            by_class[packet.tag().class as usize] += 1;
            bytes += packet.payload().len() as u64;
        }
        let figures = self.transport(transport);
        for (counter, count) in figures.packets_out.iter().zip(by_class) {
            if count > 0 {
                counter.increment(count);
            }
        }
        figures.bytes_out.increment(bytes);
        self.egress_depth.record(batch.len() as f64);
        self.delivery_delay.record(oldest.as_secs_f64());
    }

    /// For what is rare enough to be looked up each time.
    fn counter(&self, name: &'static str, help: &'static str, labels: &[(&'static str, String)]) -> Counter {
        let labels: Vec<_> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
        Maker(&self.recorder).counter(name, help, &labels)
    }
}

impl TransportMetrics {
    /// Counts one packet read from a client.
    pub fn received(&self, class: Class, bytes: usize) {
        self.packets_in[class as usize].increment(1);
        self.bytes_in.increment(bytes as u64);
    }
}

struct Maker<'a>(&'a PrometheusRecorder);

impl Maker<'_> {
    fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
        let labels: Vec<Label> = labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())).collect();
        Key::from_parts(name, labels)
    }

    fn counter(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.0.describe_counter(name.into(), None, SharedString::const_str(help));
        self.0.register_counter(&Self::key(name, labels), &META)
    }

    fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.0.describe_gauge(name.into(), None, SharedString::const_str(help));
        self.0.register_gauge(&Self::key(name, labels), &META)
    }

    fn histogram(&self, name: &'static str, help: &'static str) -> Histogram {
        let unit = name.ends_with("_seconds").then_some(Unit::Seconds);
        self.0.describe_histogram(name.into(), unit, SharedString::const_str(help));
        self.0.register_histogram(&Self::key(name, &[]), &META)
    }

    fn transport(&self, transport: Transport) -> TransportMetrics {
        let label = ("transport", transport.label());
        let by_class = |name, help| {
            Class::ALL.iter().map(|class| self.counter(name, help, &[label, ("class", class.label())])).collect()
        };
        TransportMetrics {
            connections: self.gauge("roomcast_connections", "Open connections", &[label]),
            packets_in: by_class("roomcast_packets_in_total", "Packets received from clients"),
            bytes_in: self.counter("roomcast_bytes_in_total", "Bytes received from clients", &[label]),
            packets_out: by_class("roomcast_packets_out_total", "Packets written to clients"),
            bytes_out: self.counter("roomcast_bytes_out_total", "Bytes written to clients", &[label]),
        }
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
