//! When a watched file is worth reading as settings: when it has settled, not while it is being replaced. Pure: looks and
//! times are arguments.

use std::time::Duration;

/// Unchanged for this long: whoever wrote it is done. Editors and `cp` take less between their writes.
pub(crate) const SETTLE: Duration = Duration::from_millis(50);
/// A file that was emptied is usually about to be filled, and an empty one would mean all defaults.
pub(crate) const EMPTY: Duration = Duration::from_millis(500);
/// A file that is gone is usually about to be replaced.
pub(crate) const MISSING: Duration = Duration::from_secs(1);

/// What one look at the file found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its bytes.
    Bytes(Vec<u8>),
    /// Why there are none.
    Unreadable(String),
}

impl Content {
    fn needs(&self) -> Duration {
        match self {
            Self::Unreadable(_) => MISSING,
            Self::Bytes(bytes) if bytes.trim_ascii().is_empty() => EMPTY,
            Self::Bytes(_) => SETTLE,
        }
    }
}

/// What to do after a look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing new: wait until something happens.
    Rest,
    /// Something new: look again after this time.
    LookAgain(Duration),
    /// It has settled on something that was not judged yet.
    Judge(Content),
}

/// What the last look found that was new, and since when.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    last: Option<(Content, Duration)>,
}

impl Settling {
    /// Takes one look into account, at `now` on any clock that only goes forward. `judged` is what was judged last.
    pub(crate) fn look(&mut self, now: Duration, found: Content, judged: Option<&Content>) -> Next {
        if judged == Some(&found) {
            self.last = None;
            return Next::Rest;
        }
        let needs = found.needs();
        let since = match &self.last {
            Some((last, since)) if *last == found => *since,
            _ => {
                self.last = Some((found.clone(), now));
                now
            }
        };
        let left = needs.saturating_sub(now.saturating_sub(since));
        if left.is_zero() {
            self.last = None;
            return Next::Judge(found);
        }
        // Not longer than a settled file needs: what comes meanwhile is not to wait for the rest of it.
        Next::LookAgain(left.min(SETTLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Content {
        Content::Bytes(text.as_bytes().to_vec())
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_was_judged_is_left_alone() {
        let mut settling = Settling::default();
        assert_eq!(settling.look(ms(0), text("a"), Some(&text("a"))), Next::Rest);
    }

    #[test]
    fn new_content_is_judged_once_it_has_settled() {
        let mut settling = Settling::default();
        let old = text("old");
        assert_eq!(settling.look(ms(0), text("a"), Some(&old)), Next::LookAgain(SETTLE));
        assert_eq!(settling.look(ms(20), text("a"), Some(&old)), Next::LookAgain(ms(30)));
        assert_eq!(settling.look(ms(40), text("ab"), Some(&old)), Next::LookAgain(SETTLE), "it is being written");
        assert_eq!(settling.look(ms(89), text("ab"), Some(&old)), Next::LookAgain(ms(1)));
        assert_eq!(settling.look(ms(90), text("ab"), Some(&old)), Next::Judge(text("ab")));
        assert_eq!(settling.look(ms(91), text("ab"), Some(&text("ab"))), Next::Rest);
    }

    #[test]
    fn a_file_that_is_emptied_or_gone_for_a_moment_is_waited_for() {
        let old = text("old");
        for (gap, patience) in [(text(" \n"), EMPTY), (Content::Unreadable("gone".into()), MISSING)] {
            let mut settling = Settling::default();
            assert_eq!(settling.look(ms(0), gap.clone(), Some(&old)), Next::LookAgain(SETTLE));
            assert_eq!(settling.look(ms(50), text("new"), Some(&old)), Next::LookAgain(SETTLE));
            assert_eq!(settling.look(ms(100), text("new"), Some(&old)), Next::Judge(text("new")));
            let mut settling = Settling::default();
            assert_eq!(settling.look(ms(0), gap.clone(), Some(&old)), Next::LookAgain(SETTLE));
            assert_eq!(settling.look(patience - ms(1), gap.clone(), Some(&old)), Next::LookAgain(ms(1)));
            assert_eq!(settling.look(patience, gap.clone(), Some(&old)), Next::Judge(gap), "it stays so");
        }
    }

    #[test]
    fn a_file_that_came_back_as_it_was_was_never_changed() {
        let mut settling = Settling::default();
        let old = text("old");
        settling.look(ms(0), Content::Unreadable("gone".into()), Some(&old));
        assert_eq!(settling.look(ms(30), text("old"), Some(&old)), Next::Rest);
        let again = settling.look(ms(2000), Content::Unreadable("gone".into()), Some(&old));
        assert_eq!(again, Next::LookAgain(SETTLE), "the time before does not count");
    }
}
