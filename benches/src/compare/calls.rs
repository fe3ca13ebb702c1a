//! System calls of a running process, counted by `perf` (the kernel's tracepoints, which hardly slow it down) or else by
//! `strace` (which slows it down a great deal, so that it is given less to do).
//!
//! `/proc/PID/io` would not do: it counts `read`, `write` and their vectored forms, and no `recv` or `send`.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::workload::RATE;

/// Those that the measured programs are likely to make; all others are in the sum.
const NAMES: [&str; 14] = [
    "read",
    "readv",
    "recvfrom",
    "recvmsg",
    "recvmmsg",
    "write",
    "writev",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "epoll_wait",
    "epoll_pwait2",
    "epoll_ctl",
    "futex",
];

/// Under strace a call costs some 50 µs: a fifteenth of the load leaves time for that.
const STRACE_RATE: u32 = 2;

/// What counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counter {
    Perf,
    Strace,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) all: u64,
    pub(super) by_name: Vec<(String, u64)>,
}

/// A count under way.
pub(super) struct Counting {
    counter: Counter,
    child: Child,
}

impl Counter {
    /// The better one that is there and may be used.
    pub(super) fn find() -> Option<Self> {
        let works = |program: &str, arguments: &[&str]| {
            let run = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
            run.is_ok_and(|status| status.success())
        };
        if works("perf", &["stat", "-e", "raw_syscalls:sys_enter", "true"]) {
            Some(Self::Perf)
        } else if works("strace", &["-c", "-o", "/dev/null", "true"]) {
            Some(Self::Strace)
        } else {
            None
        }
    }

    pub(super) const fn describe(self) -> &'static str {
        match self {
            Self::Perf => "counted by perf in a short round of their own, at full load",
            Self::Strace => {
                "counted by strace in a short round of their own, at a fifteenth of the load because strace slows the process down"
            }
        }
    }

    /// Packets a second and sender that are sent meanwhile.
    pub(super) const fn rate(self) -> u32 {
        match self {
            Self::Perf => RATE,
            Self::Strace => STRACE_RATE,
        }
    }

    /// Begins to count, for so long.
    pub(super) fn begin(self, pid: u32, window: Duration) -> anyhow::Result<Counting> {
        let (pid, seconds) = (pid.to_string(), window.as_secs_f64().to_string());
        let mut command = match self {
            Self::Perf => {
                let events = NAMES.map(|name| format!("syscalls:sys_enter_{name}")).join(",");
                let mut command = Command::new("perf");
                command.args(["stat", "-x,", "-e", &format!("raw_syscalls:sys_enter,{events}"), "-p", &pid]);
                command.args(["--", "sleep", &seconds]);
                command
            }
            Self::Strace => {
                let mut command = Command::new("timeout");
                command.args(["-s", "INT", &seconds, "strace", "-c", "-f", "-p", &pid]);
                command
            }
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        Ok(Counting { counter: self, child })
    }
}

impl Counting {
    /// Waits for the count.
    pub(super) fn end(self) -> anyhow::Result<Counted> {
        let output = self.child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let counted = match self.counter {
            Counter::Perf => from_perf(&text),
            Counter::Strace => from_strace(&text),
        };
        let counted =
            counted.with_context(|| format!("what counts system calls says what is not understood: {text}"))?;
        ensure!(counted.all > 0, "no system call was counted: {text}");
        Ok(counted)
    }
}

/// Reads `perf stat -x,`: the count, a unit, the event.
fn from_perf(text: &str) -> Option<Counted> {
    let mut counted = Counted::default();
    let mut found = false;
    for line in text.lines() {
        let mut fields = line.split(',');
        let (count, event) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        let Ok(count) = count.parse() else { continue };
        if event == "raw_syscalls:sys_enter" {
            (counted.all, found) = (count, true);
        } else if let Some(name) = event.strip_prefix("syscalls:sys_enter_") {
            counted.by_name.push((name.to_owned(), count));
        }
    }
    found.then_some(counted)
}

/// Reads `strace -c`: a table whose fourth column are calls and whose last is the name.
fn from_strace(text: &str) -> Option<Counted> {
    let mut counted = Counted::default();
    let mut found = false;
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(share), Some(calls), Some(name)) = (fields.first(), fields.get(3), fields.last()) else { continue };
        let (Ok(_), Ok(calls)) = (share.parse::<f64>(), calls.parse()) else { continue };
        if *name == "total" {
            (counted.all, found) = (calls, true);
        } else {
            counted.by_name.push(((*name).to_owned(), calls));
        }
    }
    found.then_some(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_perf_and_strace_print_is_read() {
        let perf = "7914,,raw_syscalls:sys_enter,96050833,100.00,,\n<not counted>,,syscalls:sys_enter_read,0,100.00,,\n\
            7000,,syscalls:sys_enter_writev,96109911,100.00,,\n";
        let counted = from_perf(perf).unwrap();
        assert_eq!(counted, Counted { all: 7_914, by_name: vec![("writev".into(), 7_000)] });
        assert_eq!(from_perf("event syntax error"), None);
        let strace = "strace: Process 7 attached\n% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n 91.17    0.148413           5     27360           sendto\n  \
            8.83    0.014381           7      2021       979 recvfrom\n100.00    0.162794           5     29381       979 total\n";
        let counted = from_strace(strace).unwrap();
        assert_eq!(
            counted,
            Counted { all: 29_381, by_name: vec![("sendto".into(), 27_360), ("recvfrom".into(), 2_021)] }
        );
        assert_eq!(from_strace("strace: attach: ptrace(PTRACE_SEIZE, 7): Operation not permitted"), None);
    }
}
