//! Where a client asks to join: `/lobby/{user}/{room}`. Whether it may join is decided elsewhere.

use crate::token;
use crate::{NameError, RoomId, UserId};

/// Who asks to join which room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lobby {
    /// The identity that the connection's packets are checked against.
    pub user: UserId,
    /// The room.
    pub room: RoomId,
}

/// Why a request's target is not a place to join. The text may be shown to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LobbyError {
    /// The path is not `/lobby/` and two more segments.
    #[error("not found; join at /lobby/USER/ROOM")]
    NotLobby,
    /// A segment holds a `%` without two hexadecimal digits, or decodes to bytes that are not UTF-8.
    #[error("the path is not valid percent-encoded text")]
    Encoding,
    /// The user's name breaks a rule.
    #[error("bad user name: {0}")]
    User(NameError),
    /// The room's name breaks a rule.
    #[error("bad room name: {0}")]
    Room(NameError),
}

impl LobbyError {
    /// The HTTP status that both transports answer with: 404 for another path, 400 for a bad name.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::NotLobby => 404,
            Self::Encoding | Self::User(_) | Self::Room(_) => 400,
        }
    }
}

impl Lobby {
    /// Takes a request's target apart: a path in origin form, as it came, still percent-encoded.
    ///
    /// A query is ignored: what it may hold (a token, a cache breaker) is not part of the place. Segments are split before
    /// they are decoded, so an encoded `/` is a character of a name, and as such refused. `lobby` itself is
    /// matched byte for byte.
    ///
    /// # Errors
    ///
    /// [`LobbyError::NotLobby`] for any path but `/lobby/` and exactly two more segments; else the first bad name, the
    /// user's before the room's.
    pub fn parse(target: &str) -> Result<Self, LobbyError> {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let names = path.strip_prefix("/lobby/").ok_or(LobbyError::NotLobby)?;
        let (user, room) = names.split_once('/').ok_or(LobbyError::NotLobby)?;
        if room.contains('/') {
            return Err(LobbyError::NotLobby);
        }
        let user = decode(user, UserId::MAX_BYTES, UserId::parse, LobbyError::User)?;
        let room = decode(room, RoomId::MAX_BYTES, RoomId::parse, LobbyError::Room)?;
        Ok(Self { user, room })
    }

    /// The target that [`parse`](Self::parse) takes back to this: what a client asks for.
    #[must_use]
    pub fn target(&self) -> String {
        let mut target = String::from("/lobby/");
        token::escape_into(&mut target, self.user.as_str());
        target.push('/');
        token::escape_into(&mut target, self.room.as_str());
        target
    }
}

fn decode<T>(
    segment: &str,
    max_bytes: usize,
    parse: fn(&str) -> Result<T, NameError>,
    error: fn(NameError) -> LobbyError,
) -> Result<T, LobbyError> {
    // Three bytes of a segment make at least one of the name: what is longer need not be decoded to be refused.
    if segment.len() > 3 * max_bytes {
        return Err(error(NameError::TooLong(max_bytes)));
    }
    parse(&token::unescape(segment).ok_or(LobbyError::Encoding)?).map_err(error)
}
