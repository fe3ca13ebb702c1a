//! A network namespace of the test's own, behind a pair of interfaces whose near end sends no faster than it is told.

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// How TCP finds its rate towards the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// Most systems' default.
    Cubic,
    /// Where the system has it.
    Bbr,
}

/// The namespace. It goes, with all that is in it, when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    near: String,
    address: Ipv4Addr,
}

fn run(line: &str) -> io::Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().ok_or(io::ErrorKind::InvalidInput)?;
    let output = Command::new(program).args(words).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

impl Namespace {
    /// Makes one that gets at most so many kilobits a second, of which 100 ms may wait before it.
    ///
    /// # Errors
    /// Where the system does not permit it (it takes root), or has no `ip` and `tc`, or not this congestion control.
    pub fn make(kilobits: u32, congestion: Congestion) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = format!("thin{process}-{count}");
        // Names of interfaces are short. A network of four addresses, of which other processes have others.
        let (near, number) =
            (format!("th{process}{}", char::from(b'a' + (count % 26) as u8)), process * 16 + count % 16);
        let [_, first, second, third] = (number << 2).to_be_bytes();
        let address = |last: u8| Ipv4Addr::new(10, 128 | (first & 0x3f), second, third | last);
        let made = Self { name, near, address: address(1) };
        let Self { name, near, .. } = &made;
        run(&format!("ip netns add {name}"))?;
        run(&format!("ip link add {near} type veth peer name thin netns {name}"))?;
        run(&format!("ip addr add {}/30 dev {near}", address(1)))?;
        // Without segments joined into large ones: a slow interface has none.
        run(&format!("ip link set {near} gso_max_size 1514 gso_max_segs 1 up"))?;
        run(&format!("ip -n {name} addr add {}/30 dev thin", address(2)))?;
        run(&format!("ip -n {name} link set thin up"))?;
        run(&format!("tc qdisc add dev {near} root tbf rate {kilobits}kbit burst 3000 latency 100ms"))?;
        let control = match congestion {
            Congestion::Cubic => "cubic",
            Congestion::Bbr => "bbr",
        };
        run(&format!("ip route change {}/30 dev {near} congctl {control}", address(0)))?;
        Ok(made)
    }

    /// Where a node must listen to be reached from inside.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A program that runs inside.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Also where it was made in part: what is not there is not deleted.
        let _ = run(&format!("ip link del {}", self.near));
        let _ = run(&format!("ip netns del {}", self.name));
    }
}
