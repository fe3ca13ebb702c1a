//! A member of a room that only listens, in a process of its own so that it can be in a network of its own: prints a line for each
//! packet of media, until its input ends.
//!
//! `roomcast-thin-receiver URL`

use std::io::{Read, Write};
use std::time::Duration;

use roomcast_protocol::PacketBuffer;
use roomcast_testkit::SOON;
use roomcast_testkit::thin::{Heard, now_micros, read};
use roomcast_transport::tls::ClientTrust;
use roomcast_transport::{Incoming, PacketReader, websocket, webtransport};
use url::Url;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Some(url) = std::env::args().nth(1) else { anyhow::bail!("usage: roomcast-thin-receiver URL") };
    std::thread::spawn(|| {
        // An error is an end as well.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let trust = ClientTrust::Insecure;
    if url.starts_with("https:") {
        let (reader, _writer) = webtransport::connect(&url, &trust, SOON).await?;
        listen(reader).await
    } else {
        let (reader, _writer) = websocket::connect(&Url::parse(&url)?, &trust, SOON).await?;
        listen(reader).await
    }
}

async fn listen(mut reader: impl PacketReader) -> anyhow::Result<()> {
    let mut buffer = PacketBuffer::new();
    let mut out = std::io::stdout();
    writeln!(out, "joined")?;
    out.flush()?;
    loop {
        match reader.read(&mut buffer).await? {
            Incoming::Packet => {
                if let Some(picture) = read(buffer.payload()) {
                    let delay = Duration::from_micros(now_micros().saturating_sub(picture.sent));
                    writeln!(out, "{}", Heard { picture, delay }.line())?;
                }
            }
            Incoming::Ping(_) | Incoming::Alive => {}
            Incoming::Closed(code) => anyhow::bail!("closed with {code:?}"),
        }
    }
}
