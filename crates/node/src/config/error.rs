//! What is said about a configuration that is refused: where, which key, why, and what may stand there instead.

use std::fmt::{self, Write};

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

/// What acts on a terminal, ends a line or turns the text around is shown, not done: keys and values may be anything.
fn escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for character in text.chars() {
        let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns {
            write!(f, "{}", character.escape_default())?;
        } else {
            f.write_char(character)?;
        }
    }
    Ok(())
}

/// One line, whatever the texts hold.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escaped(f, &self.source_name)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            f.write_str(": ")?;
            escaped(f, &self.key)?;
        }
        f.write_str(": ")?;
        escaped(f, &self.reason)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_that_does_nothing_to_a_terminal() {
        let error = ConfigError {
            source_name: "a\nb.toml".into(),
            line: Some(1),
            key: "\"\u{1b}[2J\u{202e}\"".into(),
            reason: "unknown key `\r\u{7f}\u{9b}ü\u{2028}`".into(),
            nearest: None,
        };
        let shown = r#"a\nb.toml:1: "\u{1b}[2J\u{202e}": unknown key `\r\u{7f}\u{9b}ü\u{2028}`"#;
        assert_eq!(error.to_string(), shown);
        assert_eq!(ConfigErrors::new(vec![error.clone(), error]).to_string(), format!("{shown}\n{shown}"));
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        assert_eq!(cut("aüo", 3), "aüo");
        assert_eq!(cut("aüo", 2), "aü…");
        let long = ConfigError {
            source_name: "a.toml".into(),
            line: None,
            key: "ü".repeat(500),
            reason: "ü".repeat(5000),
            nearest: Some("ü".repeat(500)),
        };
        let errors = ConfigErrors::from(long).into_vec();
        let lengths = (errors[0].key.chars().count(), errors[0].reason.chars().count());
        assert_eq!(lengths, (MAX_KEY + 1, MAX_REASON + 1));
        assert_eq!(errors[0].nearest.as_ref().map(|nearest| nearest.chars().count()), Some(MAX_KEY + 1));
    }
}
