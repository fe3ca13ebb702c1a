//! The suite that every bus passes, with each version of the broker, and with a node on each of three brokers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use roomcast_bus::nats::{NatsBus, NatsOptions};
use roomcast_bus::testing::{self, BrokerCluster, BrokerOptions, BrokerVersion};
use roomcast_bus::{BufferLimits, Bus, conformance};

use crate::common::publish_foreign;

/// What each subscription's buffer holds, and what else may be on its way to it.
const PACKETS: usize = 96;
const ON_THE_WAY: usize = 32;

struct Meeting {
    urls: Vec<String>,
    next: AtomicUsize,
    _brokers: Vec<testing::Broker>,
}

impl Meeting {
    fn new(brokers: Vec<testing::Broker>) -> Self {
        let urls = brokers.iter().map(testing::Broker::url).collect();
        Self { urls, next: AtomicUsize::new(0), _brokers: brokers }
    }

    fn url(&self) -> &String {
        &self.urls[self.next.fetch_add(1, Ordering::Relaxed) % self.urls.len()]
    }
}

impl conformance::Broker for Meeting {
    /// Each on the next broker.
    async fn join(&self) -> Arc<dyn Bus> {
        let incoming = BufferLimits { packets: PACKETS, bytes: 1 << 20 };
        NatsBus::start(NatsOptions { incoming, ..NatsOptions::new(vec![self.url().clone()]) }).unwrap()
    }

    /// By way of the first node's broker, so that the way is open once that node is heard.
    async fn publish_foreign(&self, subject: &str, payload: Bytes) {
        publish_foreign(&self.urls[0], subject, payload).await;
    }

    fn buffer_packets(&self) -> usize {
        PACKETS + ON_THE_WAY
    }
}

async fn one(version: BrokerVersion) -> Meeting {
    Meeting::new(vec![testing::Broker::start(&BrokerOptions::of(version)).await])
}

mod debian {
    use roomcast_bus::testing::BrokerVersion;
    roomcast_bus::bus_conformance!(super::one(BrokerVersion::Debian).await);
}

mod current {
    use roomcast_bus::testing::BrokerVersion;
    roomcast_bus::bus_conformance!(super::one(BrokerVersion::Current).await);
}

mod cluster {
    use super::*;

    async fn three() -> Meeting {
        Meeting::new(BrokerCluster::start(3, &BrokerOptions::default()).await.brokers)
    }

    roomcast_bus::bus_conformance!(three().await);
}
