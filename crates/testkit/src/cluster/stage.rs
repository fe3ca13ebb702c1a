//! The stage: brokers, nodes, and between every node and every broker a network of its own. What does not live here: what
//! happens on it.

use std::path::Path;
use std::time::Duration;

use roomcast_bus::testing::{BrokerCluster, BrokerOptions};
use url::Url;

use super::process::NodeProcess;
use super::proxy::Proxy;
use crate::node_box::Via;

/// How long all of it may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster.
pub struct Stage {
    /// The brokers.
    pub brokers: BrokerCluster,
    /// By node and broker: the way between them.
    pub network: Vec<Vec<Proxy>>,
    /// The nodes.
    pub nodes: Vec<NodeProcess>,
}

impl Stage {
    /// Starts so many brokers and nodes and waits until every node is ready. All nodes have the settings given.
    ///
    /// # Panics
    /// When something does not start: a test cannot go on.
    pub async fn start(program: &Path, nodes: usize, brokers: usize, seed: u64, settings: &[String]) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        // Nodes must not be told of ways around their network.
        let options = BrokerOptions { advertise: false, ..BrokerOptions::default() };
        let brokers = BrokerCluster::start(brokers, &options).await;
        let ways = || -> Vec<Proxy> {
            let targets = brokers.brokers.iter().map(|broker| ([127, 0, 0, 1], broker.port()).into());
            targets.map(|target| Proxy::start(target, random.u64(..))).collect()
        };
        let network: Vec<Vec<Proxy>> = std::iter::repeat_with(ways).take(nodes).collect();
        let mut started = Vec::new();
        for (index, ways) in network.iter().enumerate() {
            let urls: Vec<String> = ways.iter().map(|way| format!("\"nats://{}\"", way.address())).collect();
            let mut settings = settings.to_vec();
            settings.extend(["bus.kind=nats".to_owned(), format!("bus.nats.urls=[{}]", urls.join(", "))]);
            started.push(NodeProcess::start(program, &name(index), &settings).await);
        }
        for node in &started {
            node.becomes_ready(PATIENCE).await;
        }
        Self { brokers, network, nodes: started }
    }

    /// Where clients connect, by node and transport.
    #[must_use]
    pub fn endpoints(&self) -> Vec<[Url; 2]> {
        self.nodes.iter().map(|node| Via::ALL.map(|via| node.endpoint(via))).collect()
    }

    /// The broker that a node is connected to.
    #[must_use]
    pub fn broker_of(&self, node: usize) -> Option<usize> {
        self.network[node].iter().position(|way| way.connections() > 0)
    }
}

/// A node's name.
#[must_use]
pub fn name(index: usize) -> String {
    format!("node-{index}")
}
