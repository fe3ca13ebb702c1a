//! What the programs and micro-benchmarks of this package share: the bare broadcasters that the router is held against.
//!
//! Nothing of the router is built from it.

pub mod bare;
