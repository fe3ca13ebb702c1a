//! A native client: join, send, receive, reconnect; and clips to send.

pub mod clip;
