//! A way to the broker that can be held up and cut while the broker stays well.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Carries connections to one port until it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    /// Whether what the client sends is read.
    reads: watch::Sender<bool>,
    /// How often all connections were cut.
    cuts: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (reads, cuts) = (watch::Sender::new(true), watch::Sender::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (reads, cuts) = (reads.subscribe(), cuts.subscribe());
            async move {
                let mut connections = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    connections.spawn(carry(client, port, reads.clone(), cuts.clone()));
                }
            }
        });
        Self { address, reads, cuts, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// From now on nothing that clients send is read.
    pub(crate) fn stall(&self) {
        self.reads.send_replace(false);
    }

    /// Ends all connections, and what waits in them; new ones are carried.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
        self.reads.send_replace(true);
    }
}

async fn carry(client: TcpStream, port: u16, mut reads: watch::Receiver<bool>, mut cuts: watch::Receiver<u64>) {
    cuts.mark_unchanged();
    let Ok(broker) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let ((mut from_client, mut to_client), (mut from_broker, mut to_broker)) =
        (client.into_split(), broker.into_split());
    let there = async {
        let mut bytes = vec![0; 4_096];
        while reads.wait_for(|reads| *reads).await.is_ok() {
            match from_client.read(&mut bytes).await {
                // What was read just before the stall goes nowhere either.
                Ok(length) if length > 0 && *reads.borrow() => {
                    if to_broker.write_all(&bytes[..length]).await.is_err() {
                        break;
                    }
                }
                Ok(length) if length > 0 => {}
                _ => break,
            }
        }
    };
    let back = tokio::io::copy(&mut from_broker, &mut to_client);
    tokio::select! {
        () = there => {}
        _ = back => {}
        _ = cuts.changed() => {}
    }
}
