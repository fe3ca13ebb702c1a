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

    // All but `unsubscribes_when_dropped`: what one node has heard may still be on its way to another's broker, and then
    // reaches a subscription that is made there meanwhile.
    roomcast_bus::bus_conformance!(
        three().await,
        is_up_once_joined,
        delivers_to_every_other_node_with_its_sender,
        accepts_what_nobody_subscribes_to,
        does_not_echo,
        keeps_each_publishers_order,
        keeps_rooms_apart_whatever_their_names,
        bounds_the_buffer_and_counts_the_loss,
        loses_nothing_when_a_wait_is_given_up,
        subscribes_once_per_room,
        ends_its_subscriptions_when_closed,
        takes_foreign_sender_tokens,
        sends_messages_to_the_inboxes_of_all_other_nodes,
        receives_by_wildcard_and_keeps_subjects_apart,
        sends_a_rooms_events_to_its_subscriptions,
        keeps_rooms_out_of_inboxes,
        bounds_an_inbox_and_counts_the_loss,
        ends_inboxes_when_dropped_and_when_closed
    );
}
