//! The media path allocates once for each packet and not at all for each copy.
#![allow(clippy::unwrap_used)]

use roomcast_benches::media_path::{EGRESS, MediaPath};
use roomcast_benches::samples::{Media, packet};
use roomcast_protocol::Dialect;
use roomcast_relay::EgressLimits;

#[test]
fn a_packet_costs_one_allocation_however_many_receive_it() {
    for (dialect, hint) in [(Dialect::Seed, false), (Dialect::Sessions, true)] {
        let payloads =
            [(Media::Audio, 160), (Media::Delta, 1_200)].map(|(media, bytes)| packet(dialect, media, bytes, hint));
        for (recipients, batch) in [(4, 1), (99, 1), (99, 16)] {
            let mut path = MediaPath::new(dialect, recipients, EGRESS);
            // The first batches make buffers and queues; those after them find them there.
            path.batch(&payloads, batch);
            path.batch(&payloads, batch);
            let mut copies = 0;
            let taken = allocation_counter::measure(|| {
                for _ in 0..10 {
                    copies += path.batch(&payloads, batch);
                }
            });
            assert_eq!(copies, 10 * (batch * recipients) as u64);
            assert_eq!(
                taken.count_total,
                10 * batch as u64,
                "{recipients} recipients, batches of {batch}: allocations for {} packets",
                10 * batch
            );
        }
    }
}

#[test]
fn a_batch_longer_than_an_empty_queue_keeps_room_for_costs_each_queue_a_few_allocations() {
    let payloads = [packet(Dialect::Seed, Media::Delta, 1_200, false)];
    let mut path = MediaPath::new(Dialect::Seed, 10, EGRESS);
    path.batch(&payloads, 100);
    path.batch(&payloads, 100);
    let taken = allocation_counter::measure(|| {
        path.batch(&payloads, 100);
    });
    let beyond = taken.count_total - 100;
    // Room for 4, then twice as much each time up to 128; all of it is given back when the queue is empty.
    assert!(beyond <= 10 * 6, "{beyond} allocations for ten queues that grow to 100 packets");
}

#[test]
fn drops_cost_less_than_one_allocation_in_ten_copies() {
    let payloads = [Media::Audio, Media::KeyFrame, Media::Delta, Media::Delta]
        .map(|media| packet(Dialect::Seed, media, 1_200, false));
    let mut path = MediaPath::new(Dialect::Seed, 10, EgressLimits { packets: 8, ..EGRESS });
    path.batch(&payloads, 16);
    let before = path.dropped();
    let taken = allocation_counter::measure(|| {
        for _ in 0..10 {
            path.batch(&payloads, 16);
        }
    });
    assert!(path.dropped() - before > 400, "only {} of 1,600 copies were dropped", path.dropped() - before);
    let beyond = taken.count_total - 160;
    assert!(beyond <= 160, "{beyond} allocations for 1,600 copies");
}
