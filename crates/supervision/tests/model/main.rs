//! Random sequences of faults, admin calls, clock steps and policy changes, against the real runtime and against a
//! reference of the contract (`reference.rs`), which have to agree after every step.
//!
//! A failure prints the seed of its sequence and the sequence, made as short as dropping steps makes it.
//! `ROOMCAST_MODEL_SEED=… ROOMCAST_MODEL_SEQUENCES=1` replays it; more sequences, or other seeds, the same way.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod calls;
mod case;
mod play;
mod reference;
mod stage;
mod world;

use case::{Kind, Plot};

#[test]
fn one_supervisor_whose_restarts_wait() {
    play::many("flat-waits", 3_500, Plot { kind: Kind::Waits, depth: 1, steps: 30 });
}

#[test]
fn one_supervisor_whose_children_are_slow() {
    play::many("flat-slow", 2_000, Plot { kind: Kind::Slow, depth: 1, steps: 20 });
}

#[test]
fn nested_supervisors_whose_restarts_wait() {
    play::many("nested-waits", 3_000, Plot { kind: Kind::Waits, depth: 3, steps: 40 });
}

#[test]
fn nested_supervisors_whose_children_are_slow() {
    play::many("nested-slow", 1_500, Plot { kind: Kind::Slow, depth: 3, steps: 30 });
}
