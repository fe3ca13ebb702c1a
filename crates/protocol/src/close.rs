//! Close codes: the same numbers on WebSocket and WebTransport.

/// Why a connection is closed, as its peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseCode {
    /// 1000: the call is over.
    Done,
    /// 1001: this node is draining; reconnect to another.
    Draining,
    /// 1002: the peer broke the rules of its transport (RFC 6455, section 7.4.1).
    ProtocolError,
    /// 1003: the peer sent a kind of message that is never accepted here, such as text.
    Unsupported,
    /// 1008: against policy: a limit or an identity.
    Policy,
    /// 1009: a message over the size limit.
    TooLarge,
    /// 1011: the connection crashed on this side.
    Crashed,
    /// 1013: full; try again later.
    TryAgainLater,
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Done => 1000,
            Self::Draining => 1001,
            Self::ProtocolError => 1002,
            Self::Unsupported => 1003,
            Self::Policy => 1008,
            Self::TooLarge => 1009,
            Self::Crashed => 1011,
            Self::TryAgainLater => 1013,
        }
    }
}
