//! Where a namespace is not permitted: a TCP proxy with as little buffer as the system allows, which passes what comes from the
//! target no faster than it is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// What the system may hold for the proxy's socket towards the target; it doubles that.
const RECEIVE_BUFFER: u32 = 4 * 1024;
/// What passes at once.
const PIECE: usize = 512;

/// One connection's worth of a thin link.
#[derive(Debug)]
pub struct Narrow {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Narrow {
    /// Listens on a port from the system, for one connection to the target.
    ///
    /// # Panics
    /// When it cannot listen: a test cannot go on.
    #[must_use]
    pub fn start(target: SocketAddr, kilobits: u32) -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("the system has a socket");
        listener.set_nonblocking(true).expect("a new socket can be set");
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("the system has a port");
        listener.listen(1).expect("a bound socket listens");
        let listener = TcpListener::from_std(listener.into()).expect("it is a socket");
        let address = listener.local_addr().expect("a bound socket has an address");
        let task = tokio::spawn(async move {
            // An end of either side is the end of the test's interest.
            let _ = pass(listener, target, kilobits).await;
        });
        Self { address, task }
    }

    /// Where to connect instead.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(listener: TcpListener, target: SocketAddr, kilobits: u32) -> std::io::Result<()> {
    let (near, _) = listener.accept().await?;
    let socket = TcpSocket::new_v4()?;
    // Before it connects, since that is when the window is decided.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    let far: TcpStream = socket.connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    SockRef::from(&near).set_send_buffer_size(PIECE)?;
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let up = copy(&mut near_read, &mut far_write);
    let down = async {
        let mut piece = [0; PIECE];
        let mut free = Instant::now();
        loop {
            let length = far_read.read(&mut piece).await?;
            if length == 0 {
                return std::io::Result::Ok(());
            }
            let takes = Duration::from_secs_f64(length as f64 * 8.0 / f64::from(kilobits) / 1_000.0);
            free = free.max(Instant::now()) + takes;
            sleep_until(free).await;
            near_write.write_all(&piece[..length]).await?;
        }
    };
    tokio::select! {
        ended = up => ended.map(|_| ()),
        ended = down => ended,
    }
}
