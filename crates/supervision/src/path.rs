//! Actor paths and patterns: how an actor is named in the tree, logs and configuration. No tree lives here.

use std::fmt;
use std::sync::Arc;

/// Where an actor stands in its tree: `rooms/standup/room`.
///
/// The root has the empty path and is displayed by the system's label. A name's bytes outside `[A-Za-z0-9_-]` are
/// written `%XX`. Cloning costs a reference count.
#[derive(Clone)]
pub struct ActorPath {
    /// The path, or the label when this is the root.
    text: Arc<str>,
    root: bool,
}

impl ActorPath {
    /// The root's path, displayed as `label`.
    pub fn root(label: &str) -> Self {
        Self { text: Arc::from(label), root: true }
    }

    /// The path of the child called `name`, which may be any text.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let mut text = String::with_capacity(self.as_str().len() + name.len() + 1);
        if !self.root {
            text.push_str(&self.text);
            text.push('/');
        }
        encode(name, &mut text);
        Self { text: text.into(), root: false }
    }

    /// The path as it is written in patterns and configuration; empty for the root.
    pub fn as_str(&self) -> &str {
        if self.root { "" } else { &self.text }
    }

    /// The path of its supervisor; the root's is the root.
    #[must_use]
    pub fn parent(&self) -> Self {
        match self.as_str().rsplit_once('/') {
            Some((above, _)) => Self { text: above.into(), root: false },
            None => Self::root(""),
        }
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.root
    }

    /// The names from the root down, as written (encoded).
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.as_str().split('/').filter(|segment| !segment.is_empty())
    }

    /// The last name, as written; the label for the root.
    pub fn name(&self) -> &str {
        self.text.rsplit('/').next().unwrap_or(&self.text)
    }
}

/// Paths are equal as they are written; a root's label does not count.
impl PartialEq for ActorPath {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ActorPath {}

impl std::hash::Hash for ActorPath {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for ActorPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ActorPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorPath({:?})", self.as_str())
    }
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn encode(name: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in name.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// Paths by pattern: each segment is a written name or `*`, which stands for exactly one segment. The empty pattern is
/// the root's path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    /// `None` is `*`.
    segments: Vec<Option<Box<str>>>,
}

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A segment is empty: a slash at an end, or two in a row.
    #[error("`{0}` has an empty segment; write it like `rooms/standup` or `rooms/*`")]
    EmptySegment(String),
    /// A segment holds what a written name cannot hold.
    #[error("`{0}` is not a name: use letters, digits, `_`, `-` and `%XX`, or `*` alone for any one name")]
    BadName(String),
}

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When a segment is empty or is not a written name.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Ok(Self { segments: Vec::new() });
        }
        let segments = text
            .split('/')
            .map(|segment| match segment {
                "" => Err(PatternError::EmptySegment(text.to_owned())),
                "*" => Ok(None),
                name if written(name.as_bytes()) => Ok(Some(name.into())),
                name => Err(PatternError::BadName(name.to_owned())),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { segments })
    }

    /// Whether `path` is one of those meant.
    pub fn matches(&self, path: &ActorPath) -> bool {
        let mut names = path.segments();
        self.segments.iter().all(|segment| match (segment, names.next()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(wanted), Some(name)) => &**wanted == name,
        }) && names.next().is_none()
    }

    /// Whether the pattern is the root's path.
    pub fn is_root(&self) -> bool {
        self.segments.is_empty()
    }

    pub(crate) fn segments(&self) -> &[Option<Box<str>>] {
        &self.segments
    }

    /// For "the most exact pattern wins": fewer stars, and those further right, are more exact.
    pub(crate) fn exactness(&self) -> impl Ord + use<> {
        let names = self.segments.iter().flatten().count();
        let order: Vec<bool> = self.segments.iter().map(Option::is_some).collect();
        (names, order)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            f.write_str(segment.as_deref().unwrap_or("*"))?;
        }
        Ok(())
    }
}

/// Whether these bytes could have come out of [`encode`].
fn written(name: &[u8]) -> bool {
    let mut rest = name;
    loop {
        match rest {
            [] => return true,
            [b'%', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest = tail,
            [byte, tail @ ..] if plain(*byte) => rest = tail,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_has_no_root_and_escapes_odd_bytes() {
        let root = ActorPath::root("roomcast");
        assert_eq!((root.as_str(), root.to_string().as_str()), ("", "roomcast"));
        let room = root.child("rooms").child("a/b ü").child("room");
        assert_eq!(room.as_str(), "rooms/a%2Fb%20%C3%BC/room");
        assert_eq!(room.segments().count(), 3);
        assert_eq!(room.name(), "room");
    }

    #[test]
    fn a_star_is_exactly_one_segment() {
        let room = ActorPath::root("r").child("rooms").child("x");
        let pattern = |text| PathPattern::parse(text).unwrap();
        assert!(pattern("rooms/*").matches(&room));
        assert!(pattern("*/x").matches(&room));
        assert!(!pattern("rooms").matches(&room));
        assert!(!pattern("rooms/*/*").matches(&room));
        assert!(pattern("").matches(&ActorPath::root("r")));
        assert!(!pattern("").matches(&room));
    }

    #[test]
    fn a_broken_pattern_is_refused() {
        for text in ["/", "a//b", "a/", "a b", "a*", "%4", "ü"] {
            assert!(PathPattern::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn two_names_never_share_a_path(a in ".*", b in ".*") {
            let root = ActorPath::root("r");
            prop_assert_eq!(a == b, root.child(&a) == root.child(&b));
        }

        #[test]
        fn a_path_is_its_own_pattern(names in proptest::collection::vec(".+", 0..4)) {
            let path = names.iter().fold(ActorPath::root("r"), |path, name| path.child(name));
            prop_assert!(PathPattern::parse(path.as_str()).unwrap().matches(&path));
        }
    }
}
