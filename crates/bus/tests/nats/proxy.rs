//! A way to the broker that can be held up and cut while the broker stays well.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// One value, so that no connection that is to be cut is read once more before.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    /// How often all connections were cut.
    cuts: u64,
    /// Whether what clients send is left unread.
    stalled: bool,
}

/// Carries connections to one port until it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = watch::Sender::new(State { cuts: 0, stalled: false });
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let state = state.subscribe();
            async move {
                let mut connections = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    connections.spawn(carry(client, port, state.clone()));
                }
            }
        });
        Self { address, state, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// From now on nothing that clients send is read.
    pub(crate) fn stall(&self) {
        self.state.send_modify(|state| state.stalled = true);
    }

    /// Ends all connections, and what waits in them; new ones are carried.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| *state = State { cuts: state.cuts + 1, stalled: false });
    }
}

async fn carry(client: TcpStream, port: u16, mut state: watch::Receiver<State>) {
    let mine = State { cuts: state.borrow().cuts, stalled: false };
    let mut until_cut = state.clone();
    let Ok(broker) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let ((mut from_client, mut to_client), (mut from_broker, mut to_broker)) =
        (client.into_split(), broker.into_split());
    let there = async {
        let mut bytes = vec![0; 4_096];
        while state.wait_for(|state| *state == mine).await.is_ok() {
            match from_client.read(&mut bytes).await {
                Ok(length) if length > 0 => {
                    // What was read just before a stall goes nowhere either.
                    let goes = *state.borrow() == mine;
                    if goes && to_broker.write_all(&bytes[..length]).await.is_err() {
                        break;
                    }
                }
                _ => break,
            }
        }
    };
    let back = tokio::io::copy(&mut from_broker, &mut to_client);
    tokio::select! {
        () = there => {}
        _ = back => {}
        _ = until_cut.wait_for(|state| state.cuts != mine.cuts) => {}
    }
}
