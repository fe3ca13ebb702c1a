//! A network that can be cut: a TCP proxy between a node and a broker, whose every direction passes, stalls, loses or slows
//! what it carries. What does not live here: what either side says.
//!
//! Bounded: a buffer for each direction of at most [`MAX_CONNECTIONS`] connections; a stalled direction is not read, so the
//! sender's own system stops it. All choices come from a seed.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Connections at a time; whoever comes then is reset and counted.
pub const MAX_CONNECTIONS: usize = 64;
/// What one direction holds at most.
const BUFFER: usize = 16 * 1024;
/// What the system may hold for a socket of the proxy: short, so that a stall is felt soon.
const SOCKET_BUFFER: usize = 64 * 1024;
/// The largest piece that a slow direction carries at once.
const SLOW_PIECE: usize = 1024;

/// Which way, seen from whoever connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From who connects to the target.
    Up,
    /// From the target back.
    Down,
}

/// What a direction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Carries everything.
    Pass,
    /// Carries nothing and reads nothing; when healed it goes on where it stood.
    Stall,
    /// Takes everything and carries nothing, ends of connections included. What was lost cannot be made good: when healed,
    /// connections that lost something are reset.
    Vanish,
    /// Carries at most so many bytes a second on each connection.
    Slow(u32),
}

#[derive(Clone, Copy, Debug)]
struct Conditions {
    up: Flow,
    down: Flow,
    /// Counts resets: every connection ends when it changes.
    resets: u64,
    refusing: bool,
}

