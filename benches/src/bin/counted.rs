//! What is counted: a scenario, so many times. `roomcast-benches count` runs it under valgrind. Prints how many copies it made.

use anyhow::{Context, bail};
use roomcast_benches::media_path::{EGRESS, MediaPath};
use roomcast_benches::samples::{Media, packet};
use roomcast_protocol::Dialect;
use roomcast_relay::EgressLimits;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().context("which scenario?")?;
    let times: u64 = arguments.next().context("how many times?")?.parse()?;
    let copies = match name.as_str() {
        // Sound and picture in the clear: the content is looked into.
        "room-of-100" => relay(Dialect::Seed, false, 99, 16, EGRESS, times),
        "room-of-5" => relay(Dialect::Seed, false, 4, 1, EGRESS, times),
        // Encrypted, with a hint, and stamped.
        "room-of-100-encrypted" => relay(Dialect::Sessions, true, 99, 16, EGRESS, times),
        "room-of-5-encrypted" => relay(Dialect::Sessions, true, 4, 1, EGRESS, times),
        // Twice as much as there is room for.
        "room-of-5-under-pressure" => relay(Dialect::Seed, false, 4, 16, EgressLimits { packets: 8, ..EGRESS }, times),
        _ => bail!("there is no scenario {name}"),
    };
    println!("{copies}");
    Ok(())
}

/// Copies that were offered: each costs, whether it was handed out or dropped.
fn relay(dialect: Dialect, hint: bool, recipients: usize, batch: usize, limits: EgressLimits, times: u64) -> u64 {
    let media = [
        (Media::Audio, 160),
        (Media::Delta, 1_200),
        (Media::Audio, 160),
        (Media::Delta, 1_200),
        (Media::KeyFrame, 12_000),
        (Media::Delta, 1_200),
        (Media::Audio, 160),
        (Media::Delta, 1_200),
    ];
    let payloads = media.map(|(media, bytes)| packet(dialect, media, bytes, hint));
    let mut path = MediaPath::new(dialect, recipients, limits);
    let mut copies = 0;
    let mut next = payloads.iter().cycle();
    for _ in 0..times {
        for payload in next.by_ref().take(batch) {
            if let Some(packet) = path.take_in(payload) {
                path.fan_out(&packet);
            }
        }
        copies += path.drain();
    }
    copies + path.dropped()
}
