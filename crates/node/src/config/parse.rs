//! From a file and `--set` values to settings, or to everything that is wrong with them. Pure but for `load`, which reads
//! the file.

use std::path::Path;

use super::change::written;
use super::check::{Problem, check};
use super::error::{ConfigError, ConfigErrors, MAX_ERRORS};
use super::read::{self, Places, Reading};
use super::settings::Settings;

/// A file that is larger is no configuration: it is not read.
pub const MAX_FILE_BYTES: u64 = 1 << 18;

/// Reads and checks a file, then lays `--set` values over it. Without a file the defaults are the base.
///
/// # Errors
/// Everything that is wrong with the file; if that is good, with the values laid over it.
pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Settings, ConfigErrors> {
    let Some(path) = file else { return parse("defaults", "", overrides) };
    let bytes = read_file(path).map_err(|error| unreadable(path, &error.to_string()))?;
    parse_bytes(path, bytes, overrides)
}

/// A configuration file's bytes.
///
/// # Errors
/// When it cannot be read, is not a file, or is larger than [`MAX_FILE_BYTES`].
pub(crate) fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    read_at_most(path, MAX_FILE_BYTES)
}

/// The bytes of a file that may have at most so many.
///
/// # Errors
/// When it cannot be read, is not a file, or is larger.
pub(crate) fn read_at_most(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    use std::io::{Error, Read};
    let no_file = || Error::other("it is not a file");
    // Opening a pipe might never end, and neither might reading it or a device.
    if !std::fs::metadata(path)?.is_file() {
        return Err(no_file());
    }
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(no_file());
    }
    let mut bytes = Vec::new();
    // Not by its length: that of files which the system makes up, as in /proc, says nothing.
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

/// What is said of a file that cannot be read.
pub(crate) fn unreadable(path: &Path, error: &str) -> ConfigErrors {
    plain(path.display().to_string(), None, String::new(), format!("cannot be read: {error}")).into()
}

/// What is said when it is this program that is wrong.
pub(crate) fn internal(path: Option<&Path>, error: &str) -> ConfigErrors {
    let name = path.map_or_else(|| "defaults".to_owned(), |path| path.display().to_string());
    plain(name, None, String::new(), format!("could not be checked; please report this: {error}")).into()
}

/// The same as [`load`], for bytes that were read already.
pub(crate) fn parse_bytes(path: &Path, bytes: Vec<u8>, overrides: &[String]) -> Result<Settings, ConfigErrors> {
    let name = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        plain(name.clone(), Some(line), String::new(), "is not UTF-8 text".into())
    })?;
    parse(&name, &text, overrides)
}

/// Checks a configuration's text, then lays `--set` values over it.
///
/// # Errors
/// Everything that is wrong with the text; if that is good, with the values laid over it.
pub fn parse(source_name: &str, text: &str, overrides: &[String]) -> Result<Settings, ConfigErrors> {
    let Reading { settings, mut errors, bad } = read::read(source_name, text).map_err(ConfigErrors::new)?;
    let known = |key: &[String]| bad.iter().any(|bad| key.starts_with(bad) || (key.len() == 1 && bad.starts_with(key)));
    let problems = check(&settings).into_iter();
    // Where a default stands in for a bad value, what contradicts it was not meant.
    let problems = problems.filter(|problem| !known(&problem.key) && !problem.with.iter().any(|key| known(key)));
    let mut problems = problems.take(MAX_ERRORS).peekable();
    if problems.peek().is_some() {
        let places = Places::new(text);
        errors.extend(problems.map(|problem| locate(problem, source_name, &places)));
    }
    if !errors.is_empty() {
        return Err(ConfigErrors::new(errors));
    }
    if overrides.is_empty() { Ok(tidy(settings)) } else { lay_over(text, overrides) }
}

/// An empty table of a supervisor says nothing; without it, settings that mean the same are the same key by key.
fn tidy(mut settings: Settings) -> Settings {
    settings.supervision.retain(|_, policy| *policy != Default::default());
    settings
}