impl Conditions {
    fn flow(&self, direction: Direction) -> Flow {
        match direction {
            Direction::Up => self.up,
            Direction::Down => self.down,
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    refused: AtomicU64,
    carried: [AtomicU64; 2],
    vanished: AtomicU64,
}

/// A proxy in front of one address. It ends, with its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    conditions: watch::Sender<Conditions>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a port from the system and passes everything to `target`.
    ///
    /// # Panics
    /// When it cannot listen: a test cannot go on.
    pub fn start(target: SocketAddr, seed: u64) -> Self {
        let listener = listen().expect("the system has a port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let calm = Conditions { up: Flow::Pass, down: Flow::Pass, resets: 0, refusing: false };
        let conditions = watch::Sender::new(calm);
        let counts = Arc::default();
        let task = tokio::spawn(accept(listener, target, conditions.subscribe(), Arc::clone(&counts), seed));
        Self { address, conditions, counts, task }
    }

    /// Where to connect instead of the target.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what one direction does, for connections that are and that come.
    pub fn set(&self, direction: Direction, flow: Flow) {
        self.conditions.send_modify(|conditions| match direction {
            Direction::Up => conditions.up = flow,
            Direction::Down => conditions.down = flow,
        });
    }

    /// Sets what both directions do, at the same moment.
    pub fn set_both(&self, flow: Flow) {
        self.conditions.send_modify(|conditions| (conditions.up, conditions.down) = (flow, flow));
    }

    /// Resets every connection that is. Those that come are served.
    pub fn reset(&self) {
        self.conditions.send_modify(|conditions| conditions.resets += 1);
    }

    /// From now on resets every connection that comes; those that are stay.
    pub fn refuse(&self) {
        self.conditions.send_modify(|conditions| conditions.refusing = true);
    }

    /// All is well again, but for connections that lost something: they are reset.
    pub fn heal(&self) {
        self.conditions.send_modify(|conditions| {
            *conditions = Conditions { up: Flow::Pass, down: Flow::Pass, refusing: false, ..*conditions };
        });
    }

    /// Connections that are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Connections that were reset instead of served.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.counts.refused.load(Ordering::SeqCst)
    }

    /// Bytes carried so far.
    #[must_use]
    pub fn carried(&self, direction: Direction) -> u64 {
        self.counts.carried[direction as usize].load(Ordering::SeqCst)
    }

    /// Bytes taken and not carried so far.
    #[must_use]
    pub fn vanished(&self) -> u64 {
        self.counts.vanished.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Before it listens, since that is when a connection's window is decided.
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    conditions: watch::Receiver<Conditions>,
    counts: Arc<Counts>,
    seed: u64,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((socket, _)) = accepted else {
            // Out of descriptors, most likely: others may end meanwhile.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if conditions.borrow().refusing || connections.len() >= MAX_CONNECTIONS {
            counts.refused.fetch_add(1, Ordering::SeqCst);
            end_with_reset(&socket);
            continue;
        }
        let carry = Carry { conditions: conditions.clone(), counts: Arc::clone(&counts), random: random.fork() };
        connections.spawn(carry.connection(socket, target));
    }
}

/// Makes closing this socket say RST rather than FIN.
fn end_with_reset(socket: &TcpStream) {
    // Fails only where the connection is gone already.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// In order: the other direction may go on.
    Closed,
    /// Both must end, now.
    Broken,
}

/// Counts a connection for as long as it is there.
struct Counted(Arc<Counts>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Carry {
    conditions: watch::Receiver<Conditions>,
    counts: Arc<Counts>,
    random: fastrand::Rng,
}

impl Carry {
    async fn connection(mut self, near: TcpStream, target: SocketAddr) {
        self.counts.connections.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted(Arc::clone(&self.counts));
        let Ok(far) = TcpStream::connect(target).await else { return end_with_reset(&near) };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let _ = SockRef::from(&far).set_recv_buffer_size(SOCKET_BUFFER);
        let resets = self.conditions.borrow().resets;
        let mut watching = self.conditions.clone();
        let (mut near_read, mut near_write) = near.into_split();
        let (mut far_read, mut far_write) = far.into_split();
        let mut randoms = [self.random.fork(), self.random.fork()];
        let broken = {
            let [above, below] = &mut randoms;
            let up = self.pump(Direction::Up, &mut near_read, &mut far_write, above);
            let down = self.pump(Direction::Down, &mut far_read, &mut near_write, below);
            tokio::pin!(up, down);
            let mut ended = [false; 2];
            loop {
                let end = tokio::select! {
                    end = &mut up, if !ended[0] => { ended[0] = true; end }
                    end = &mut down, if !ended[1] => { ended[1] = true; end }
                    _ = watching.wait_for(|conditions| conditions.resets != resets) => End::Broken,
                };
                if end == End::Broken || ended == [true; 2] {
                    break end == End::Broken;
                }
            }
        };
        if broken {
            // Whole again, since half a socket says FIN when it is dropped.
            for (read, write) in [(near_read, near_write), (far_read, far_write)] {
                let socket = read.reunite(write).expect("they are halves of one socket");
                end_with_reset(&socket);
            }
        }
    }

    /// Carries one direction to its end.
    async fn pump(
        &self,
        direction: Direction,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
        random: &mut fastrand::Rng,
    ) -> End {
        let mut conditions = self.conditions.clone();
        let mut buffer = vec![0; BUFFER];
        // A cut falls anywhere in the stream, inside of a message too: what comes first after it is torn.
        let (mut torn, mut lost) = (false, false);
        loop {
            let flow = conditions.borrow_and_update().flow(direction);
            match flow {
                Flow::Pass | Flow::Slow(_) if lost => return End::Broken,
                Flow::Pass | Flow::Slow(_) => torn = false,
                Flow::Stall if torn => {
                    if conditions.changed().await.is_err() {
                        return End::Broken;
                    }
                    continue;
                }
                Flow::Stall | Flow::Vanish => {}
            }
            let most = if matches!(flow, Flow::Slow(_)) { random.usize(1..=SLOW_PIECE) } else { BUFFER };
            let read = tokio::select! {
                biased;
                changed = conditions.changed() => if changed.is_ok() { continue } else { return End::Broken },
                read = from.read(&mut buffer[..most]) => read,
            };
            let mut piece = match read {
                // An end crosses a cut no sooner than bytes do.
                Ok(0) | Err(_) if matches!(flow, Flow::Stall | Flow::Vanish) => {
                    let heals = |now: &Conditions| !matches!(now.flow(direction), Flow::Stall | Flow::Vanish);
                    let healed = conditions.wait_for(heals).await.is_ok();
                    if !healed || lost || read.is_err() {
                        return End::Broken;
                    }
                    &[][..]
                }
                Ok(length) => &buffer[..length],
                Err(_) => return End::Broken,
            };
            if piece.is_empty() {
                return if to.shutdown().await.is_ok() { End::Closed } else { End::Broken };
            }
            if matches!(flow, Flow::Stall | Flow::Vanish) {
                let passing = if torn { 0 } else { random.usize(0..piece.len()) };
                torn = true;
                if !self.carry(direction, &piece[..passing], to).await {
                    return End::Broken;
                }
                piece = &piece[passing..];
                if flow == Flow::Vanish {
                    lost = true;
                    self.counts.vanished.fetch_add(piece.len() as u64, Ordering::SeqCst);
                    continue;
                }
                // What is in hand goes when there is a way again.
                let passes = conditions.wait_for(|now| now.flow(direction) != Flow::Stall).await;
                match passes.map(|now| now.flow(direction)) {
                    Ok(Flow::Vanish) => {
                        lost = true;
                        self.counts.vanished.fetch_add(piece.len() as u64, Ordering::SeqCst);
                        continue;
                    }
                    Ok(_) => {}
                    Err(_) => return End::Broken,
                }
            }
            if let Flow::Slow(rate) = flow {
                let takes = Duration::from_secs_f64(piece.len() as f64 / f64::from(rate.max(1)));
                tokio::select! {
                    () = tokio::time::sleep(takes) => {}
                    _ = conditions.wait_for(|now| now.flow(direction) != flow) => {}
                }
            }
            if !self.carry(direction, piece, to).await {
                return End::Broken;
            }
        }
    }

    async fn carry(&self, direction: Direction, piece: &[u8], to: &mut OwnedWriteHalf) -> bool {
        let written = to.write_all(piece).await.is_ok();
        self.counts.carried[direction as usize].fetch_add(piece.len() as u64, Ordering::SeqCst);
        written
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
