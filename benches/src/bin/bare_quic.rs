//! The bare WebTransport broadcaster as a program: see `roomcast_benches::bare`. Prints where it listens, then serves until it
//! is stopped.

use std::io::Write;

use clap::Parser;
use roomcast_benches::bare::quic::Broadcaster;
use tokio::io::{AsyncBufReadExt, BufReader};

/// The least that a WebTransport broadcaster can do with quinn. A line on its standard input asks for its count of drops.
#[derive(Debug, Parser)]
struct Arguments {
    /// The port on 127.0.0.1; 0: any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let broadcaster = Broadcaster::bind(arguments.port)?;
    println!("https://{}", broadcaster.address()?);
    std::io::stdout().flush()?;
    let asked = async {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(_)) = lines.next_line().await {
            println!("dropped {}", broadcaster.dropped());
        }
    };
    tokio::join!(broadcaster.run(), asked);
    Ok(())
}
