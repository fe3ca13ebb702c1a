//! The router itself: the actors, the tree, configuration, administration. Binary: `roomcast`.
//!
//! [`Node::start`] runs one node in this process; several may run side by side.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod actors;
pub mod cli;
pub mod config;
pub mod metrics;
mod node;
mod observe;
mod policy;
pub mod store;
mod token;
mod tree;
pub mod view;

pub use node::{LogControl, Node, NodeError, NodeOptions};
