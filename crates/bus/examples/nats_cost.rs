//! What a packet costs on the NATS bus, beside the client library alone: `cargo run --release -p roomcast-bus --example nats_cost`.
//!
//! Prints wall time per publish call, and this process' CPU time per packet from the call to the reader (both ends are in this process;
//! the broker's own CPU is not in it). Bursts are small enough that nothing is dropped, and each is read before the next.

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use roomcast_bus::nats::{NatsBus, NatsOptions};
use roomcast_bus::testing::{Broker, BrokerOptions};
use roomcast_bus::{Bus, BusState, Published};
use roomcast_protocol::{Class, PacketBuffer, RoomId, SessionId, Tag};

const BURST: usize = 256;
const BURSTS: usize = 800;
const PAYLOAD: [u8; 1_200] = [7; 1_200];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = Broker::start(&BrokerOptions::default()).await;
    for round in ["warm up", "measured"] {
        bus(&broker, round).await?;
        plain(&broker, round).await?;
    }
    Ok(())
}

async fn bus(broker: &Broker, round: &str) -> Result<(), Box<dyn Error>> {
    let (from, to) =
        (NatsBus::start(NatsOptions::new(vec![broker.url()]))?, NatsBus::start(NatsOptions::new(vec![broker.url()]))?);
    for bus in [&from, &to] {
        bus.state().wait_for(|state| *state == BusState::Up).await?;
    }
    let room = RoomId::parse("cost")?;
    let mut subscription = to.subscribe(&room).await?;
    let mut buffer = PacketBuffer::new();
    buffer.extend(&PAYLOAD);
    let packet = buffer.seal(Tag { sender: SessionId(1), class: Class::Audio, flow: 0 }, None);
    // Until the way is open.
    while tokio::time::timeout(Duration::from_millis(50), subscription.next()).await.is_err() {
        from.publish(&room, &packet);
    }
    while tokio::time::timeout(Duration::from_millis(100), subscription.next()).await.is_ok() {}
    let (cpu, mut calls) = (cpu_time()?, Duration::ZERO);
    for _ in 0..BURSTS {
        let begun = Instant::now();
        for _ in 0..BURST {
            assert_eq!(from.publish(&room, &packet), Published::Sent);
        }
        calls += begun.elapsed();
        for _ in 0..BURST {
            subscription.next().await.ok_or("closed")?;
        }
    }
    report(round, "bus::nats", calls, cpu_time()? - cpu);
    assert_eq!(subscription.take_lost(), 0);
    Ok(())
}

async fn plain(broker: &Broker, round: &str) -> Result<(), Box<dyn Error>> {
    let (from, to) = (async_nats::connect(broker.url()).await?, async_nats::connect(broker.url()).await?);
    let mut subscriber = to.subscribe("room.plain.*").await?;
    let (subject, payload) = (async_nats::Subject::from_static("room.plain.1"), Bytes::from_static(&PAYLOAD));
    while tokio::time::timeout(Duration::from_millis(50), subscriber.next()).await.is_err() {
        from.publish(subject.clone(), payload.clone()).await?;
    }
    while tokio::time::timeout(Duration::from_millis(100), subscriber.next()).await.is_ok() {}
    let (cpu, mut calls) = (cpu_time()?, Duration::ZERO);
    for _ in 0..BURSTS {
        let begun = Instant::now();
        for _ in 0..BURST {
            from.publish(subject.clone(), payload.clone()).await?;
        }
        calls += begun.elapsed();
        for _ in 0..BURST {
            subscriber.next().await.ok_or("closed")?;
        }
    }
    report(round, "async-nats alone", calls, cpu_time()? - cpu);
    Ok(())
}

fn report(round: &str, what: &str, calls: Duration, cpu: Duration) {
    let packets = (BURST * BURSTS) as u32;
    println!(
        "{round}: {what}: {:?} per publish call, {:?} of CPU per packet from end to end",
        calls / packets,
        cpu / packets
    );
}

/// CPU time of all threads of this process, to 10 ms.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(") ").ok_or("no name")?.1.split(' ').collect();
    // utime and stime, in hundredths of a second on every Linux of today.
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
