//! The configuration of a node: what is refused and how that is said, and what a running node does when its file changes.
#![allow(clippy::unwrap_used)]

mod check;
mod properties;
mod refusals;
mod reloading;
mod strategies;
mod support;
mod watching;
