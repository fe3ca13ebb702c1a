//! What a running node promises, over real sockets: one file a subject, one test a sentence.
#![allow(clippy::unwrap_used)]

mod admin;
mod asking;
mod calls;
mod cluster;
mod crashes;
mod drain;
mod events;
mod hostile;
mod operator;
mod raw;
mod rooms;
mod third_party;
