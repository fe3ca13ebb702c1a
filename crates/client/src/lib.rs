//! A native client: join, send, receive, reconnect.
