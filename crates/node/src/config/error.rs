//! What is said about a configuration that is refused: where, which key, why, and what may stand there instead.

use std::fmt;

use serde::Serialize;

/// More problems than this are cut: who reads that many has the wrong file.
pub const MAX_ERRORS: usize = 50;
/// The most characters of a key in an error: what stands in a bad file may be anything.
const MAX_KEY: usize = 200;
/// The most characters of a reason: enough for a list of all that may stand there.
const MAX_REASON: usize = 1000;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct ConfigError {
    /// The file, or `--set KEY=VALUE`.
    #[serde(rename = "file")]
    pub source_name: String,
    /// The line, from 1, where one is known.
    pub line: Option<usize>,
    /// The key's full path as `--set` takes it, empty where the text is not even TOML; at most 200 characters of it.
    pub key: String,
    /// What is wrong and what may stand there, in at most 1000 characters.
    pub reason: String,
    /// The valid name that is nearest to what was written, where one is near.
    pub nearest: Option<String>,
}

impl ConfigError {
    fn short(self) -> Self {
        let Self { source_name, line, key, reason, nearest } = self;
        let nearest = nearest.map(|nearest| cut(&nearest, MAX_KEY));
        Self { source_name, line, key: cut(&key, MAX_KEY), reason: cut(&reason, MAX_REASON), nearest }
    }
}

/// At most so many characters, with a sign where some are missing.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source_name)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Everything that is wrong with a configuration: at least one problem, at most [`MAX_ERRORS`], in the order of lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Sorts the problems by line and cuts what is too much, of them and in each.
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.line.unwrap_or(usize::MAX));
        errors.truncate(MAX_ERRORS);
        Self(errors.into_iter().map(ConfigError::short).collect())
    }

    /// The problems.
    #[must_use]
    pub fn all(&self) -> &[ConfigError] {
        &self.0
    }

    /// The problems, to keep.
    #[must_use]
    pub fn into_vec(self) -> Vec<ConfigError> {
        self.0
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error.short()])
    }
}

/// One problem a line.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}
