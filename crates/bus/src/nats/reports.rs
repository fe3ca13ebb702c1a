//! What the operator is told of trouble with brokers, and how often. What lives here: that. What does not: what is done about it.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

/// How often the same trouble is told again.
const AGAIN: Duration = Duration::from_secs(30);

/// The most kinds of violations that are told of one connection.
const MOST_VIOLATIONS: usize = 64;

/// Why no broker is reached: told when it begins, when it changes, and from time to time.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    told: Vec<(String, String, Instant)>,
}

impl Trouble {
    pub(super) fn report(&mut self, broker: &str, error: &str) {
        let now = Instant::now();
        if self.is_news(broker, error, now) {
            tracing::warn!(broker, "the bus does not reach the broker: {error}");
        }
    }

    fn is_news(&mut self, broker: &str, error: &str, now: Instant) -> bool {
        match self.told.iter_mut().find(|(known, ..)| known == broker) {
            Some((_, last, when)) => {
                let news = last != error || now.duration_since(*when) >= AGAIN;
                if news {
                    (*last, *when) = (error.to_owned(), now);
                }
                news
            }
            None => {
                self.told.push((broker.to_owned(), error.to_owned(), now));
                true
            }
        }
    }
}

/// What a broker does not permit: told once for each kind and pattern to allow.
#[derive(Debug, Default)]
pub(super) struct Violations {
    told: HashSet<(bool, String)>,
}

impl Violations {
    /// `text` is what the broker said: `Permissions Violation for Publish to "subject"`.
    pub(super) fn report(&mut self, text: &str) {
        if let Some((publish, allow)) = self.news(text) {
            let verb = if publish { "publish" } else { "subscribe" };
            tracing::error!(
                "the broker does not permit what the bus needs: {text}. Allow this node's user to {verb} on {allow}"
            );
        }
    }

    /// What to allow, unless that was told.
    fn news(&mut self, text: &str) -> Option<(bool, String)> {
        let publish = text.to_lowercase().contains("for publish");
        let subject = text.split('"').nth(1).unwrap_or(text);
        let allow =
            ["room.", "roomcast.v1.", "health.", "server."].into_iter().find(|start| subject.starts_with(start));
        let allow = allow.map_or_else(|| subject.to_owned(), |start| format!("{start}>"));
        let news = (publish, allow);
        (self.told.len() < MOST_VIOLATIONS && self.told.insert(news.clone())).then_some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_told_once_in_a_while_and_a_new_one_at_once() {
        let mut trouble = Trouble::default();
        let start = Instant::now();
        assert!(trouble.is_news("a", "refused", start));
        assert!(trouble.is_news("b", "refused", start));
        assert!(!trouble.is_news("a", "refused", start + AGAIN / 2));
        assert!(trouble.is_news("a", "no answer", start + AGAIN / 2));
        assert!(!trouble.is_news("a", "no answer", start + AGAIN));
        assert!(trouble.is_news("a", "no answer", start + AGAIN * 2));
    }

    #[test]
    fn a_violation_is_told_once_with_what_to_allow() {
        let mut violations = Violations::default();
        let room = |number: u64| format!("Permissions Violation for Publish to \"room.standup.{number}\"");
        assert_eq!(violations.news(&room(1)), Some((true, "room.>".to_owned())));
        assert_eq!(violations.news(&room(2)), None);
        let subscription = "Permissions Violation for Subscription to \"room.standup.*\"";
        assert_eq!(violations.news(subscription), Some((false, "room.>".to_owned())));
        let presence = "Permissions Violation for Publish to \"roomcast.v1.presence.a\"";
        assert_eq!(violations.news(presence), Some((true, "roomcast.v1.>".to_owned())));
        let other = "Permissions Violation for Publish to \"else.where\"";
        assert_eq!(violations.news(other), Some((true, "else.where".to_owned())));
        let many = (0..1_000).filter(|n| violations.news(&format!("for Publish to \"other{n}\"")).is_some()).count();
        assert!(many < MOST_VIOLATIONS);
    }
}
