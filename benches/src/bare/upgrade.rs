//! The HTTP request that opens a WebSocket, and its answer, as pure functions.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha1::{Digest, Sha1};

/// What RFC 6455 appends to a client's key.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The longest request that is waited for.
pub const MAX_REQUEST: usize = 8 * 1024;

/// A request to join a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The last part of `/lobby/{user}/{room}`.
    pub room: String,
    /// What to answer.
    pub answer: String,
    /// Bytes of the request; frames may follow.
    pub length: usize,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// Reads the request at the front of `bytes`; `None` while it is not all there.
///
/// # Errors
/// When it is too long, for another path, or asks for no WebSocket.
pub fn parse(bytes: &[u8]) -> Result<Option<Request>, Refused> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > MAX_REQUEST { Err(Refused) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Refused)?;
    let mut lines = text.split("\r\n");
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or(Refused)?;
    let path = path.split('?').next().unwrap_or_default();
    let room = match path.split('/').collect::<Vec<_>>()[..] {
        ["", "lobby", _, room] if !room.is_empty() => room.to_owned(),
        _ => return Err(Refused),
    };
    let key = lines
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim()))
        .ok_or(Refused)?;
    let digest = Sha1::new().chain_update(key).chain_update(MAGIC).finalize();
    let accept = BASE64_STANDARD.encode(digest);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Ok(Some(Request { room, answer, length: end + 4 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] =
        b"GET /lobby/ann/standup?a=b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        sec-webSocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nmore";

    #[test]
    fn the_key_of_the_standards_example_is_answered_as_the_standard_says() {
        let request = parse(REQUEST).unwrap().unwrap();
        assert_eq!(request.room, "standup");
        assert_eq!(request.length, REQUEST.len() - 4);
        assert!(
            request.answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            "{}",
            request.answer
        );
    }

    #[test]
    fn a_part_of_a_request_is_waited_for_and_another_path_refused() {
        assert_eq!(parse(&REQUEST[..60]), Ok(None));
        assert_eq!(parse(b"GET /healthz HTTP/1.1\r\nSec-WebSocket-Key: x\r\n\r\n"), Err(Refused));
        assert_eq!(parse(b"GET /lobby/ann/standup HTTP/1.1\r\nHost: x\r\n\r\n"), Err(Refused));
        assert_eq!(parse(&vec![b'a'; MAX_REQUEST + 1]), Err(Refused));
    }
}
