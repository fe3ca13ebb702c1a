//! What this process uses, as Linux tells it.

use std::time::Duration;

/// Clock ticks per second in `/proc`: the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// Processor time of all threads so far.
///
/// # Panics
/// Where there is no `/proc`.
#[must_use]
pub fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc tells about this process");
    // The program's name, in parentheses, may hold anything; fields are counted from behind it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / TICKS)
}

/// Bytes of memory that are resident.
///
/// # Panics
/// Where there is no `/proc`.
#[must_use]
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc tells about this process");
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kilobytes.and_then(|number| number.parse::<u64>().ok()).expect("/proc tells what is resident") * 1024
}

/// Open file descriptors.
///
/// # Panics
/// Where there is no `/proc`.
#[must_use]
pub fn file_descriptors() -> usize {
    // One of them is the folder itself, being read.
    std::fs::read_dir("/proc/self/fd").expect("/proc tells about this process").count() - 1
}

/// By how much timers of 10 ms come late, for so long: what a busy machine adds to every time that is measured on it.
pub async fn timer_lags(time: Duration) -> Vec<Duration> {
    const STEP: Duration = Duration::from_millis(10);
    let begin = tokio::time::Instant::now();
    let mut lags = Vec::new();
    while begin.elapsed() < time {
        let due = tokio::time::Instant::now() + STEP;
        tokio::time::sleep_until(due).await;
        lags.push(due.elapsed());
    }
    lags
}
