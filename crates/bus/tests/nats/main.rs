//! The bus on NATS against real brokers: the conformance suite with both versions, and what is its own: outages, limits, credentials.

#![allow(clippy::unwrap_used)]

mod access;
mod common;
mod conformance;
mod limits;
mod outages;
mod proxy;
mod task;
