//! The reader over streams that come in pieces of any size.

use std::task::Context;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::super::frame::{Opcode, encode};
use super::*;
use crate::intake::Bounds;

/// Fixed bounds with this largest packet.
fn up_to(max_packet_bytes: usize) -> Arc<dyn Intake> {
    Arc::new(Bounds { max_packet_bytes, ..Bounds::default() })
}

/// Bytes that arrive in pieces: each read gets at most the next of `pieces` (in turn), with a pause before it.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    pieces: Vec<usize>,
    turn: usize,
    ready: bool,
}

impl Pieces {
    fn new(bytes: Vec<u8>, pieces: Vec<usize>) -> Self {
        Self { bytes, at: 0, pieces, turn: 0, ready: false }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.ready = !self.ready;
        if !self.ready {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = self.pieces[self.turn % self.pieces.len()];
        let count = piece.min(buf.remaining()).min(self.bytes.len() - self.at);
        buf.put_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        self.turn += 1;
        Poll::Ready(Ok(()))
    }
}

#[derive(Clone, Debug)]
enum Sent {
    /// A packet in fragments, with a ping after each but the last where true.
    Packet(Vec<Vec<u8>>, bool),
    Ping(Vec<u8>),
    Pong,
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    prop_oneof![
        (proptest::collection::vec(bytes(3_000), 1..4), any::<bool>())
            .prop_map(|(parts, pings)| Sent::Packet(parts, pings)),
        bytes(40_000).prop_map(|part| Sent::Packet(vec![part], false)),
        bytes(126).prop_map(Sent::Ping),
        Just(Sent::Pong),
    ]
}

fn wire(sent: &[Sent]) -> Vec<u8> {
    let mut out = Vec::new();
    let mask = Some([0x5a, 0x00, 0xff, 0x13]);
    for one in sent {
        match one {
            Sent::Packet(parts, pings) => {
                for (index, part) in parts.iter().enumerate() {
                    let start = out.len();
                    encode(&mut out, Opcode::Binary, part, mask);
                    let last = index + 1 == parts.len();
                    out[start] = if index == 0 { 0x02 } else { 0x00 } | if last { 0x80 } else { 0x00 };
                    if *pings && !last {
                        encode(&mut out, Opcode::Ping, &[index as u8], mask);
                    }
                }
            }
            Sent::Ping(payload) => encode(&mut out, Opcode::Ping, payload, mask),
            Sent::Pong => encode(&mut out, Opcode::Pong, b"pong", mask),
        }
    }
    out
}

proptest! {
    #[test]
    fn whatever_the_pieces_the_packets_are_the_same(
        sent in proptest::collection::vec(sent(), 0..8),
        pieces in proptest::collection::vec(1usize..20_000, 1..8),
        ahead in 0usize..200,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bytes = wire(&sent);
            let (ahead, rest) = bytes.split_at(ahead.min(bytes.len()));
            let mut reader = Reader::new(Pieces::new(rest.to_vec(), pieces), Side::Server, ahead, up_to(50_000));
            let mut buffer = PacketBuffer::new();
            for one in sent {
                match one {
                    Sent::Packet(parts, pings) => {
                        for index in 1..parts.len() {
                            if pings {
                                let ping = Incoming::Ping(vec![index as u8 - 1]);
                                assert_eq!(reader.read(&mut buffer).await.unwrap(), ping);
                            }
                        }
                        assert_eq!(reader.read(&mut buffer).await.unwrap(), Incoming::Packet);
                        assert_eq!(buffer.payload(), parts.concat());
                    }
                    Sent::Ping(payload) => assert_eq!(reader.read(&mut buffer).await.unwrap(), Incoming::Ping(payload)),
                    Sent::Pong => assert_eq!(reader.read(&mut buffer).await.unwrap(), Incoming::Alive),
                }
            }
            assert!(matches!(reader.read(&mut buffer).await, Err(ReadError::Gone(_))));
        });
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut reader = Reader::new(Pieces::new(bytes, vec![7]), Side::Server, &[], up_to(1_000));
            let mut buffer = PacketBuffer::new();
            while reader.read(&mut buffer).await.is_ok() {
                assert!(buffer.payload().len() <= 1_000);
            }
        });
    }
}

