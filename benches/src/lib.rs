//! What the programs and micro-benchmarks of this package share: the bare broadcasters that the router is held against, packets
//! to measure with, and the router's decisions in a row.
//!
//! Nothing of the router is built from it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bare;
pub mod media_path;
pub mod samples;
