//! The HTTP answer to a client that connects: an upgrade, or a refusal that it can read.
//!
//! What lives here: which requests are upgrades, statuses, the deadline. What does not: who may join (`decide` does),
//! and the frames that follow.
//!
//! | request | answer |
//! |---|---|
//! | another method than GET | 405 with `Allow` |
//! | a target that `decide` refuses | its status and message |
//! | no upgrade to `websocket`, or HTTP/1.0 | 426 with `Upgrade` |
//! | another WebSocket version than 13 | 426 with `Sec-WebSocket-Version` |
//! | no key, several keys, a key that is not 16 bytes | 400 |
//! | headers that cannot be read or repeat (`Origin`) | 400 |
//! | not HTTP | 400; headers over 16 KiB or 64 lines 431 or 414 |
//! | anything, too slowly | the connection is closed at the deadline |

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Parts};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use roomcast_protocol::notice;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::HandshakeError;
use crate::{Refusal, RequestHead};

/// The largest request head, in bytes: room for a long token, and none for an endless header. It is also the largest
/// read buffer while the handshake lasts.
const MAX_HEAD: usize = 16 * 1024;

/// The most header lines of a request; browsers behind proxies send about twenty.
const MAX_HEADERS: usize = 64;

/// How long a refused client may take to read its answer and close. If the socket were closed at once, with bytes of the
/// client's still unread, the kernel would answer with a reset and the client could lose the refusal.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// The most that a refused client may go on sending meanwhile.
const LINGER_BYTES: u64 = 1024 * 1024;

/// Serves one request on `io` until `deadline`. Returns what `decide` and then `enter` made of it, the stream behind the
/// upgrade, and the bytes that were read too far.
pub(super) async fn serve<I, T, U, F, E, N>(
    io: I,
    remote: SocketAddr,
    deadline: Instant,
    decide: F,
    enter: E,
) -> Result<(U, I, Bytes), HandshakeError>
where
    I: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(RequestHead<'_>) -> Result<T, Refusal> + Send,
    E: FnOnce(T) -> N + Send,
    N: Future<Output = U> + Send,
    T: Send,
    U: Send,
{
    let desk = Mutex::new(Desk { remote, steps: Some((decide, enter)), outcome: None });
    let lock = || desk.lock().unwrap_or_else(PoisonError::into_inner);
    let service = service_fn(|request: Request<Incoming>| {
        let examined = lock().examine(request);
        let answer = examined.map_err(|refused| {
            let response = refused.response();
            lock().outcome = Some(Err(refused.refusal));
            response
        });
        // Boxed because the library wants a future that can be moved.
        Box::pin(async move {
            let response = match answer {
                Ok((entering, response)) => {
                    let accepted = entering.await;
                    lock().outcome = Some(Ok(accepted));
                    response
                }
                Err(response) => response,
            };
            Ok::<_, Infallible>(response)
        })
    });
    let mut connection = Builder::new()
        .keep_alive(false)
        .header_read_timeout(None) // the deadline covers it
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(io), service);
    let served = timeout_at(deadline, poll_fn(|cx| connection.poll_without_shutdown(cx))).await;
    let Parts { io, read_buf, .. } = connection.into_parts();
    let io = io.into_inner();
    let desk = desk.into_inner().unwrap_or_else(PoisonError::into_inner);
    match (served, desk.outcome) {
        (Err(_), _) => Err(HandshakeError::Timeout),
        (Ok(Ok(())), Some(Ok(accepted))) => Ok((accepted, io, read_buf)),
        (Ok(Err(error)), Some(Ok(_))) => Err(HandshakeError::Gone(error.to_string())),
        (Ok(_), Some(Err(refusal))) => {
            linger(io, deadline).await;
            Err(HandshakeError::Refused(refusal))
        }
        (Ok(Ok(())), None) => Err(HandshakeError::Gone("closed before a request".into())),
        (Ok(Err(error)), None) if error.is_parse() => {
            linger(io, deadline).await; // the library has answered 400, 414 or 431
            Err(HandshakeError::Malformed(error.to_string()))
        }
        (Ok(Err(error)), None) => Err(HandshakeError::Gone(error.to_string())),
    }
}

