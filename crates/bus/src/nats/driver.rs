//! The task that carries the bus: reaches a broker, lets an epoch run, starts over. What lives here: which broker is tried when. What does
//! not: a connection's life (`epoch`).

use std::time::Duration;

use roomcast_protocol::MAX_PACKET_BYTES;
use tokio::time::{Instant, sleep};

use super::Shared;
use super::epoch::{self, Connection, Ended};
use super::options::Address;
use super::reports::Trouble;

/// The most brokers that are learned from another.
const MOST_LEARNED: usize = 64;

/// A connection that held for so long begins a new series of waits.
const STEADY: Duration = Duration::from_secs(2);

/// Bytes that a broker should take beyond the largest packet: what the router appends to it, and room to spare.
const PAYLOAD_MARGIN: usize = 1_024;

/// Ends only when the bus is closed.
pub(super) async fn drive(shared: &std::sync::Arc<Shared>) {
    let mut brokers = Brokers::new(shared.addresses.clone());
    let mut trouble = Trouble::default();
    let mut failures = 0;
    loop {
        tokio::select! {
            () = shared.told_to_close() => return,
            reached = reach(shared, &brokers, &mut trouble) => {
                if let Some(connection) = reached {
                    greet(&connection);
                    trouble = Trouble::default();
                    brokers.learn(&connection);
                    let begun = Instant::now();
                    let address = connection.address().clone();
                    // Not given up half way: it ends by itself when the bus is to close.
                    let ended = Box::pin(epoch::run(shared, connection, brokers.knows_others_than(&address))).await;
                    if matches!(ended, Ended::Closed) {
                        return;
                    }
                    tracing::warn!(broker = address.url(), "the bus lost its broker: {ended}");
                    brokers.lost = Some(address);
                    if begun.elapsed() >= STEADY {
                        failures = 0;
                    }
                }
            }
        }
        let wait = shared.options.backoff.wait(failures, fastrand::f64());
        failures = failures.saturating_add(1);
        tokio::select! {
            () = shared.told_to_close() => return,
            () = sleep(wait) => {}
        }
    }
}

/// Tries each broker once.
async fn reach(shared: &Shared, brokers: &Brokers, trouble: &mut Trouble) -> Option<Connection> {
    for address in brokers.round() {
        match Box::pin(epoch::connect(shared, &address)).await {
            Ok(connection) => return Some(connection),
            Err(error) => trouble.report(&address.url(), &error),
        }
    }
    None
}

/// Says what was reached, and what is wrong with it.
fn greet(connection: &Connection) {
    let info = connection.info();
    let (name, version, cluster) = (&info.server_name, &info.version, info.cluster.as_deref().unwrap_or("none"));
    tracing::info!(broker = connection.address().url(), name, version, cluster, "the bus reached a broker");
    let needed = MAX_PACKET_BYTES + PAYLOAD_MARGIN;
    if info.max_payload < needed {
        tracing::warn!(
            broker = connection.address().url(),
            "the broker takes messages of {} bytes at most, so larger packets do not reach other nodes: set `max_payload` in \
             nats-server's configuration to {needed} or more (8MB is recommended)",
            info.max_payload
        );
    }
}

/// The brokers that are known.
struct Brokers {
    own: Vec<Address>,
    /// What the last one that was reached told of its cluster.
    learned: Vec<Address>,
    /// The one that was lost last, which is tried last.
    lost: Option<Address>,
}

impl Brokers {
    fn new(own: Vec<Address>) -> Self {
        Self { own, learned: Vec::new(), lost: None }
    }

    fn learn(&mut self, connection: &Connection) {
        let told = connection.info().connect_urls.iter().take(MOST_LEARNED);
        self.learned = told.filter_map(|url| connection.address().sibling(url)).collect();
    }

    /// Each broker once, in a random order.
    fn round(&self) -> Vec<Address> {
        let mut round: Vec<Address> = Vec::new();
        for address in self.own.iter().chain(&self.learned) {
            if !round.iter().any(|other| other.is_same_broker(address)) {
                round.push(address.clone());
            }
        }
        fastrand::shuffle(&mut round);
        if let Some(lost) = &self.lost {
            round.sort_by_key(|address| address.is_same_broker(lost));
        }
        round
    }

    fn knows_others_than(&self, address: &Address) -> bool {
        self.own.iter().chain(&self.learned).any(|other| !other.is_same_broker(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::NatsOptions;

    #[test]
    fn a_round_has_each_broker_once_and_the_lost_one_last() {
        let urls = ["nats://a:1", "nats://b:1", "tls://c:1"].map(str::to_owned).to_vec();
        let own = NatsOptions::new(urls).addresses().unwrap();
        let lost = own[1].clone();
        let learned = ["b:1", "d:1"].map(|url| own[0].sibling(url).unwrap()).to_vec();
        let brokers = Brokers { own, learned, lost: Some(lost) };
        let mut firsts = std::collections::HashSet::new();
        for _ in 0..200 {
            let round: Vec<String> = brokers.round().iter().map(Address::url).collect();
            assert_eq!((round.len(), round[3].as_str()), (4, "nats://b:1"));
            firsts.insert(round[0].clone());
        }
        assert_eq!(firsts.len(), 3, "any of the others is first at times");
    }
}
