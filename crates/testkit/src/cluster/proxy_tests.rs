//! The proxy does what it is told, on real sockets, and nothing else.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::node_box::eventually;

const SOON: Duration = Duration::from_secs(20);
/// Long enough for loopback to have carried what it was going to carry, were it let through.
const A_WHILE: Duration = Duration::from_millis(100);

/// Both ends of a connection through a proxy.
struct Pair {
    proxy: Proxy,
    listener: TcpListener,
    near: TcpStream,
    far: TcpStream,
}

impl Pair {
    async fn new(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap(), seed);
        let near = TcpStream::connect(proxy.address()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let mut pair = Self { proxy, listener, near, far };
        pair.carries().await;
        pair
    }

    /// Both ways, now.
    async fn carries(&mut self) {
        passes(&mut self.near, &mut self.far, b"to and").await;
        passes(&mut self.far, &mut self.near, b"fro").await;
    }
}

async fn passes(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).await.unwrap();
    let mut heard = vec![0; bytes.len()];
    timeout(SOON, to.read_exact(&mut heard)).await.expect("it comes soon").unwrap();
    assert_eq!(heard, bytes);
}

/// All that comes within a while, without an end.
async fn comes(to: &mut TcpStream) -> Vec<u8> {
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read) = timeout(A_WHILE, to.read(&mut buffer)).await {
        let read = read.expect("the connection is not broken");
        assert_ne!(read, 0, "the connection has not ended");
        heard.extend_from_slice(&buffer[..read]);
    }
    heard
}