/// Closes after a refusal so that the client can read it: says that this side is done, then reads until the client is.
async fn linger<I: AsyncRead + AsyncWrite + Unpin>(mut io: I, deadline: Instant) {
    let until = deadline.min(Instant::now() + LINGER_TIME);
    let closing = async {
        io.shutdown().await?;
        let mut rest = pin!(io.take(LINGER_BYTES));
        let mut scratch = vec![0; 4096];
        while rest.read(&mut scratch).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    let _ = timeout_at(until, closing).await; // the answer is what counts, and it is sent
}

/// Answers the one request of a connection.
struct Desk<F, E, U> {
    remote: SocketAddr,
    steps: Option<(F, E)>,
    outcome: Option<Result<U, Refusal>>,
}

impl<F, E, U> Desk<F, E, U> {
    /// What a proper request leads to, and the answer to give once it has.
    fn examine<T, N>(&mut self, mut request: Request<Incoming>) -> Result<(N, Response<Full<Bytes>>), Refused>
    where
        F: FnOnce(RequestHead<'_>) -> Result<T, Refusal>,
        E: FnOnce(T) -> N,
    {
        let (accepted, enter) = self.accept(&request)?;
        // The library computes the accept key; its future of the upgraded stream is not needed.
        let (response, _) = fastwebsockets::upgrade::upgrade(&mut request)
            .map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        Ok((enter(accepted), response.map(|_| Full::default())))
    }

    fn accept<T>(&mut self, request: &Request<Incoming>) -> Result<(T, E), Refused>
    where
        F: FnOnce(RequestHead<'_>) -> Result<T, Refusal>,
    {
        if request.method() != Method::GET {
            return Err(
                Refused::new(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here").with(header::ALLOW, "GET")
            );
        }
        let headers = request.headers();
        let forwarded_for = joined(headers, "x-forwarded-for")?;
        let head = RequestHead {
            target: request.uri().path_and_query().map_or("", |target| target.as_str()),
            origin: single(headers, &header::ORIGIN)?,
            forwarded_for: forwarded_for.as_deref(),
            notices: headers.get(notice::HEADER).is_some_and(|value| value == notice::VERSION),
            remote: self.remote,
        };
        let Some((decide, enter)) = self.steps.take() else {
            return Err(Refused::new(StatusCode::BAD_REQUEST, "one request per connection"));
        };
        let accepted = decide(head).map_err(Refused::from)?;
        check_upgrade(request)?;
        Ok((accepted, enter))
    }
}

/// Whether the request is a proper WebSocket upgrade (RFC 6455, section 4.2.1).
fn check_upgrade<B>(request: &Request<B>) -> Result<(), Refused> {
    let headers = request.headers();
    if request.version() != Version::HTTP_11 || !fastwebsockets::upgrade::is_upgrade_request(request) {
        return Err(Refused::new(StatusCode::UPGRADE_REQUIRED, "connect with a WebSocket client")
            .with(header::UPGRADE, "websocket"));
    }
    if single(headers, &header::SEC_WEBSOCKET_VERSION)? != Some("13") {
        return Err(Refused::new(StatusCode::UPGRADE_REQUIRED, "only WebSocket version 13 is spoken here")
            .with(header::SEC_WEBSOCKET_VERSION, "13"));
    }
    let key = single(headers, &header::SEC_WEBSOCKET_KEY)?;
    if !key.is_some_and(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16)) {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64"));
    }
    Ok(())
}

/// A header that may be there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refused> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(value), None) => Ok(Some(value)),
        _ => Err(Refused::new(StatusCode::BAD_REQUEST, format!("the header {name} is unreadable or repeated"))),
    }
}

/// A header that may be there several times; its lines mean one list.
fn joined(headers: &HeaderMap, name: &str) -> Result<Option<String>, Refused> {
    let mut lines = Vec::new();
    for value in headers.get_all(name) {
        let line = value
            .to_str()
            .map_err(|_| Refused::new(StatusCode::BAD_REQUEST, format!("the header {name} is unreadable")))?;
        lines.push(line);
    }
    Ok((!lines.is_empty()).then(|| lines.join(", ")))
}

/// A refusal with the header that its status asks for.
struct Refused {
    refusal: Refusal,
    header: Option<(HeaderName, &'static str)>,
}

impl Refused {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self::from(Refusal { status: status.as_u16(), message: message.into() })
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(format!("{}\n", self.refusal.message)));
        *response.status_mut() = StatusCode::from_u16(self.refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        if let Some((name, value)) = &self.header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, header: None }
    }
}

#[cfg(test)]
#[path = "upgrade_tests.rs"]
mod tests;
