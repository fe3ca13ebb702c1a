//! What a packet costs on its way in: unmasking, the look at its header, the verdict, the framing.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roomcast_benches::bare::frame;
use roomcast_benches::media_path::{EGRESS, INGRESS, MediaPath};
use roomcast_benches::samples::{Media, USER, packet};
use roomcast_protocol::{Dialect, PacketBuffer, SessionId, UserId, peek};
use roomcast_relay::{Ingress, Time};
use roomcast_transport::websocket;

fn unmask(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    for bytes in [160, 1_200, 30_000] {
        let (key, masked) = ([1, 2, 3, 4], vec![0x5a; bytes]);
        let mut out = masked.clone();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("router, in place, {bytes} bytes"), |b| {
            b.iter(|| websocket::unmask(black_box(&mut out), key));
        });
        group.bench_function(format!("bare, with the copy, {bytes} bytes"), |b| {
            b.iter(|| frame::unmask(black_box(&mut out), black_box(&masked), key));
        });
    }
}

fn samples() -> impl Iterator<Item = (String, Dialect, Vec<u8>)> {
    let dialects = [(Dialect::Seed, "seed"), (Dialect::Sessions, "sessions")];
    dialects.into_iter().flat_map(|(dialect, name)| {
        [(false, "clear"), (true, "hint")].into_iter().flat_map(move |(hint, how)| {
            [(Media::Audio, 160), (Media::Delta, 30_000)].into_iter().map(move |(media, bytes)| {
                (format!("{name}, {how}, {bytes} bytes"), dialect, packet(dialect, media, bytes, hint))
            })
        })
    })
}

fn look(c: &mut Criterion) {
    let mut group = c.benchmark_group("peek");
    for (name, dialect, packet) in samples() {
        group.bench_function(name, |b| b.iter(|| peek(dialect, black_box(&packet)).unwrap().kind));
    }
}

fn judge(c: &mut Criterion) {
    let mut group = c.benchmark_group("judge");
    for (name, dialect, packet) in samples() {
        let mut ingress = Ingress::new(dialect, UserId::parse(USER).unwrap(), SessionId(1));
        let mut micros = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                micros += 10;
                ingress.judge(black_box(&packet), Time::from_micros(micros), &INGRESS)
            });
        });
    }
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    for bytes in [160, 1_200, 30_000] {
        let payload = packet(Dialect::Sessions, Media::Delta, bytes, true);
        let tag = peek(Dialect::Sessions, &payload).unwrap().tag(SessionId(1), payload.len());
        let mut buffer = PacketBuffer::new();
        group.bench_function(format!("{bytes} bytes, with their copy into the buffer"), |b| {
            b.iter(|| {
                buffer.extend(black_box(&payload));
                buffer.seal(tag, Some(SessionId(u64::MAX)))
            });
        });
    }
}

fn all(c: &mut Criterion) {
    let payload = packet(Dialect::Seed, Media::Delta, 1_200, false);
    let mut path = MediaPath::new(Dialect::Seed, 0, EGRESS);
    c.bench_function("all of it but the unmasking, 1200 bytes", |b| b.iter(|| path.take_in(black_box(&payload))));
}

criterion_group!(ingress, unmask, look, judge, seal, all);
criterion_main!(ingress);
