//! Words and numbers as people read them, and colours where there is a terminal. Pure.

use std::time::Duration;

/// How text may be marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether escape sequences are understood.
    pub colour: bool,
}

impl Style {
    /// What is all right.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.mark(text, "32")
    }

    /// What is on its way.
    #[must_use]
    pub fn doubtful(self, text: &str) -> String {
        self.mark(text, "33")
    }

    /// What needs a look.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.mark(text, "31;1")
    }

    /// What leads.
    #[must_use]
    pub fn strong(self, text: &str) -> String {
        self.mark(text, "1")
    }

    /// What stands back.
    #[must_use]
    pub fn faint(self, text: &str) -> String {
        self.mark(text, "2")
    }

    fn mark(self, text: &str, code: &str) -> String {
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A time in its two largest units: `350ms`, `45s`, `2m 10s`, `3h 4m`, `5d 2h`.
#[must_use]
pub fn ago(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d {}h", hours % 24),
        () if hours > 0 => format!("{hours}h {}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m {}s", seconds % 60),
        () if seconds > 0 => format!("{seconds}s"),
        () => format!("{}ms", time.as_millis()),
    }
}

/// A number in three digits or four: `0`, `999`, `12.3k`, `4.56M`.
#[must_use]
pub fn count(number: f64) -> String {
    let (value, unit) = match number.abs() {
        size if size < 999.5 => (number, ""),
        size if size < 999_500.0 => (number / 1e3, "k"),
        size if size < 999_500_000.0 => (number / 1e6, "M"),
        _ => (number / 1e9, "G"),
    };
    match value.abs() {
        _ if unit.is_empty() && value.fract() == 0.0 => format!("{value:.0}"),
        size if size < 9.995 => format!("{value:.2}{unit}"),
        size if size < 99.95 => format!("{value:.1}{unit}"),
        _ => format!("{value:.0}{unit}"),
    }
}

/// A text from elsewhere on one line of at most `width` characters: a panic's message may hold line breaks, or escape
/// sequences that would act on the reader's terminal.
#[must_use]
pub fn clean(text: &str, width: usize) -> String {
    let mut out: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(width.saturating_add(1)).collect();
    if out.chars().count() > width {
        out = out.chars().take(width.saturating_sub(1)).collect();
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units_at_most() {
        for (milliseconds, text) in [
            (0, "0ms"),
            (350, "350ms"),
            (1_000, "1s"),
            (59_999, "59s"),
            (130_000, "2m 10s"),
            (11_040_000, "3h 4m"),
            (439_200_000, "5d 2h"),
        ] {
            assert_eq!(ago(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn numbers_stay_short() {
        for (number, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (0.5, "0.50"),
            (12.34, "12.3"),
            (999.0, "999"),
            (999.9, "1.00k"),
            (8_000.0, "8.00k"),
            (12_345.0, "12.3k"),
            (999_999.0, "1.00M"),
            (38_400_000.0, "38.4M"),
            (2e9, "2.00G"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn foreign_text_cannot_act_on_the_terminal() {
        assert_eq!(clean("a\nb\x1b[2Jc", 80), "a b [2Jc");
        assert_eq!(clean("abcdef", 6), "abcdef");
        assert_eq!(clean("abcdefg", 6), "abcde…");
        assert_eq!(clean("ü\u{9b}x", 80), "ü x");
    }
}
