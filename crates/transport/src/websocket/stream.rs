//! The byte streams below a WebSocket: TCP, plain or under TLS, whole and in halves, and their socket options.
//!
//! What does not live here: anything that knows of HTTP or frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::TlsStream;

/// Bytes that the kernel may hold unsent before it calls the socket full (TCP_NOTSENT_LOWAT). What is not on the wire
/// should wait in the egress queue, where it still can be dropped for something newer. 4 KiB are 65 ms on a link of 500 kbit/s, a fifth
/// of what audio may take in all; 16 KiB were 260, and made audio late. A fast link drains it as acknowledgements arrive,
/// whatever its size, since bytes in flight do not count.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NOT_SENT_LOW_WATER: u32 = 4 * 1024;

/// Bytes that TLS may hold encrypted for one socket (the library's default is 64 KiB): two full records, so that one
/// fills while the other drains. For the same reason as [`NOT_SENT_LOW_WATER`].
const TLS_BUFFER: usize = 32 * 1024;

/// A connected TCP stream, plain or under TLS (either side of it).
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP, its handshake done.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) fn tls(stream: impl Into<TlsStream<TcpStream>>) -> Self {
        let mut stream = stream.into();
        match &mut stream {
            TlsStream::Client(client) => client.get_mut().1.set_buffer_limit(Some(TLS_BUFFER)),
            TlsStream::Server(server) => server.get_mut().1.set_buffer_limit(Some(TLS_BUFFER)),
        }
        Self::Tls(Box::new(stream))
    }

    /// Sets what every socket of a WebSocket needs: no delay before small writes, and a short queue in the kernel. An
    /// error means that the socket is already dead.
    pub(super) fn tune(&self) -> io::Result<()> {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        };
        socket.set_nodelay(true)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        socket2::SockRef::from(socket).set_tcp_notsent_lowat(NOT_SENT_LOW_WATER)?;
        Ok(())
    }

    /// The two directions. Plain TCP in true halves, which write vectored straight to the socket; TLS halves share the
    /// session under a lock that is held for one poll, and fill its records across the slices of a vectored write.
    pub(super) fn split(self) -> (ReadSide, WriteSide) {
        match self {
            Self::Plain(stream) => {
                let (read, write) = stream.into_split();
                (ReadSide::Plain(read), WriteSide::Plain(write))
            }
            Self::Tls(stream) => {
                let (read, write) = tokio::io::split(stream);
                (ReadSide::Tls(read), WriteSide::Tls(write))
            }
        }
    }
}

/// The receiving half of a [`Stream`].
#[derive(Debug)]
pub enum ReadSide {
    /// Plain TCP.
    Plain(OwnedReadHalf),
    /// TLS over TCP.
    Tls(tokio::io::ReadHalf<Box<TlsStream<TcpStream>>>),
}

/// The sending half of a [`Stream`].
#[derive(Debug)]
pub enum WriteSide {
    /// Plain TCP.
    Plain(OwnedWriteHalf),
    /// TLS over TCP.
    Tls(tokio::io::WriteHalf<Box<TlsStream<TcpStream>>>),
}

/// Passes a call on to whichever stream it is.
macro_rules! each {
    ($value:expr, $inner:ident => $call:expr) => {
        match $value.get_mut() {
            Self::Plain($inner) => $call,
            Self::Tls($inner) => $call,
        }
    };
}

macro_rules! reads {
    ($type:ty) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                each!(self, inner => Pin::new(inner).poll_read(cx, buf))
            }
        }
    };
}

macro_rules! writes {
    ($type:ty) => {
        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                each!(self, inner => Pin::new(inner).poll_write(cx, buf))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                each!(self, inner => Pin::new(inner).poll_write_vectored(cx, bufs))
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                each!(self, inner => Pin::new(inner).poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                each!(self, inner => Pin::new(inner).poll_shutdown(cx))
            }
        }
    };
}

reads!(Stream);
writes!(Stream);
reads!(ReadSide);
writes!(WriteSide);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tuned_socket_neither_waits_nor_hoards() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = Stream::Plain(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        stream.tune().unwrap();
        let Stream::Plain(socket) = stream else { unreachable!("made above") };
        assert!(socket.nodelay().unwrap());
        #[cfg(any(target_os = "linux", target_os = "android"))]
        assert_eq!(socket2::SockRef::from(&socket).tcp_notsent_lowat().unwrap(), NOT_SENT_LOW_WATER);
    }
}
