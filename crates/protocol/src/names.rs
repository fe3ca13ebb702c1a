//! Names of users, rooms and sessions: checked once here, trusted everywhere behind.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::token;

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no bytes.
    #[error("the name is empty")]
    Empty,
    /// The name has more bytes than allowed.
    #[error("the name is longer than {0} bytes")]
    TooLong(usize),
    /// A byte outside the allowed set.
    #[error("the name has a character that is not allowed")]
    Character,
    /// The name is `.` or `..`, which a URL cannot carry: clients and proxies resolve such a segment away.
    #[error("the name is a dot segment")]
    DotSegment,
}

/// A user's identity, as packets are checked against it: 1 to 254 bytes of `[A-Za-z0-9._%+@ -]`.
///
/// A space stays a space: `a b` and `a_b` are two users, although they have the same [`key`](Self::key).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

/// A room's name: 1 to 128 bytes of `[A-Za-z0-9._ -]`.
///
/// Rooms are told apart by [`key`](Self::key), since that is what the bus knows: `a b` and `a_b` are one room, on every
/// node, and compare and hash as equal. Each keeps its own spelling for [`as_str`](Self::as_str).
#[derive(Clone)]
pub struct RoomId {
    name: Arc<str>,
    /// The same allocation as `name` where both are spelt alike.
    key: Arc<str>,
}

/// One connection's number, unique among all nodes that share a bus; at most 2^53 - 1, so that JavaScript holds it exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl UserId {
    /// Longest user name, in bytes after percent-decoding.
    pub const MAX_BYTES: usize = 254;

    /// Checks an already percent-decoded name.
    ///
    /// # Errors
    ///
    /// The first rule that the name breaks.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        check(name, Self::MAX_BYTES, b"._%+@ -")?;
        Ok(Self(name.into()))
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a subject's token or a path's segment: a space as `_`, any other byte outside `[A-Za-z0-9_-]` as
    /// `%XX`. Not an identity, see [`UserId`].
    #[must_use]
    pub fn key(&self) -> String {
        key_of(&self.0)
    }
}

impl RoomId {
    /// Longest room name, in bytes after percent-decoding.
    pub const MAX_BYTES: usize = 128;

    /// Checks an already percent-decoded name.
    ///
    /// # Errors
    ///
    /// The first rule that the name breaks.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        check(name, Self::MAX_BYTES, b"._ -")?;
        let key = key_of(name);
        let name: Arc<str> = name.into();
        let key = if *key == *name { Arc::clone(&name) } else { key.into() };
        Ok(Self { name, key })
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// What the room is known by, on the bus and in actors' paths: a space as `_`, any other byte outside
    /// `[A-Za-z0-9_-]` as `%XX`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Letters, digits and `_` are allowed in every name, and what `extra` holds.
fn check(name: &str, max_bytes: usize, extra: &[u8]) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > max_bytes {
        return Err(NameError::TooLong(max_bytes));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || extra.contains(&byte)) {
        return Err(NameError::Character);
    }
    if matches!(name, "." | "..") {
        return Err(NameError::DotSegment);
    }
    Ok(())
}

fn key_of(name: &str) -> String {
    // `_` is plain, so replacing before escaping leaves the mapping injective but for the space.
    token::escape(&name.replace(' ', "_"))
}

impl PartialEq for RoomId {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for RoomId {}

impl Hash for RoomId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl PartialOrd for RoomId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RoomId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({:?})", self.0)
    }
}

impl fmt::Debug for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomId({:?})", self.name)
    }
}

impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
