//! The bare WebTransport broadcaster.
