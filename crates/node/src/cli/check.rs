//! `roomcast check`: what a running node would say of a configuration, without one.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::config::{self, Change, Settings};

/// The arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The file to check
    file: PathBuf,
    /// Print JSON: file, good, compared_with, changed, errors
    #[arg(long)]
    json: bool,
    /// Compare with this file, as a node that runs on it would when it reloads [default: the built-in defaults]
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

/// Prints the verdict: what differs from the defaults (or from another file) where the file is good, all that is wrong
/// with it where not.
pub(super) fn check(arguments: &Check) -> ExitCode {
    let Check { file, json, against } = arguments;
    let base = match against {
        None => Ok(Settings::default()),
        Some(against) => config::load(Some(against), &[]),
    };
    let compared = base.and_then(|base| Ok(config::diff(&base, &config::load(Some(file), &[])?)));
    let name = against.as_ref().map_or_else(|| "defaults".to_owned(), |path| path.display().to_string());
    let code = if compared.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let printed = match compared {
        _ if *json => {
            let good = compared.is_ok();
            let (changed, errors) = match compared {
                Ok(changed) => (changed, Vec::new()),
                Err(errors) => (Vec::new(), errors.into_vec()),
            };
            let verdict = json!({
                "file": file.display().to_string(),
                "good": good,
                "compared_with": name,
                "changed": changed,
                "errors": errors,
            });
            super::write_out(&format!("{verdict:#}\n"))
        }
        Ok(changed) => super::write_out(&verdict(file, &name, against.is_some(), &changed)),
        Err(errors) => writeln!(std::io::stderr(), "{errors}"),
    };
    match printed {
        // Whoever stopped reading (`| head`) has what they wanted; the exit code still says whether the file is good.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            // Where that cannot be printed either, there is the exit code.
            let _ = writeln!(std::io::stderr(), "the verdict cannot be printed: {error}");
            ExitCode::FAILURE
        }
        _ => code,
    }
}

/// The lines for a good file.
fn verdict(file: &Path, name: &str, reload: bool, changed: &[Change]) -> String {
    let file = file.display();
    if changed.is_empty() {
        return format!("{file}: good; the same as {name}\n");
    }
    let mut out = format!("{file}: good; differs from {name} in:\n");
    for Change { key, old, new, live } in changed {
        let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "not set".to_owned(), Value::to_string);
        let when = match (live, reload) {
            (true, true) => "acts at once",
            (true, false) => "live",
            (false, _) => "waits for a restart",
        };
        out.push_str(&format!("  {key}: {} -> {}  ({when})\n", shown(old), shown(new)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_file_is_told_with_what_differs_and_when_that_acts() {
        let text = "[limits]\nmax_rooms = 3\n[node]\nregion = \"far\"\n[supervision.bus]\nintensity = 4\n";
        let changed = config::diff(&Settings::default(), &config::parse("x", text, &[]).unwrap());
        assert_eq!(
            verdict(Path::new("a.toml"), "defaults", false, &changed),
            "a.toml: good; differs from defaults in:\n  limits.max_rooms: 10000 -> 3  (live)\n  node.region: \"local\" -> \
             \"far\"  (waits for a restart)\n  supervision.bus.intensity: not set -> 4  (live)\n"
        );
        assert_eq!(verdict(Path::new("a.toml"), "defaults", false, &[]), "a.toml: good; the same as defaults\n");
    }
}
