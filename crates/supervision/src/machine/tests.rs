//! The machine's own tests.
