//! `roomcast bench` as a person sees it: progress on standard error, the report on standard output, one file.

use std::fs::OpenOptions;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::plan::{Plan, grouped};
use crate::run::{Phase, Progress, run};

/// Makes the run that the arguments ask for, and prints what came of it. The exit code says whether it could be made.
#[must_use]
pub fn command(arguments: &Arguments) -> ExitCode {
    let failed = |error: &dyn std::fmt::Display| {
        // Where that cannot be printed either, there is the exit code.
        let _ = writeln!(std::io::stderr(), "{error}");
        ExitCode::FAILURE
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    let plan = match Plan::new(arguments, cores) {
        Ok(plan) => plan,
        Err(error) => return failed(&error),
    };
    // Before the run and not after it.
    if let Some(path) = &arguments.plot
        && let Err(error) = OpenOptions::new().create(true).append(true).open(path)
    {
        return failed(&unwritable(path, &error));
    }
    let (summary, duration) = (plan.summary(), plan.duration);
    let mut line = Line { quiet: arguments.quiet, terminal: std::io::stderr().is_terminal(), open: false };
    let result = run(plan, &mut |progress| line.show(&text(progress, duration)));
    line.end();
    let (report, graphs) = match result {
        Ok(result) => result,
        Err(error) => return failed(&error),
    };
    if !arguments.pids.is_empty() && report.routers.is_none() {
        let _ = writeln!(std::io::stderr(), "a process given with --pid ended meanwhile: nothing is told about it");
    }
    let shown = if arguments.json { report.json() } else { report.table(&summary) };
    let mut out = std::io::stdout().lock();
    match out.write_all(shown.as_bytes()).and_then(|()| out.flush()) {
        // Whoever stopped reading (`| head`) has what they wanted.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            return failed(&format_args!("the report cannot be printed: {error}"));
        }
        _ => {}
    }
    match &arguments.plot {
        Some(path) => match std::fs::write(path, graphs.svg()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&unwritable(path, &error)),
        },
        None => ExitCode::SUCCESS,
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> String {
    format!("--plot {}: cannot be written: {error}", path.display())
}

/// One line of progress.
fn text(progress: &Progress, duration: Duration) -> String {
    let load = || {
        format!(
            "{} copies/s, delay p99 {:.1} ms, lost so far {}",
            grouped(progress.copies_per_second.round() as u64),
            progress.delay_p99_ms,
            grouped(progress.lost)
        )
    };
    match progress.phase {
        Phase::Joining => format!("joining: {} of {}", grouped(progress.joined.0), grouped(progress.joined.1)),
        Phase::WarmUp => format!("warming up: {}", load()),
        Phase::Measuring => {
            format!("measuring, {:.0} of {:.0} s: {}", progress.measured.as_secs_f64(), duration.as_secs_f64(), load())
        }
        Phase::LastCopies => format!("waiting for the last copies: {}", load()),
    }
}

/// Where progress goes: one line, written over and over on a terminal.
struct Line {
    quiet: bool,
    terminal: bool,
    open: bool,
}

impl Line {
    fn show(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        // Progress that cannot be printed is no reason to stop.
        let mut out = std::io::stderr().lock();
        let _ = if self.terminal { write!(out, "\r{text}\x1b[K") } else { writeln!(out, "{text}") };
        let _ = out.flush();
        self.open = self.terminal;
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_what_it_is_at() {
        let mut progress = Progress {
            phase: Phase::Joining,
            measured: Duration::from_secs(3),
            joined: (1_200, 10_000),
            copies_per_second: 59_400.4,
            delay_p99_ms: 8.13,
            lost: 2,
        };
        assert_eq!(text(&progress, Duration::from_secs(10)), "joining: 1,200 of 10,000");
        progress.phase = Phase::Measuring;
        assert_eq!(
            text(&progress, Duration::from_secs(10)),
            "measuring, 3 of 10 s: 59,400 copies/s, delay p99 8.1 ms, lost so far 2"
        );
    }
}
