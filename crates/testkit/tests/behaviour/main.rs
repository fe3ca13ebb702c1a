//! What a running node promises, over real sockets: one file a subject, one test a sentence.
#![allow(clippy::unwrap_used)]

mod crashes;
mod rooms;
