//! One connection of the bare WebSocket broadcaster: a socket, with or without TLS, and what it could not yet be given.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};

/// The most that waits for one recipient, in bytes. What comes on top is dropped.
pub const MAX_BACKLOG: usize = 8 * 1024 * 1024;

/// A backlog that grew past this gives its memory back once it is empty.
const KEEP: usize = 16 * 1024;

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// So many bytes; whether there may be more to read at once.
    Bytes(usize, bool),
    /// Nothing for now.
    Nothing,
    /// The other end is gone.
    End,
}

/// A connection.
#[derive(Debug)]
pub struct Line {
    /// The socket, registered with the loop.
    pub socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// Without TLS: what was not yet written. With TLS the session holds that.
    backlog: Vec<u8>,
    /// Without TLS: bytes of the backlog that are written. With TLS: bytes that wait in the session, at most.
    progress: usize,
}

impl Line {
    /// A connection that was just accepted.
    ///
    /// # Errors
    /// When the settings for TLS do not do.
    pub fn new(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> Result<Self, rustls::Error> {
        let tls = tls.map(ServerConnection::new).transpose()?.map(|mut session| {
            session.set_buffer_limit(None); // the bound is kept here, where whole frames are dropped
            Box::new(session)
        });
        Ok(Self { socket, tls, backlog: Vec::new(), progress: 0 })
    }

    /// Reads once, into a buffer of at least 16 KiB.
    ///
    /// # Errors
    /// When the connection broke.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Got> {
        let Some(session) = &mut self.tls else {
            return match self.socket.read(into) {
                Ok(0) => Ok(Got::End),
                Ok(bytes) => Ok(Got::Bytes(bytes, bytes == into.len())),
                Err(error) => blocked(error).map(|()| Got::Nothing),
            };
        };
        let mut noting = Noting { socket: &mut self.socket, filled: false };
        match session.read_tls(&mut noting) {
            Ok(0) => return Ok(Got::End),
            Ok(_) => {}
            Err(error) => return blocked(error).map(|()| Got::Nothing),
        }
        let filled = noting.filled;
        let state = session.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let bytes = match state.plaintext_bytes_to_read().min(into.len()) {
            0 => 0,
            waiting => session.reader().read(&mut into[..waiting])?,
        };
        if session.wants_write() {
            self.flush()?;
        }
        Ok(Got::Bytes(bytes, filled || bytes == into.len()))
    }

    /// Writes at once what can be written and keeps the rest; whether it was taken: when too much waits, nothing of it is.
    ///
    /// # Errors
    /// When the connection broke.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<bool> {
        if let Some(session) = &mut self.tls {
            if self.progress + bytes.len() > MAX_BACKLOG {
                return Ok(false);
            }
            self.progress += bytes.len();
            let waited = session.wants_write();
            session.writer().write_all(bytes)?;
            if !waited {
                self.flush()?;
            }
            return Ok(true);
        }
        let written = if self.backlog.is_empty() {
            match self.socket.write(bytes) {
                Ok(written) if written == bytes.len() => return Ok(true),
                Ok(written) => written,
                Err(error) => blocked(error).map(|()| 0)?,
            }
        } else {
            0
        };
        if self.backlog.len() - self.progress + bytes.len() - written > MAX_BACKLOG {
            return Ok(false); // nothing was written of it: with an empty backlog, one read always fits
        }
        if self.progress > MAX_BACKLOG {
            self.backlog.drain(..self.progress);
            self.progress = 0;
        }
        self.backlog.extend_from_slice(&bytes[written..]);
        Ok(true)
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// When the connection broke.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.tls {
            while session.wants_write() {
                if let Err(error) = session.write_tls(&mut self.socket) {
                    return blocked(error);
                }
            }
            self.progress = 0;
            return Ok(());
        }
        while self.progress < self.backlog.len() {
            match self.socket.write(&self.backlog[self.progress..]) {
                Ok(written) => self.progress += written,
                Err(error) => return blocked(error),
            }
        }
        self.progress = 0;
        if self.backlog.capacity() > KEEP {
            self.backlog = Vec::new();
        }
        self.backlog.clear();
        Ok(())
    }
}

/// A socket that says whether it gave all it was asked for. When it gave less, it is empty: no need to ask again.
struct Noting<'a> {
    socket: &'a mut TcpStream,
    filled: bool,
}

impl Read for Noting<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.socket.read(into)?;
        self.filled = bytes == into.len();
        Ok(bytes)
    }
}

/// An error, unless it only says to come back later.
fn blocked(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}
