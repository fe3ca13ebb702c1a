//! The fuzz targets' bodies on a stable toolchain: changed packets and paths from a fixed seed, or for as long as
//! `ROOMCAST_FUZZ_SECONDS` says, from a new one.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::time::{Duration, Instant};

use fastrand::Rng;
use roomcast_protocol::fuzz::{check_lobby, check_peek};

/// Inputs of a run without a time.
const INPUTS: u32 = 20_000;

fn bounded_run(corpus: &[Vec<u8>], dictionary: &[&[u8]], check: fn(&[u8])) {
    let seconds =
        std::env::var("ROOMCAST_FUZZ_SECONDS").ok().map(|text| text.parse().expect("a whole number of seconds"));
    let seed = if seconds.is_some() { fastrand::u64(..) } else { 1 };
    let mut rng = Rng::with_seed(seed);
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut inputs = 0_u64;
    while until.map_or(inputs < u64::from(INPUTS), |until| Instant::now() < until) {
        let input = change(&mut rng, corpus, dictionary);
        if std::panic::catch_unwind(|| check(&input)).is_err() {
            panic!("seed {seed}, input {inputs}: {}", hex::encode(input));
        }
        inputs += 1;
    }
    println!("{inputs} inputs from seed {seed}");
}

/// One of the corpus with a few bytes set, inserted, removed, repeated or joined to another.
fn change(rng: &mut Rng, corpus: &[Vec<u8>], dictionary: &[&[u8]]) -> Vec<u8> {
    let mut input = corpus[rng.usize(..corpus.len())].clone();
    for _ in 0..rng.usize(1..6) {
        // Near the front more often than far behind, where a packet has its structure.
        let bound = if rng.bool() { 64.min(input.len()) } else { input.len() };
        let at = rng.usize(..=bound);
        let end = rng.usize(at..=input.len());
        match rng.u8(..7) {
            0 => input.insert(at, rng.u8(..)),
            1 if at < input.len() => input[at] = rng.u8(..),
            2 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
            3 => _ = input.drain(at..end.min(at + 8)),
            4 => input.extend_from_within(at..end),
            5 => _ = input.splice(at..at, dictionary[rng.usize(..dictionary.len())].iter().copied()),
            _ => input.extend_from_slice(&corpus[rng.usize(..corpus.len())]),
        }
        input.truncate(4_096);
    }
    input
}

#[test]
fn the_peek_takes_any_bytes() {
    let corpus: Vec<Vec<u8>> = [include_str!("vectors/seed.json"), include_str!("vectors/sessions.json")]
        .into_iter()
        .flat_map(|text| serde_json::from_str::<Vec<serde_json::Value>>(text).unwrap())
        .map(|vector| hex::decode(vector["hex"].as_str().unwrap()).unwrap())
        .collect();
    let dictionary: [&[u8]; 9] = [
        b"\x7a\x08\x08\x02\x10\x01\x18\x03\x20\x04", // a hint
        b"\x7a\x02\x08\x00",
        b"\x33\x34", // a group
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x80\x80\x00",
        b"\x1a\x00",
        b"\x22\x03key",
        b"\x20\x07",
        b"\x42\x04\x08\x07\x10\x01",
    ];
    bounded_run(&corpus, &dictionary, check_peek);
}

#[test]
fn the_lobby_parser_takes_any_bytes() {
    let corpus: Vec<Vec<u8>> =
        include_str!("vectors/targets.txt").lines().map(|line| line.as_bytes().to_vec()).collect();
    let dictionary: [&[u8]; 10] = [b"/", b"%", b"%2E", b"%2e", b"..", b"*", b">", b"\0", b"%FF", b"?"];
    bounded_run(&corpus, &dictionary, check_lobby);
}