#[tokio::test]
async fn between_frames_no_memory_is_held() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let mut reader = Reader::new(server, Side::Server, &[], up_to(4_000_000));
    let mut buffer = PacketBuffer::new();
    let mut bytes = wire(&[Sent::Packet(vec![vec![7; 500_000]], false), Sent::Ping(vec![1; 125]), Sent::Pong]);
    client.write_all(&bytes).await.unwrap();
    for _ in 0..3 {
        reader.read(&mut buffer).await.unwrap();
    }
    assert_eq!(reader.ahead.capacity(), 0);
    // Nor while it waits, with half a header there.
    bytes.truncate(3);
    client.write_all(&bytes).await.unwrap();
    let mut read = Box::pin(reader.read(&mut buffer));
    assert!(futures_util::poll!(&mut read).is_pending());
    assert!(std::mem::size_of_val(&*read) <= 1_024, "the future holds {} bytes", std::mem::size_of_val(&*read));
    drop(read);
    assert!(reader.ahead.capacity() <= 3);
}

#[tokio::test]
async fn a_masked_frame_from_a_server_is_refused() {
    let mut bytes = Vec::new();
    encode(&mut bytes, Opcode::Binary, b"bare", None);
    encode(&mut bytes, Opcode::Binary, b"masked", Some([1; 4]));
    let mut reader = Reader::new(Pieces::new(bytes, vec![100]), Side::Client, &[], up_to(1_000));
    let mut buffer = PacketBuffer::new();
    assert_eq!(reader.read(&mut buffer).await.unwrap(), Incoming::Packet);
    assert_eq!(buffer.payload(), b"bare");
    assert!(matches!(reader.read(&mut buffer).await, Err(ReadError::Protocol(_))));
}

#[tokio::test]
async fn a_large_length_announced_and_refused_costs_nothing() {
    let mut bytes = wire(&[Sent::Packet(vec![vec![0; 70_000]], false)]);
    bytes[2..10].copy_from_slice(&(1u64 << 40).to_be_bytes());
    let mut reader = Reader::new(Pieces::new(bytes, vec![14]), Side::Server, &[], up_to(4_000_000));
    let mut buffer = PacketBuffer::new();
    let verdict = reader.read(&mut buffer).await;
    assert!(matches!(verdict, Err(ReadError::TooLarge(4_000_000))));
    assert_eq!(reader.inner.at, 14, "refused by the header, before any more was read");
    assert!(buffer.payload().is_empty() && reader.ahead.capacity() == 0);
}

#[tokio::test(start_paused = true)]
async fn lingering_ends_with_the_peer_or_after_a_second() {
    let (mut client, server) = tokio::io::duplex(64);
    let mut reader = Reader::new(server, Side::Server, b"unread", up_to(1_000));
    let flood = tokio::spawn(async move {
        client.write_all(&[0; 100_000]).await.unwrap();
        client
    });
    let begun = tokio::time::Instant::now();
    reader.linger().await;
    assert_eq!(begun.elapsed(), LINGER_TIME, "the peer stays, so the second passes");
    drop(flood.await.unwrap()); // all 100,000 bytes were taken
    reader.linger().await;
    assert_eq!(begun.elapsed(), LINGER_TIME, "the peer is gone, so no time passes");
}

/// Bounds that a test changes, over a purse of bytes.
#[derive(Debug)]
struct Owner {
    bounds: std::sync::Mutex<Bounds>,
    purse: usize,
}

impl Owner {
    fn new(purse: usize) -> Arc<Self> {
        let bounds = Bounds { patience: Duration::from_secs(10), least_rate: 1_000, ..Bounds::default() };
        Arc::new(Self { bounds: bounds.into(), purse })
    }

    fn lower(&self, max_packet_bytes: usize) {
        self.bounds.lock().unwrap().max_packet_bytes = max_packet_bytes;
    }
}

impl Intake for Owner {
    fn bounds(&self) -> Bounds {
        *self.bounds.lock().unwrap()
    }

    fn share(&self) -> Box<dyn crate::intake::Share> {
        struct Purse(usize);
        impl crate::intake::Share for Purse {
            fn cover(&mut self, bytes: usize) -> bool {
                bytes <= self.0
            }
        }
        Box::new(Purse(self.purse))
    }
}

/// A packet as one frame, and the place where its payload begins.
fn one_frame(length: usize) -> (Vec<u8>, usize) {
    let bytes = wire(&[Sent::Packet(vec![vec![7; length]], false)]);
    let header = bytes.len() - length;
    (bytes, header)
}

fn pong() -> Vec<u8> {
    wire(&[Sent::Pong])
}

