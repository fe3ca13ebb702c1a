//! The writer against streams that take a few bytes at a time, or none.

use std::io::IoSlice;
use std::sync::{Arc, Mutex};
use std::task::Context;

use proptest::prelude::*;
use roomcast_protocol::{Class, PacketBuffer, SessionId, Tag};

use super::super::frame::{Header, Side};
use super::super::reader::Reader;
use super::*;
use crate::intake::Bounds;
use crate::{Incoming, PacketReader};

/// Takes at most `most` bytes a call, is not ready every other time, and stops for ever after `stop` bytes.
struct Narrow {
    most: usize,
    stop: usize,
    ready: bool,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    calls: usize,
    largest_batch: usize,
    shut: bool,
}

impl Narrow {
    fn new(most: usize, stop: usize) -> (Self, Arc<Mutex<Taken>>) {
        let taken = Arc::new(Mutex::new(Taken::default()));
        (Self { most, stop, ready: false, taken: Arc::clone(&taken) }, taken)
    }
}

impl AsyncWrite for Narrow {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.ready = !self.ready;
        let mut taken = self.taken.lock().unwrap();
        if taken.bytes.len() >= self.stop {
            return Poll::Pending;
        }
        if !self.ready {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut room = self.most.min(self.stop - taken.bytes.len());
        let before = taken.bytes.len();
        for buf in bufs {
            let count = buf.len().min(room);
            taken.bytes.extend_from_slice(&buf[..count]);
            room -= count;
        }
        taken.calls += 1;
        taken.largest_batch = taken.largest_batch.max(bufs.len());
        Poll::Ready(Ok(taken.bytes.len() - before))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.taken.lock().unwrap().shut = true;
        Poll::Ready(Ok(()))
    }
}

fn packet(payload: &[u8]) -> Packet {
    let mut buffer = PacketBuffer::new();
    buffer.extend(payload);
    buffer.seal(Tag { sender: SessionId(1), class: Class::Control, flow: 0 }, None)
}

fn payloads(sizes: &[usize]) -> Vec<Vec<u8>> {
    sizes.iter().enumerate().map(|(i, size)| (0..*size).map(|at| (at * 31 + i) as u8).collect()).collect()
}

/// The frames in `bytes` by the project's own rules, as (first byte, payload); panics over a cut one.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let header = Header::parse(bytes).expect("a whole header");
        let end = header.size + header.length as usize;
        frames.push((bytes[0], bytes[header.size..end].to_vec()));
        bytes = &bytes[end..];
    }
    frames
}

