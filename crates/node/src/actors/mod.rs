//! The actors, one file each. `tree.rs` says who supervises whom.

pub mod admin;
pub mod certificates;
pub mod config;
pub mod connection;
pub mod drain;
pub mod flusher;
pub mod link;
pub mod presence;
pub mod room;
pub mod subscription;
pub mod telemetry;
pub mod websocket_listener;
pub mod webtransport_listener;
