//! The router's process: started on free ports, looked at from outside, stopped in order.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Linux gives processor time in hundredths of a second, whatever its own clock.
const TICK: Duration = Duration::from_millis(10);

/// A running router.
pub(crate) struct Router {
    child: Child,
    /// Where WebSocket clients connect: `127.0.0.1:PORT`.
    pub(crate) websocket: String,
}

impl Router {
    /// Starts one on the defaults, but for `settings`.
    pub(crate) async fn start(binary: &Path, settings: &[String]) -> anyhow::Result<Self> {
        let mut child = Command::new(binary)
            // The file that shows every default, and so changes none.
            .args(["serve", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/../supervisor.toml")])
            .args(["--set", "listen.websocket.bind=127.0.0.1:0"])
            .args(["--set", "listen.webtransport.bind=127.0.0.1:0", "--set", "listen.admin.bind=127.0.0.1:0"])
            .args(["--set", "telemetry.log=warn"])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be run; build it with cargo build --release", binary.display()))?;
        let mut lines = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
        let banner = async {
            while let Some(line) = lines.next_line().await? {
                if let Some((_, rest)) = line.split_once("ws://") {
                    let address = rest.split('/').next().unwrap_or_default().to_owned();
                    return Ok(address);
                }
            }
            bail!("the router ended before it said where to connect")
        };
        let websocket = timeout(Duration::from_secs(10), banner).await.context("the router says nothing")??;
        // The rest of its output is of no interest, but must have somewhere to go.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, websocket })
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(&self.child.id().context("the router ended")?.to_string())
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let id = self.child.id().context("the router ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
        Ok(kib * 1024)
    }

    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        Ok(())
    }
}

/// User and system time of a process, by its id or `self`.
pub(crate) fn cpu_of(process: &str) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |index: usize| fields.get(index).context("too few fields")?.parse::<u32>().context("no number");
    Ok(TICK * (ticks(11)? + ticks(12)?))
}
