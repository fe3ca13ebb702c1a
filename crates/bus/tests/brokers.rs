//! The fixture itself: brokers that start, die, freeze and come back at the same ports, in both versions.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use roomcast_bus::testing::{Broker, BrokerCluster, BrokerOptions, BrokerVersion};

/// Connects as a client and returns what the broker says first.
fn greeting(broker: &Broker) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", broker.port()))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut bytes = [0; 4096];
    let length = stream.read(&mut bytes)?;
    // Leaves in order, so that no handshake is pending.
    stream.write_all(b"CONNECT {\"verbose\":false,\"name\":\"greeting\"}\r\nPING\r\n")?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

#[tokio::test]
async fn a_broker_of_each_version_comes_back_at_its_port_after_it_was_killed() {
    for version in BrokerVersion::ALL {
        let mut broker = Broker::start(&BrokerOptions { max_payload: 123_456, ..BrokerOptions::of(version) }).await;
        let (url, port) = (broker.url(), broker.port());
        let says = greeting(&broker).unwrap();
        assert!(says.contains("\"max_payload\":123456"), "{says}");
        let expected = if version == BrokerVersion::Debian { "\"version\":\"2.9." } else { "\"version\":\"2.1" };
        assert!(says.contains(expected), "{says}");
        broker.kill();
        assert!(greeting(&broker).is_err(), "a killed broker takes nobody");
        broker.restart().await;
        assert_eq!((broker.url(), broker.port()), (url, port));
        assert!(greeting(&broker).is_ok());
    }
}

#[tokio::test]
async fn a_frozen_broker_says_nothing_until_it_is_thawed() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    broker.freeze();
    let mut stream = TcpStream::connect(("127.0.0.1", broker.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(stream.read(&mut [0; 8]).is_err(), "the kernel accepts, the broker does not answer");
    broker.thaw();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut begin = [0; 4];
    stream.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"INFO");
}

#[tokio::test]
async fn a_broker_counts_what_a_client_publishes_by_its_name() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let mut stream = TcpStream::connect(("127.0.0.1", broker.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
        .write_all(b"CONNECT {\"verbose\":false,\"name\":\"counted\"}\r\nSUB a 1\r\nPUB a 3\r\nabc\r\nPING\r\n")
        .unwrap();
    let mut heard = String::new();
    while !heard.contains("PONG") {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).unwrap();
        heard.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    let counters = broker.counters().await;
    assert_eq!((counters.in_msgs, counters.in_bytes, counters.out_msgs, counters.out_bytes), (1, 3, 1, 3));
    let client = counters.of("counted").unwrap();
    assert_eq!((client.in_msgs, client.out_msgs, client.subscriptions), (1, 1, 1));
    assert_eq!(counters.of("nobody"), None);
}

#[tokio::test]
async fn a_cluster_of_each_version_forms_and_takes_back_one_that_was_killed() {
    for version in BrokerVersion::ALL {
        let mut cluster = BrokerCluster::start(3, &BrokerOptions::of(version)).await;
        assert_eq!(cluster.urls().len(), 3);
        for index in [0, 2] {
            cluster.brokers[index].kill();
            cluster.formed().await;
            cluster.brokers[index].restart().await;
            cluster.formed().await;
        }
    }
}

#[tokio::test]
async fn a_broker_with_tls_says_so_and_has_an_authority() {
    let broker = Broker::start(&BrokerOptions { tls: true, ..BrokerOptions::default() }).await;
    assert!(broker.url().starts_with("tls://"));
    assert!(broker.ca_pem().contains("BEGIN CERTIFICATE"));
    assert!(greeting(&broker).unwrap().contains("\"tls_required\":true"));
}

#[tokio::test]
async fn a_broker_dies_with_whoever_holds_it() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let port = broker.port();
    drop(broker);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}
