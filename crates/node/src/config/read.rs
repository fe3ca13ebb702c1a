//! TOML text to settings: syntax, unknown keys and types, every problem of them, each with its key and line. What the
//! values mean is not looked at here.
//!
//! All problems are found by asking serde again and again: what it complains about is noted and taken out, so that its
//! default stands in, until it is content. So the types of the settings are the only description of what may be written.

use std::ops::Range;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::de::{DeTable, DeValue};

use super::change::written;
use super::document::{Document, Lines, MAX_VALUES};
use super::error::{ConfigError, MAX_ERRORS, cut};
use super::settings::Settings;
use super::suggest::nearest;

/// The most characters of an unknown name inside a reason: what may stand there instead follows, and must not be cut.
const MAX_NAME: usize = 64;

/// What a text says.
pub(super) struct Reading {
    /// The settings, with the default where a value was no good.
    pub(super) settings: Settings,
    /// What was no good.
    pub(super) errors: Vec<ConfigError>,
    /// The paths of the keys in `errors`: nothing more is to be said about them.
    pub(super) bad: Vec<Vec<String>>,
}

/// Reads a text. `None` for the settings' sake: when it is not TOML, nothing else about it is worth saying.
pub(super) fn read(source_name: &str, text: &str) -> Result<Reading, Vec<ConfigError>> {
    let Document { table: mut document, syntax, values } = Document::new(text);
    let lines = Lines::new(text);
    let mut errors = syntax_errors(source_name, &lines, text, &syntax);
    if syntax.iter().any(|error| error.message() != DUPLICATE) {
        return Err(errors);
    }
    if values > MAX_VALUES {
        let reason = format!("holds more than {MAX_VALUES} values: no configuration needs as many");
        let source_name = source_name.to_owned();
        return Err(vec![ConfigError { source_name, line: None, key: String::new(), reason, nearest: None }]);
    }
    let mut bad: Vec<Vec<String>> = Vec::new();
    for (path, line) in lists_for_tables(&document, &lines) {
        remove(&mut document, &path);
        let reason = "invalid type: list, expected a table".to_owned();
        let (source_name, key) = (source_name.to_owned(), written(&path));
        errors.push(ConfigError { source_name, line: Some(line), key, reason, nearest: None });
        bad.push(path);
    }
    loop {
        let spanned = toml::Spanned::new(0..text.len(), document.clone());
        let error = match Settings::deserialize(spanned.into_deserializer()) {
            Ok(settings) => return Ok(Reading { settings, errors, bad }),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        let mut path = path_at(&document, &span);
        let message = error.message().trim();
        let (reason, nearest) = explain(message);
        if let Some(unknown) = quoted(message, "unknown field ")
            && path.last().map(String::as_str) != Some(unknown)
        {
            path.push(unknown.to_owned());
        }
        let removed = remove(&mut document, &path);
        if removed && message.starts_with("missing field") && bad.iter().any(|bad| bad.starts_with(&path)) {
            // Missing only because it was taken out.
            continue;
        }
        errors.push(ConfigError {
            source_name: source_name.to_owned(),
            line: Some(lines.of(span.start)),
            key: written(&path),
            reason,
            nearest,
        });
        bad.push(path);
        if !removed || errors.len() >= MAX_ERRORS {
            return Err(errors);
        }
    }
}

/// Where the keys of a text are. The text is read once for all of them.
pub(super) struct Places<'a> {
    table: DeTable<'a>,
    lines: Lines<'a>,
}

impl<'a> Places<'a> {
    /// Reads a text.
    pub(super) fn new(text: &'a str) -> Self {
        Self { table: Document::new(text).table, lines: Lines::new(text) }
    }

    /// The line of a key, or of what is nearest above it.
    pub(super) fn find(&self, path: &[String]) -> Option<Place> {
        let mut table = &self.table;
        let mut place = None;
        for (depth, part) in path.iter().enumerate() {
            let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == part.as_str()) else { break };
            place = Some(Place { line: self.lines.of(key.span().start), exact: depth + 1 == path.len() });
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        place
    }
}

/// Where a key is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) line: usize,
    /// Whether it is the key's own line, not that of a table around it.
    pub(super) exact: bool,
}

const DUPLICATE: &str = "duplicate key";

/// One error a line, the first there, and no more than anybody reads: a text that is no TOML at all has one nearly everywhere.
fn syntax_errors(source_name: &str, lines: &Lines<'_>, text: &str, syntax: &[toml::de::Error]) -> Vec<ConfigError> {
    // At the end of a text without a value, the last line is meant, not the one after it.
    let end = text.trim_end().len();
    let mut places: Vec<(usize, &toml::de::Error)> =
        syntax.iter().map(|error| (lines.of(error.span().map_or(0, |span| span.start).min(end)), error)).collect();
    places.sort_by_key(|(line, _)| *line);
    places.dedup_by_key(|(line, _)| *line);
    if places.is_empty() {
        return Vec::new();
    }
    let headers: Vec<usize> = (1..=lines.count()).filter(|line| header_on(lines.text(*line)).is_some()).collect();
    let told = places.into_iter().take(MAX_ERRORS);
    told.map(|(line, error)| {
        let key = key_on_line(lines, &headers, line);
        syntax_error(source_name, line, key, error.message().trim())
    })
    .collect()
}

