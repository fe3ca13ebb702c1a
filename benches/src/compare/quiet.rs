//! Whether the machine was quiet: what processes other than the measured ones used meanwhile.

use std::collections::HashMap;
use std::time::Instant;

use serde::Serialize;

use crate::process::ticks;

/// Others may use this part of one core, all together.
pub(super) const MOST_OTHERS: f64 = 0.05;

/// The load average, over a minute, from which on a machine is not quiet before anything starts.
pub(super) const MOST_LOAD: f64 = 0.3;

/// What the others used.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct OthersUsed {
    /// As a part of one core.
    pub(super) cores: f64,
    /// The name of the one that used most.
    pub(super) busiest: String,
}

impl OthersUsed {
    /// What to say when it was too much.
    pub(super) fn complaint(&self) -> Option<String> {
        let percent = self.cores * 100.0;
        (self.cores > MOST_OTHERS)
            .then(|| format!("NOT QUIET: others used {percent:.0} % of a core, most of all {}", self.busiest))
    }
}

/// A look at all other processes at the beginning of a window.
pub(super) struct Others {
    server: u32,
    begin: Instant,
    used: HashMap<u32, Used>,
}

/// Hundredths of a second.
#[derive(Clone, Copy, Default)]
struct Used {
    own: u64,
    /// Of its children that ended and that it has waited for.
    children: u64,
}

impl Others {
    pub(super) fn begin(server: u32) -> Self {
        Self { server, begin: Instant::now(), used: look(server) }
    }

    pub(super) fn end(self) -> OthersUsed {
        let seconds = self.begin.elapsed().as_secs_f64().max(0.1);
        let now = look(self.server);
        // What ended meanwhile is in its parent's children, whole: what it had used before is taken off with the begin.
        let sum = |used: &HashMap<u32, Used>| used.values().map(|used| used.own + used.children).sum::<u64>();
        let all = sum(&now).saturating_sub(sum(&self.used));
        let grown = |(pid, used): (&u32, &Used)| {
            let before = self.used.get(pid).copied().unwrap_or_default();
            (used.own.saturating_sub(before.own), *pid)
        };
        let busiest = now.iter().map(grown).max().filter(|(used, _)| *used > 0);
        OthersUsed {
            cores: all as f64 / 100.0 / seconds,
            busiest: busiest.map_or_else(|| "short ones".to_owned(), |(_, pid)| name(pid)),
        }
    }
}

/// All processes but this one, what it started, and the server. The kernel's threads that carry packets work for whoever sent
/// them, so they are no others either.
fn look(server: u32) -> HashMap<u32, Used> {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| ![own, server].contains(pid) && parent(*pid) != Some(own) && !name(*pid).starts_with("ksoftirqd"))
        .filter_map(|pid| ticks(pid).map(|(own, children)| (pid, Used { own, children })))
        .collect()
}

fn name(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Over the last minute; 0 where the system does not say.
pub(super) fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_is_complained_about_and_a_quiet_one_not() {
        assert_eq!(OthersUsed { cores: 0.04, busiest: "cron".into() }.complaint(), None);
        let complaint = OthersUsed { cores: 0.81, busiest: "rustc".into() }.complaint().unwrap();
        assert!(complaint.contains("81 % of a core, most of all rustc"), "{complaint}");
    }

    #[test]
    fn this_process_and_what_it_started_are_not_among_the_others() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let looked = look(std::process::id());
        let (own, of_child) = (looked.contains_key(&std::process::id()), looked.contains_key(&child.id()));
        let _ = child.kill();
        let _ = child.wait();
        assert!(!own && !of_child);
        // There is at least the one that started this.
        assert!(looked.contains_key(&std::os::unix::process::parent_id()), "{:?}", looked.keys());
    }
}
