//! What a copy costs in the egress queues: push and drain, alone and in batches, and where there is too much.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roomcast_benches::media_path::{EGRESS, MediaPath};
use roomcast_benches::samples::{Media, packet};
use roomcast_protocol::Dialect;
use roomcast_relay::EgressLimits;

/// Recipients: enough that their queues do not all stay in the first cache.
const RECIPIENTS: usize = 100;

fn queues(c: &mut Criterion) {
    let mut group = c.benchmark_group("push to 100 queues and drain them");
    let few = EgressLimits { packets: 8, ..EGRESS };
    for (name, packets, limits) in [
        ("one at a time", 1, EGRESS),
        ("sixteen at a time", 16, EGRESS),
        ("sixteen into room for eight: deltas are dropped", 16, few),
    ] {
        let mut path = MediaPath::new(Dialect::Seed, RECIPIENTS, limits);
        let media = [(Media::Audio, 160), (Media::Delta, 1_200), (Media::KeyFrame, 12_000), (Media::Delta, 1_200)];
        let sealed: Vec<_> = media
            .iter()
            .map(|(media, bytes)| path.take_in(&packet(Dialect::Seed, *media, *bytes, false)).unwrap())
            .collect();
        group.throughput(Throughput::Elements((packets * RECIPIENTS) as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                for packet in sealed.iter().cycle().take(packets) {
                    path.fan_out(black_box(packet));
                }
                path.drain()
            });
        });
    }
}

criterion_group!(egress, queues);
criterion_main!(egress);
