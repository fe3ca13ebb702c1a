//! For tests only: a node in a box, scripted members, third-party peers, clusters of processes, the history checker.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod absences;
pub mod call;
pub mod cluster;
pub mod ffmpeg;
pub mod history;
pub mod http;
pub mod ledger;
pub mod member;
pub mod node_box;
pub mod peers;
pub mod soak;
pub mod thin;

pub use call::{Call, ROOM};
pub use member::{Heard, Member, SOON, content, control};
pub use node_box::{NodeBox, Via, eventually};
