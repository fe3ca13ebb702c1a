//! On what it was measured, and what.

use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// The machine, the day, and the code.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cores: usize,
    pub(super) processor: String,
    pub(super) memory_gib: u64,
    pub(super) kernel: String,
    pub(super) rustc: String,
    pub(super) date: String,
    /// With a word when the work tree has changes that are not in it.
    pub(super) commit: String,
}

impl Machine {
    pub(super) fn look(root: &Path) -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).current_dir(root).output();
            let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
            text.unwrap_or_default()
        };
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, rest)| rest.trim().to_owned()).unwrap_or_default()
        };
        let memory = after(&file("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let mut commit = said("git", &["rev-parse", "--short", "HEAD"]);
        if !said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() {
            commit.push_str(" with changes");
        }
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: after(&file("/proc/cpuinfo"), "model name"),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: file("/proc/sys/kernel/osrelease").split('-').next().unwrap_or_default().trim().to_owned(),
            rustc: said("rustc", &["--version"]).split(' ').nth(1).unwrap_or_default().to_owned(),
            date: said("date", &["-u", "+%Y-%m-%d"]),
            commit,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, processor, memory_gib, kernel, rustc, date, commit } = self;
        write!(
            f,
            "{date}, commit {commit}; {cores} cores ({processor}), {memory_gib} GiB, Linux {kernel}, Rust {rustc}"
        )
    }
}