fn syntax_error(source_name: &str, line: usize, key: String, message: &str) -> ConfigError {
    // What the parser would have taken instead is no help when quotes are missing.
    let message = message.strip_suffix(", expected literal string").unwrap_or(message);
    let reason = if message == DUPLICATE {
        "is set twice; keep one".to_owned()
    } else {
        format!("is not valid TOML: {message}")
    };
    ConfigError { source_name: source_name.to_owned(), line: Some(line), key, reason, nearest: None }
}

/// The key that is written on a line which may not be TOML, under the last of the headers above it: a best effort, for
/// people.
fn key_on_line(lines: &Lines<'_>, headers: &[usize], line: usize) -> String {
    let text = lines.text(line);
    if let Some(header) = header_on(text) {
        return header.to_owned();
    }
    let Some((key, _)) = text.split_once(['=', ':']) else { return String::new() };
    let above = headers[..headers.partition_point(|header| *header < line)].last();
    match above.and_then(|header| header_on(lines.text(*header))) {
        Some(header) => format!("{header}.{}", key.trim()),
        None => key.trim().to_owned(),
    }
}

fn header_on(line: &str) -> Option<&str> {
    line.trim().strip_prefix('[').map(|rest| rest.trim_matches(['[', ']', ' ']))
}

/// Where a list stands in a table's place. Serde would take its elements for the table's values, one after the other.
fn lists_for_tables(document: &DeTable<'_>, lines: &Lines<'_>) -> Vec<(Vec<String>, usize)> {
    fn walk(table: &DeTable<'_>, path: &mut Vec<String>, found: &mut dyn FnMut(&[String], usize)) {
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            match value.get_ref() {
                DeValue::Table(inner) => walk(inner, path, found),
                DeValue::Array(_) => found(path, key.span().start),
                _ => {}
            }
            path.pop();
        }
    }
    let defaults = serde_json::to_value(Settings::default()).unwrap_or_default();
    let is_table = |path: &[String]| match path {
        [section, _] if section == "supervision" => true,
        [section, _, key] if section == "supervision" => key == "backoff",
        _ => path.iter().try_fold(&defaults, |value, key| value.get(key)).is_some_and(serde_json::Value::is_object),
    };
    let mut lists = Vec::new();
    walk(document, &mut Vec::new(), &mut |path, start| {
        if is_table(path) && lists.len() < MAX_ERRORS {
            lists.push((path.to_vec(), lines.of(start)));
        }
    });
    lists
}

/// Makes serde's sentence one that says what to do, with the nearest valid name.
fn explain(message: &str) -> (String, Option<String>) {
    let Some(unknown) = quoted(message, "unknown field ").or_else(|| quoted(message, "unknown variant ")) else {
        return (in_words(message), None);
    };
    let known = message.split("expected").nth(1).unwrap_or_default();
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    let near = nearest(unknown, known.iter().copied());
    let unknown = cut(unknown, MAX_NAME);
    let what = if message.starts_with("unknown field") { "unknown key" } else { "unknown value" };
    let reason = match near {
        Some(near) => format!("{what} `{unknown}`; did you mean `{near}`?"),
        None if known.is_empty() => format!("{what} `{unknown}`; nothing may stand here"),
        None => format!("{what} `{unknown}`; known here: {}", known.join(", ")),
    };
    (reason, near.map(str::to_owned))
}

/// The types' names in words that an operator knows.
fn in_words(message: &str) -> String {
    let Some((given, expected)) = message.rsplit_once(", expected ") else { return message.to_owned() };
    let expected = match expected {
        "usize" | "u32" | "u64" => "a whole number from 0 (and not beyond all bounds)",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list in [ ]",
        "a map" => "a table",
        "path string" => "a path in quotes",
        "a string" => "text in quotes",
        "string or map" => "text in quotes or a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    format!("{given}, expected {expected}")
}

fn quoted<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    message.strip_prefix(before)?.strip_prefix('`')?.split('`').next()
}

/// The path of the innermost key whose key or value covers the span.
fn path_at(table: &DeTable<'_>, span: &Range<usize>) -> Vec<String> {
    let covers = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in table {
        let name = || vec![key.get_ref().to_string()];
        if covers(key.span()) {
            return name();
        }
        let inner = match value.get_ref() {
            DeValue::Table(inner) => path_at(inner, span),
            _ => Vec::new(),
        };
        if !inner.is_empty() {
            return [name(), inner].concat();
        }
        if covers(value.span()) {
            return name();
        }
    }
    Vec::new()
}

fn remove(table: &mut DeTable<'_>, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    let Some(key) = table.keys().find(|key| key.get_ref() == first.as_str()).cloned() else { return false };
    if rest.is_empty() {
        return table.remove(&key).is_some();
    }
    match table.get_mut(&key).map(toml::Spanned::get_mut) {
        Some(DeValue::Table(inner)) => remove(inner, rest),
        _ => false,
    }
}
