//! The decisions of the media path, sans-IO: admission, limits, membership, egress queues and what they drop.
//!
//! What lives here: pure state and pure decisions. What does not: sockets, tasks, locks around shared state, and any clock;
//! time is an argument ([`Time`]), so every test runs in simulated time. Compiles for wasm32.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admission;
pub mod budget;
pub mod cluster;
pub mod density;
pub mod drain;
pub mod egress;
pub mod ingress;
pub mod membership;
pub mod proxy;
pub mod reason;
pub mod time;

pub use admission::{AdmissionLimits, Load, PerAddress, Refused, admit};
pub use budget::{Budget, Share};
pub use density::Density;
pub use egress::{Batch, Drained, EgressLimits, EgressQueue, Pushed, Queued};
pub use ingress::{Ingress, IngressLimits, Verdict};
pub use membership::{EnterError, Membership};
pub use proxy::{Network, NetworkError, client_ip};
pub use reason::DropReason;
pub use time::Time;
