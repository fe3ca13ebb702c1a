//! What processes have used, as Linux tells it in `/proc`, and this system's limit of open files.

use std::fs::read_to_string;
use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Linux gives processor time in hundredths of a second, whatever its own clock.
const TICK: Duration = Duration::from_millis(10);
/// Files that are open besides the connections.
const OTHER_FILES: u64 = 64;

/// What one or several processes have used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time of all threads.
    pub(crate) cpu: Duration,
    /// Resident memory now, and the most so far, in bytes.
    pub(crate) resident: u64,
    pub(crate) peak: u64,
    /// Calls of the `read` and `write` families; Linux does not count `recv` and `send` among them.
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    /// How often threads that live gave up the processor, and lost it.
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
}

/// Why a process's use cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("--pid {pid}: {why}")]
pub struct UsageError {
    /// The process.
    pub pid: u32,
    /// What is wrong.
    pub why: String,
}

/// What these processes have used, together.
pub(crate) fn usage(pids: &[u32]) -> Result<Usage, UsageError> {
    let mut sum = Usage::default();
    for pid in pids {
        let one = of_one(*pid).map_err(|error| UsageError { pid: *pid, why: explain(&error) })?;
        sum.cpu += one.cpu;
        sum.resident += one.resident;
        sum.peak += one.peak;
        sum.reads += one.reads;
        sum.writes += one.writes;
        sum.voluntary += one.voluntary;
        sum.involuntary += one.involuntary;
    }
    Ok(sum)
}

fn explain(error: &io::Error) -> String {
    if cfg!(not(target_os = "linux")) {
        return "processes are only looked at on Linux; leave --pid out".to_owned();
    }
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such process on this machine".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "this user may not look at it; run as the same user as the router".to_owned()
        }
        _ => error.to_string(),
    }
}

fn of_one(pid: u32) -> io::Result<Usage> {
    let stat = read_to_string(format!("/proc/{pid}/stat"))?;
    let status = read_to_string(format!("/proc/{pid}/status"))?;
    let io = read_to_string(format!("/proc/{pid}/io"))?;
    let mut usage = Usage {
        cpu: cpu(&stat).ok_or(io::ErrorKind::InvalidData)?,
        resident: field(&status, "VmRSS:") * 1024,
        peak: field(&status, "VmHWM:") * 1024,
        reads: field(&io, "syscr:"),
        writes: field(&io, "syscw:"),
        ..Usage::default()
    };
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may have ended since it was listed.
        if let Ok(status) = read_to_string(task?.path().join("status")) {
            usage.voluntary += field(&status, "voluntary_ctxt_switches:");
            usage.involuntary += field(&status, "nonvoluntary_ctxt_switches:");
        }
    }
    Ok(usage)
}

/// User and system time from `/proc/PID/stat`.
fn cpu(stat: &str) -> Option<Duration> {
    // The name, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = |index: usize| fields.split(' ').nth(index)?.parse::<u32>().ok();
    Some(TICK * (ticks(11)? + ticks(12)?))
}

/// A line's number in `/proc/PID/status` or `io`; 0 where there is none.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The processor time of this process so far.
pub(crate) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The system does not allow so many open files.
#[derive(Debug, thiserror::Error)]
#[error(
    "{connections} connections need {needed} open files, and this system allows {allowed}; raise it (as root: \
     `ulimit -n {needed}` in the shell that runs this), or lower --rooms or --members"
)]
pub struct TooFewFiles {
    connections: usize,
    needed: u64,
    allowed: u64,
}

/// Lets this process open as many files as the connections need, as far as that is its own to decide.
pub(crate) fn allow_files(connections: usize) -> Result<(), TooFewFiles> {
    let needed = connections as u64 + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    if allowed < needed || setrlimit(Resource::Nofile, raised).is_err() {
        return Err(TooFewFiles {
            connections,
            needed,
            allowed: limit.current.unwrap_or(0).max(allowed.min(needed - 1)),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_as_linux_writes_it() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 500 0 0 0 150 75 0 0 20 0 5 0 100 1000 200 1844 1 1 0 0 0";
        assert_eq!(cpu(stat), Some(Duration::from_millis(2_250)));
        assert_eq!(cpu("nonsense"), None);
        let status =
            "VmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!([field(status, "VmRSS:"), field(status, "VmHWM:")], [1024, 2048]);
        assert_eq!(field(status, "voluntary_ctxt_switches:"), 7);
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), 3);
        assert_eq!(field(status, "VmSwap:"), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen_and_one_that_is_not_there_is_said_so() {
        let used = usage(&[std::process::id()]).unwrap();
        assert!(used.resident > 0 && used.peak >= used.resident, "{used:?}");
        let error = usage(&[u32::MAX]).unwrap_err().to_string();
        assert!(error.contains("no such process"), "{error}");
        assert!(own_cpu() > Duration::ZERO);
    }

    #[test]
    fn more_files_than_any_system_allows_are_refused_with_what_to_do() {
        assert!(allow_files(1).is_ok());
        if getrlimit(Resource::Nofile).maximum.is_some() {
            let error = allow_files(usize::MAX / 2).unwrap_err().to_string();
            assert!(error.contains("ulimit"), "{error}");
        }
    }
}
