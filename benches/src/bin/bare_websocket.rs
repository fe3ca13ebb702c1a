//! The bare WebSocket broadcaster as a program: see `roomcast_benches::bare`. Prints where it listens, then serves until it
//! is stopped.

use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use roomcast_benches::bare::{certificate, websocket::Broadcaster};

/// The least that a WebSocket broadcaster can do, on one core. A line on its standard input asks for its count of drops.
#[derive(Debug, Parser)]
struct Arguments {
    /// The port on 127.0.0.1; 0: any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Speak TLS, with a certificate that nobody signed
    #[arg(long)]
    tls: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let tls = arguments.tls.then(settings).transpose()?;
    let mut broadcaster = Broadcaster::bind(arguments.port, tls).context("cannot listen")?;
    let scheme = if arguments.tls { "wss" } else { "ws" };
    println!("{scheme}://{}", broadcaster.address()?);
    std::io::stdout().flush()?;
    Ok(broadcaster.run()?)
}

fn settings() -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let (certificate, key) = certificate::self_signed()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let settings = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(Arc::new(settings))
}
