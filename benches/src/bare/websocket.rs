//! The bare WebSocket broadcaster: one thread, one readiness loop, one write per recipient per read.
//!
//! It upgrades connections to `/lobby/{user}/{room}`, finds frame boundaries, unmasks, and writes all the whole frames that a
//! read brought, in one call, to each other member of the room.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustls::ServerConfig;

use super::frame::{self, Frame};
use super::line::{Got, Line};
use super::upgrade;

const LISTENER: Token = Token(usize::MAX - 1);
const INPUT: Token = Token(usize::MAX - 2);

/// What one read takes at most: far more than waits on one connection in any of the measures.
const READ: usize = 256 * 1024;

/// The largest frame that is waited for, as the router's default has it.
const MAX_FRAME: usize = 4_000_014;

/// Connections taken in one go.
const EVENTS: usize = 1_024;

/// One client.
struct Client {
    line: Line,
    /// Its room, once it has been upgraded.
    room: Option<usize>,
    /// The beginning of a request or frame whose end is not there yet.
    partial: Vec<u8>,
}

/// The broadcaster.
pub struct Broadcaster {
    poll: Poll,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    names: HashMap<String, usize>,
    rooms: Vec<Vec<usize>>,
    /// What was read, and what is written of it; one of each for all clients.
    input: Vec<u8>,
    output: Vec<u8>,
    /// Recipients that broke during a fan-out.
    broken: Vec<usize>,
    dropped: u64,
}

impl Broadcaster {
    /// Binds a port of the system's choice on loopback.
    ///
    /// # Errors
    /// When the port or the readiness loop cannot be had.
    pub fn bind(port: u16, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        // A line on the standard input asks for the count of drops. A file or nothing at all there does as well.
        let _ = poll.registry().register(&mut SourceFd(&0), INPUT, Interest::READABLE);
        Ok(Self {
            poll,
            listener,
            tls,
            clients: Vec::new(),
            free: Vec::new(),
            names: HashMap::new(),
            rooms: Vec::new(),
            input: vec![0; READ],
            output: vec![0; READ],
            broken: Vec::new(),
            dropped: 0,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Copies that were not delivered because too much waited for their recipient.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// When the readiness loop fails.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    INPUT => self.answer_input(),
                    Token(index) => {
                        let alive = (!event.is_writable() || self.flush(index))
                            && (!(event.is_readable() || event.is_read_closed()) || self.read(index));
                        if !alive {
                            self.remove(index);
                        }
                        while let Some(index) = self.broken.pop() {
                            self.remove(index);
                        }
                    }
                }
            }
        }
    }

    fn accept(&mut self) {
        // Any error ends the batch; the next connection brings the next event.
        while let Ok((mut socket, _)) = self.listener.accept() {
            let _ = socket.set_nodelay(true);
            let index = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() - 1
            });
            let both = Interest::READABLE | Interest::WRITABLE;
            let registered = self.poll.registry().register(&mut socket, Token(index), both).is_ok();
            match Line::new(socket, self.tls.clone()) {
                Ok(line) if registered => {
                    self.clients[index] = Some(Client { line, room: None, partial: Vec::new() });
                }
                _ => self.free.push(index),
            }
        }
    }

    fn answer_input(&mut self) {
        let mut line = [0; 256];
        match io::stdin().read(&mut line) {
            Ok(0) | Err(_) => drop(self.poll.registry().deregister(&mut SourceFd(&0))),
            Ok(_) => println!("dropped {}", self.dropped),
        }
    }

    /// Writes what waits for a client; whether it is still there.
    fn flush(&mut self, index: usize) -> bool {
        match self.clients.get_mut(index) {
            Some(Some(client)) => client.line.flush().is_ok(),
            _ => true,
        }
    }

    /// Reads what a client sent and hands it on; whether the client is still there.
    fn read(&mut self, index: usize) -> bool {
        loop {
            let Some(Some(client)) = self.clients.get_mut(index) else { return true };
            let kept = client.partial.len();
            if self.input.len() < kept + READ {
                self.input.resize(kept + READ, 0);
                self.output.resize(kept + READ, 0);
            }
            let (bytes, more) = match client.line.read(&mut self.input[kept..]) {
                Ok(Got::Bytes(bytes, more)) => (bytes, more),
                Ok(Got::Nothing) => return true,
                Ok(Got::End) | Err(_) => return false,
            };
            // With TLS a read may bring nothing that is of use yet.
            if bytes > 0 {
                if kept > 0 {
                    self.input[..kept].copy_from_slice(&client.partial);
                    client.partial.clear();
                }
                if !self.take(index, kept + bytes) {
                    return false;
                }
            }
            if !more {
                return true;
            }
        }
    }

    /// Handles the first `end` bytes of the input, all from one client.
    fn take(&mut self, index: usize, end: usize) -> bool {
        let Some(Some(client)) = self.clients.get_mut(index) else { return false };
        let mut at = 0;
        let room = match client.room {
            Some(room) => room,
            None => match upgrade::parse(&self.input[..end]) {
                Err(_) => return false,
                Ok(None) => {
                    client.partial.extend_from_slice(&self.input[..end]);
                    return true;
                }
                Ok(Some(request)) => {
                    if client.line.send(request.answer.as_bytes()).is_err() {
                        return false;
                    }
                    at = request.length;
                    let rooms = &mut self.rooms;
                    let room = *self.names.entry(request.room).or_insert_with(|| {
                        rooms.push(Vec::new());
                        rooms.len() - 1
                    });
                    rooms[room].push(index);
                    client.room = Some(room);
                    room
                }
            },
        };
        let (mut filled, mut frames) = (0, 0);
        while let Some(frame) = Frame::parse(&self.input[at..end]) {
            if frame.length() > MAX_FRAME {
                return false;
            }
            if end - at < frame.length() {
                break;
            }
            let masked = &self.input[at + frame.header..at + frame.length()];
            at += frame.length();
            // A ping is answered, a pong is of no interest, a close ends it.
            let first = match frame.first & 0x0f {
                0x8 => return false,
                0x9 => 0x8a,
                0xa => continue,
                _ => frame.first,
            };
            let header = frame::put_header(&mut self.output[filled..], first, frame.payload);
            let length = header + frame.payload;
            frame::unmask(&mut self.output[filled + header..filled + length], masked, frame.key);
            if frame.is_control() {
                if client.line.send(&self.output[filled..filled + length]).is_err() {
                    return false;
                }
            } else {
                filled += length;
                frames += 1;
            }
        }
        client.partial.extend_from_slice(&self.input[at..end]);
        if frames > 0 {
            self.fan_out(index, room, filled, frames);
        }
        true
    }

    fn fan_out(&mut self, from: usize, room: usize, filled: usize, frames: u64) {
        for &member in &self.rooms[room] {
            if member == from {
                continue;
            }
            let Some(client) = &mut self.clients[member] else { continue };
            match client.line.send(&self.output[..filled]) {
                Ok(true) => {}
                Ok(false) => self.dropped += frames,
                Err(_) => self.broken.push(member),
            }
        }
    }

    fn remove(&mut self, index: usize) {
        let Some(mut client) = self.clients.get_mut(index).and_then(Option::take) else { return };
        let _ = self.poll.registry().deregister(&mut client.line.socket);
        if let Some(room) = client.room {
            self.rooms[room].retain(|member| *member != index);
        }
        self.free.push(index);
    }
}