#[tokio::test(start_paused = true)]
async fn a_half_sent_message_cannot_be_kept_open_with_signs_of_life() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let mut reader = Reader::new(server, Side::Server, &[], Owner::new(usize::MAX));
    let start = Instant::now();
    tokio::spawn(async move {
        let mut fragment = Vec::new();
        encode(&mut fragment, Opcode::Binary, &[7; 1_000], Some([1; 4]));
        fragment[0] = 0x02;
        client.write_all(&fragment).await.unwrap();
        while client.write_all(&pong()).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut buffer = PacketBuffer::new();
    let end = loop {
        match reader.read(&mut buffer).await {
            Ok(found) => assert_eq!(found, Incoming::Alive),
            Err(end) => break end,
        }
    };
    assert!(matches!(end, ReadError::Slow), "{end:?}");
    // 10 s, and one more for the 1,000 bytes; pongs bring no time.
    assert_eq!(start.elapsed().as_secs(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_large_frame_may_take_as_long_as_the_least_rate_and_each_piece_is_a_sign_of_life() {
    for (piece, lives) in [(2_000, true), (500, false)] {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut reader = Reader::new(server, Side::Server, &[], Owner::new(usize::MAX));
        let pulse = reader.pulse().unwrap();
        let (bytes, header) = one_frame(100_000);
        let start = Instant::now();
        tokio::spawn(async move {
            client.write_all(&bytes[..header]).await.unwrap();
            for piece in bytes[header..].chunks(piece) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if client.write_all(piece).await.is_err() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        });
        let watching = async {
            loop {
                tokio::time::sleep(Duration::from_secs(2)).await;
                assert!(pulse.last().elapsed() <= Duration::from_secs(1), "silent for {:?}", pulse.last().elapsed());
            }
        };
        let mut buffer = PacketBuffer::new();
        let end = tokio::select! {
            end = reader.read(&mut buffer) => end,
            () = watching => unreachable!("it watches for ever"),
        };
        if lives {
            assert_eq!(end.unwrap(), Incoming::Packet);
            assert_eq!(start.elapsed().as_secs(), 50, "longer than the patience alone");
            assert!(reader.arriving.is_none());
        } else {
            assert!(matches!(end, Err(ReadError::Slow)), "{end:?}");
            assert_eq!(start.elapsed().as_secs(), 21, "10 s, and half of the time passed since");
        }
    }
}

#[tokio::test]
async fn a_packet_for_which_there_is_no_memory_is_refused_whole_or_in_fragments() {
    let large = vec![7; 200_000];
    let pieces = large.chunks(1_000).map(<[u8]>::to_vec).collect();
    for sent in [Sent::Packet(vec![large], false), Sent::Packet(pieces, true)] {
        for (purse, fits) in [(200_000, true), (100_000, false)] {
            let bytes = wire(std::slice::from_ref(&sent));
            let mut reader = Reader::new(Pieces::new(bytes, vec![8_192]), Side::Server, &[], Owner::new(purse));
            let mut buffer = PacketBuffer::new();
            let end = loop {
                match reader.read(&mut buffer).await {
                    Ok(Incoming::Ping(_)) => {}
                    end => break end,
                }
            };
            if fits {
                assert_eq!(end.unwrap(), Incoming::Packet);
                assert_eq!(buffer.payload().len(), 200_000);
            } else {
                assert!(matches!(end, Err(ReadError::NoMemory)), "{end:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_changed_size_limit_acts_on_the_next_frame() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let owner = Owner::new(usize::MAX);
    let mut reader = Reader::new(server, Side::Server, &[], Arc::<Owner>::clone(&owner));
    let mut buffer = PacketBuffer::new();
    owner.lower(10);
    client.write_all(&one_frame(10).0).await.unwrap();
    assert_eq!(reader.read(&mut buffer).await.unwrap(), Incoming::Packet);
    owner.lower(3_000);
    // Lowered below what a message has brought already: its next fragment is too much, and nothing overflows.
    let bytes = wire(&[Sent::Packet(vec![vec![7; 3_000], vec![7; 1]], true)]);
    client.write_all(&bytes).await.unwrap();
    assert_eq!(reader.read(&mut buffer).await.unwrap(), Incoming::Ping(vec![0]));
    owner.lower(2_000);
    assert!(matches!(reader.read(&mut buffer).await, Err(ReadError::TooLarge(2_000))));
}