#[tokio::test]
async fn a_batch_survives_writes_of_seven_bytes() {
    let (io, taken) = Narrow::new(7, usize::MAX);
    let mut writer = Writer::new(io);
    let sent = payloads(&[0, 1, 5, 7, 125, 126, 300, 66_000, 3]);
    let batch: Vec<Packet> = sent.iter().map(|payload| packet(payload)).collect();
    writer.write(&batch).await.unwrap();
    writer.ping().await.unwrap();
    writer.pong(b"echo").await.unwrap();
    let got = frames(&taken.lock().unwrap().bytes);
    let expected: Vec<(u8, Vec<u8>)> =
        sent.into_iter().map(|payload| (0x82, payload)).chain([(0x89, vec![]), (0x8a, b"echo".to_vec())]).collect();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn what_waits_goes_out_in_one_write() {
    let (io, taken) = Narrow::new(usize::MAX, usize::MAX);
    let mut writer = Writer::new(io);
    let batch: Vec<Packet> = payloads(&[1_200; 300]).iter().map(|payload| packet(payload)).collect();
    writer.write(&batch[..100]).await.unwrap();
    assert_eq!(taken.lock().unwrap().calls, 1);
    writer.write(&batch).await.unwrap();
    assert_eq!(taken.lock().unwrap().calls, 1 + 300usize.div_ceil(MAX_SLICES));
    assert_eq!(taken.lock().unwrap().largest_batch, MAX_SLICES);
    writer.write(&[]).await.unwrap();
    assert_eq!(frames(&taken.lock().unwrap().bytes).len(), 400);
}

#[tokio::test]
async fn a_frame_cut_by_a_dropped_write_is_finished_before_the_close() {
    let (io, taken) = Narrow::new(7, usize::MAX);
    let mut writer = Writer::new(io);
    let batch = [packet(&[1; 100]), packet(&[2; 100]), packet(&[3; 100])];
    {
        let mut write = Box::pin(writer.write(&batch));
        // Until it stands in the middle of the second frame, of 102 bytes each.
        while taken.lock().unwrap().bytes.len() < 150 {
            assert!(futures_util::poll!(&mut write).is_pending());
        }
    }
    writer.close(CloseCode::Crashed, "crashed").await;
    let taken = taken.lock().unwrap();
    let got = frames(&taken.bytes);
    let close = frame::close_payload(1011, "crashed");
    assert_eq!(got, [(0x82, vec![1; 100]), (0x82, vec![2; 100]), (0x88, close)]);
    assert!(taken.shut);
}

#[tokio::test]
async fn a_frame_cut_by_a_dropped_write_is_finished_before_the_next_batch() {
    let (io, taken) = Narrow::new(7, usize::MAX);
    let mut writer = Writer::new(io);
    {
        let batch = [packet(&[1; 100])];
        let mut write = Box::pin(writer.write(&batch));
        while taken.lock().unwrap().bytes.len() < 50 {
            assert!(futures_util::poll!(&mut write).is_pending());
        }
    }
    writer.write(&[packet(b"next")]).await.unwrap();
    assert_eq!(frames(&taken.lock().unwrap().bytes), [(0x82, vec![1; 100]), (0x82, b"next".to_vec())]);
}

#[tokio::test]
async fn nothing_follows_a_close() {
    let (io, taken) = Narrow::new(usize::MAX, usize::MAX);
    let mut writer = Writer::new(io);
    writer.close(CloseCode::Draining, "elsewhere").await;
    writer.close(CloseCode::Done, "again").await;
    assert!(writer.write(&[packet(b"late")]).await.is_err());
    assert!(writer.ping().await.is_err());
    assert_eq!(frames(&taken.lock().unwrap().bytes), [(0x88, frame::close_payload(1001, "elsewhere"))]);
}

#[tokio::test(start_paused = true)]
async fn closing_takes_a_second_at_most_when_the_peer_reads_nothing() {
    for stop in [0, 5] {
        let (io, taken) = Narrow::new(7, stop);
        let mut writer = Writer::new(io);
        let begun = tokio::time::Instant::now();
        writer.close(CloseCode::Done, "nobody listens").await;
        assert!(begun.elapsed() <= CLOSE_TIME + Duration::from_millis(10));
        assert_eq!(taken.lock().unwrap().bytes.len(), stop);
    }
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_an_error_and_not_a_loop() {
    let (io, _) = Narrow::new(0, usize::MAX);
    let mut writer = Writer::new(io);
    assert_eq!(writer.write(&[packet(b"x")]).await.unwrap_err().kind(), io::ErrorKind::WriteZero);
}

proptest! {
    #[test]
    fn any_batch_through_any_narrow_stream_is_read_back(
        sizes in proptest::collection::vec(0usize..70_000, 0..12),
        most in 1usize..9_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (io, taken) = Narrow::new(most, usize::MAX);
            let sent = payloads(&sizes);
            let batch: Vec<Packet> = sent.iter().map(|payload| packet(payload)).collect();
            Writer::new(io).write(&batch).await.unwrap();
            let bytes = std::mem::take(&mut taken.lock().unwrap().bytes);
            let mut reader = Reader::new(std::io::Cursor::new(bytes), Side::Client, &[], Arc::new(Bounds { max_packet_bytes: 100_000, ..Bounds::default() }));
            let mut buffer = PacketBuffer::new();
            for payload in sent {
                assert_eq!(reader.read(&mut buffer).await.unwrap(), Incoming::Packet);
                assert_eq!(buffer.payload(), payload);
            }
            assert!(reader.read(&mut buffer).await.is_err());
        });
    }
}

/// Passes on to `inner` and keeps a copy of what is written.
struct Tap {
    inner: tokio::io::DuplexStream,
    written: Arc<Mutex<Vec<u8>>>,
}

impl tokio::io::AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.written.lock().unwrap().extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_batch_under_tls_fills_its_records() {
    use crate::tls::{Certificate, ClientTrust, ServerIdentity};
    let certificate = Certificate::self_signed(&[], std::time::SystemTime::now()).unwrap();
    let config = ServerIdentity::new(certificate).unwrap().tls_config();
    let trusting = Arc::new(ClientTrust::Insecure.client_config(&[]).unwrap());
    let (near, far) = tokio::io::duplex(1 << 20);
    let written = Arc::new(Mutex::new(Vec::new()));
    let tap = Tap { inner: near, written: Arc::clone(&written) };
    let (server, client) = tokio::join!(
        tokio_rustls::TlsAcceptor::from(config).accept(tap),
        tokio_rustls::TlsConnector::from(trusting).connect("localhost".try_into().unwrap(), far),
    );
    let (server, _client) = (server.unwrap(), client.unwrap());
    written.lock().unwrap().clear();
    let batch: Vec<Packet> = payloads(&[1_000; 100]).iter().map(|payload| packet(payload)).collect();
    let (_read, write) = tokio::io::split(Box::new(server)); // as the server splits it
    Writer::new(write).write(&batch).await.unwrap();
    let bytes = std::mem::take(&mut *written.lock().unwrap());
    let mut records = 0;
    let mut rest = &bytes[..];
    while let [23, 3, 3, high, low, behind @ ..] = rest {
        rest = &behind[usize::from(u16::from_be_bytes([*high, *low]))..];
        records += 1;
    }
    assert!(rest.is_empty());
    // 100,400 bytes in records of 16 KiB; one per packet would be 100.
    assert!(records <= 10, "{records} records");
}