/// The text is good; the values may not be.
fn lay_over(text: &str, overrides: &[String]) -> Result<Settings, ConfigErrors> {
    let mut merged: toml::Table = text.parse().expect("the same text was parsed just before");
    let mut settings = Settings::default();
    let mut keys = Vec::new();
    let mut errors = Vec::new();
    for entry in overrides {
        let refused = |key: &[String], reason| plain(format!("--set {entry}"), None, written(key), reason);
        let (key, value) = match split_override(entry) {
            Ok(split) => split,
            Err(reason) => {
                errors.push(refused(&[], reason));
                continue;
            }
        };
        let before = merged.clone();
        if key.first().map(String::as_str) == Some("listen") && !merged.contains_key("listen") {
            // A file without [listen] means all three listeners; a --set for one of them must not switch the others off.
            let all = ["websocket", "webtransport", "admin"].map(|l| (l.to_owned(), toml::Table::new().into()));
            merged.insert("listen".into(), toml::Table::from_iter(all).into());
        }
        if let Err(reason) = insert(&mut merged, &key, value) {
            errors.push(refused(&key, reason));
            merged = before;
            continue;
        }
        let source_name = format!("--set {entry}");
        let found = match read::read(&source_name, &merged.to_string()) {
            Ok(reading) => {
                settings = reading.settings;
                reading.errors
            }
            Err(errors) => errors,
        };
        if !found.is_empty() {
            errors.extend(found.into_iter().map(|error| ConfigError { line: None, ..error }));
            merged = before;
            continue;
        }
        keys.push((key, entry));
    }
    if !errors.is_empty() {
        return Err(ConfigErrors::new(errors));
    }
    // Once all are laid over: what contradicts the file may agree with a later --set.
    let errors: Vec<ConfigError> = check(&settings)
        .into_iter()
        .take(MAX_ERRORS)
        .map(|Problem { key, with, reason, nearest }| {
            let about = |set: &[String]| key.starts_with(set) || with.iter().any(|with| with.starts_with(set));
            let blamed: Vec<String> =
                keys.iter().filter(|(set, _)| about(set)).map(|(_, entry)| format!("--set {entry}")).collect();
            let all = || overrides.iter().map(|entry| format!("--set {entry}")).collect();
            let blamed: Vec<String> = if blamed.is_empty() { all() } else { blamed };
            ConfigError { source_name: blamed.join(" "), line: None, key: written(&key), reason, nearest }
        })
        .collect();
    if errors.is_empty() { Ok(tidy(settings)) } else { Err(ConfigErrors::new(errors)) }
}

fn plain(source_name: String, line: Option<usize>, key: String, reason: String) -> ConfigError {
    ConfigError { source_name, line, key, reason, nearest: None }
}

/// The line of the key; where a default is contradicted, that of the key that contradicts it.
fn locate(problem: Problem, source_name: &str, places: &Places<'_>) -> ConfigError {
    let Problem { key, with, reason, nearest } = problem;
    let found: Vec<_> = std::iter::once(&key).chain(&with).filter_map(|key| places.find(key)).collect();
    let place = found.iter().find(|place| place.exact).or(found.first());
    let line = place.map(|place| place.line);
    ConfigError { source_name: source_name.to_owned(), line, key: written(&key), reason, nearest }
}

/// `a.b.c=value`: the value is TOML where it parses as such, else a string, so that `--set node.name=one` needs no quotes.
fn split_override(entry: &str) -> Result<(Vec<String>, toml::Value), String> {
    let Some((key, value)) = entry.split_once('=') else {
        return Err("has no `=`; write it as key=value, for example --set limits.max_rooms=100".into());
    };
    let mut path = Vec::new();
    let mut rest = key.trim();
    while !rest.is_empty() {
        let (part, tail) = if let Some(quoted) = rest.strip_prefix('"') {
            let Some((part, tail)) = quoted.split_once('"') else { return Err("has a quote without its end".into()) };
            (part, tail.strip_prefix('.').unwrap_or(tail))
        } else {
            let (part, tail) = rest.split_once('.').unwrap_or((rest, ""));
            if part.is_empty() {
                return Err("has an empty part in its key".into());
            }
            (part, tail)
        };
        path.push(part.to_owned());
        rest = tail;
    }
    if path.is_empty() {
        return Err("has no key before `=`".into());
    }
    let value = value.trim();
    let parsed = format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
    Ok((path, parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()))))
}

fn insert(table: &mut toml::Table, path: &[String], value: toml::Value) -> Result<(), String> {
    let (last, parents) = path.split_last().ok_or_else(|| "has no key before `=`".to_owned())?;
    let mut table = table;
    for parent in parents {
        let entry = table.entry(parent.clone()).or_insert_with(|| toml::Table::new().into());
        table = entry.as_table_mut().ok_or_else(|| format!("`{parent}` is a value, not a table"))?;
    }
    table.insert(last.clone(), value);
    Ok(())
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