async fn is_reset(socket: &mut TcpStream) {
    let ended = timeout(SOON, socket.read_to_end(&mut Vec::new())).await.expect("it ends soon");
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn it_carries_both_ways_and_ends_in_order_each_way_for_itself() {
    let Pair { proxy, mut near, mut far, .. } = Pair::new(1).await;
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| at as u8).collect();
    let sending = async {
        near.write_all(&large).await.unwrap();
        near.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let (_, read) = tokio::join!(sending, timeout(SOON, far.read_to_end(&mut heard)));
    read.unwrap().unwrap();
    assert!(heard == large);
    passes(&mut far, &mut near, b"after your end").await;
    drop(far);
    assert_eq!(timeout(SOON, near.read(&mut [0])).await.unwrap().unwrap(), 0);
    eventually("the connection is not counted any more", SOON, async || proxy.connections() == 0).await;
    assert_eq!(proxy.carried(Direction::Up), 6 + 3_000_000);
    assert_eq!(proxy.carried(Direction::Down), 3 + 14);
}

#[tokio::test]
async fn a_stalled_direction_holds_everything_while_the_other_flows_and_goes_on_when_healed() {
    for direction in [Direction::Up, Direction::Down] {
        let Pair { proxy, mut near, mut far, .. } = Pair::new(2).await;
        let (from, to) = if direction == Direction::Up { (&mut near, &mut far) } else { (&mut far, &mut near) };
        proxy.set(direction, Flow::Stall);
        from.write_all(b"0123456789").await.unwrap();
        let before = comes(to).await;
        assert!(before.len() < 10, "the cut falls inside: {before:?}");
        from.write_all(b"more").await.unwrap();
        assert_eq!(comes(to).await, b"");
        for _ in 0..10 {
            passes(to, from, b"the other way").await;
        }
        proxy.heal();
        let mut rest = vec![0; 14 - before.len()];
        timeout(SOON, to.read_exact(&mut rest)).await.unwrap().unwrap();
        assert_eq!([before, rest].concat(), b"0123456789more");
        passes(from, to, b"and on").await;
    }
}

#[tokio::test]
async fn a_stall_is_bounded_and_holds_an_end_back() {
    let Pair { proxy, mut near, mut far, .. } = Pair::new(3).await;
    proxy.set_both(Flow::Stall);
    let mut taken = 0;
    while let Ok(written) = timeout(A_WHILE, near.write(&[7; 65_536])).await {
        taken += written.unwrap();
        assert!(taken < 64 << 20, "nothing stops the sender");
    }
    drop(near);
    let before = comes(&mut far).await.len();
    assert_eq!(proxy.connections(), 1, "nobody was told of the end");
    proxy.heal();
    let mut rest = Vec::new();
    timeout(SOON, far.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(before + rest.len(), taken);
}

#[tokio::test]
async fn what_vanishes_is_gone_and_the_connection_is_reset_when_healed() {
    let mut pair = Pair::new(4).await;
    pair.proxy.set(Direction::Up, Flow::Vanish);
    let mut written = 0;
    // More than all buffers hold: it is taken, not held.
    for _ in 0..200 {
        timeout(SOON, pair.near.write_all(&[1; 65_536])).await.expect("it is taken").unwrap();
        written += 65_536;
    }
    let passed = comes(&mut pair.far).await.len();
    assert!(passed < BUFFER, "the cut falls inside of the first piece");
    eventually("all of it is gone", SOON, async || pair.proxy.vanished() + passed as u64 == written).await;
    for _ in 0..10 {
        passes(&mut pair.far, &mut pair.near, b"the other way").await;
    }
    pair.proxy.heal();
    is_reset(&mut pair.near).await;
    is_reset(&mut pair.far).await;
    pair.near = TcpStream::connect(pair.proxy.address()).await.unwrap();
    pair.far = pair.listener.accept().await.unwrap().0;
    pair.carries().await;
}

#[tokio::test]
async fn a_connection_that_lost_nothing_outlives_the_cut() {
    let mut pair = Pair::new(5).await;
    pair.proxy.set_both(Flow::Vanish);
    assert_eq!(comes(&mut pair.far).await, b"");
    pair.proxy.heal();
    pair.carries().await;
}

#[tokio::test]
async fn nobody_is_told_of_an_end_during_a_cut() {
    let Pair { proxy, near, mut far, .. } = Pair::new(6).await;
    proxy.set_both(Flow::Vanish);
    drop(near);
    assert_eq!(comes(&mut far).await, b"");
    proxy.heal();
    // Nothing was lost but the end itself, which comes now.
    assert_eq!(timeout(SOON, far.read(&mut [0])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn who_connects_to_a_stalled_target_is_taken_and_never_heard() {
    let Pair { proxy, listener, .. } = Pair::new(7).await;
    proxy.set_both(Flow::Stall);
    let mut near = TcpStream::connect(proxy.address()).await.unwrap();
    near.write_all(b"anybody there?").await.unwrap();
    let (mut far, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    far.write_all(b"welcome").await.unwrap();
    assert!(comes(&mut near).await.len() < 7);
}

#[tokio::test]
async fn a_reset_hits_those_that_are_and_a_refusal_those_that_come() {
    let mut pair = Pair::new(8).await;
    pair.proxy.refuse();
    let mut other = TcpStream::connect(pair.proxy.address()).await.unwrap();
    is_reset(&mut other).await;
    assert_eq!(pair.proxy.refused(), 1);
    pair.carries().await;
    pair.proxy.reset();
    is_reset(&mut pair.near).await;
    is_reset(&mut pair.far).await;
    pair.proxy.heal();
    pair.near = TcpStream::connect(pair.proxy.address()).await.unwrap();
    pair.far = pair.listener.accept().await.unwrap().0;
    pair.carries().await;
}

#[tokio::test]
async fn a_reset_breaks_even_what_is_stalled() {
    let Pair { proxy, mut near, mut far, .. } = Pair::new(9).await;
    proxy.set_both(Flow::Stall);
    near.write_all(&[3; 100_000]).await.unwrap();
    proxy.reset();
    is_reset(&mut near).await;
    // What passed before the stall may be heard; then it breaks.
    let ended = timeout(SOON, far.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_slow_direction_carries_at_its_rate() {
    const RATE: u32 = 50_000;
    let Pair { proxy, mut near, mut far, .. } = Pair::new(10).await;
    proxy.set(Direction::Up, Flow::Slow(RATE));
    let began = std::time::Instant::now();
    passes(&mut near, &mut far, &[9; 20_000]).await;
    // Never faster; on a busy machine slower.
    assert!(began.elapsed() >= Duration::from_millis(380), "{:?}", began.elapsed());
    passes(&mut far, &mut near, &[9; 200_000]).await;
    near.write_all(&[8; 1_000_000]).await.unwrap();
    proxy.heal();
    let mut rest = vec![0; 1_000_000];
    timeout(SOON, far.read_exact(&mut rest)).await.expect("a healed direction is fast").unwrap();
}

#[tokio::test]
async fn a_target_that_is_away_resets_who_connects() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    drop(listener);
    let proxy = Proxy::start(target, 11);
    let mut near = TcpStream::connect(proxy.address()).await.unwrap();
    is_reset(&mut near).await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), 12);
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        held.push((TcpStream::connect(proxy.address()).await.unwrap(), listener.accept().await.unwrap()));
    }
    let mut one_more = TcpStream::connect(proxy.address()).await.unwrap();
    is_reset(&mut one_more).await;
    held.pop();
    eventually("there is room again", SOON, async || proxy.connections() < MAX_CONNECTIONS).await;
    let _near = TcpStream::connect(proxy.address()).await.unwrap();
    timeout(SOON, listener.accept()).await.expect("it is served").unwrap();
}
