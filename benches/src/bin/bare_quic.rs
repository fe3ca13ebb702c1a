//! The bare WebTransport broadcaster as a program.

fn main() {}
