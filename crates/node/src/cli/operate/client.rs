//! Asking a node's admin port over HTTP/1.1, one connection a question, and saying what went wrong so that it helps.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::view::Message;

/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The most that is read of an answer: the tree of a full node is a tenth of it.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The command makes no sense.
    #[error("{0}")]
    Usage(String),
    /// There is no node at the address, or it does not answer.
    #[error(
        "nobody answers at {address}: {reason}\n\
         Is a node running there? `roomcast serve` prints its admin address; name it with --admin ADDR, or its \
         configuration file with --config FILE"
    )]
    Silent {
        /// Where.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The node wants its token, or a better one.
    #[error(
        "the node at {0} wants its admin token, and {1}\n\
         It prints the token's file when it starts; give it with --token-file FILE, as a user who may read it"
    )]
    Token(String, &'static str),
    /// The node will not, and says why.
    #[error("{0}")]
    Refused(String),
    /// Whoever answers is no node of ours.
    #[error("what answers at {0} does not answer like a roomcast node of version {version}", version = env!("CARGO_PKG_VERSION"))]
    Foreign(String),
    /// Standard output was closed: no trouble at all.
    #[error("nobody reads what is printed")]
    NobodyReads,
    /// Standard output takes nothing: a full disk, for example.
    #[error("the answer cannot be printed: {0}")]
    Unprinted(std::io::Error),
}

impl Trouble {
    /// What it means that printing failed: who has read enough (`| head`) is well served, a full disk has lost the answer.
    pub(super) fn from_print(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe { Self::NobodyReads } else { Self::Unprinted(error) }
    }

    /// The process's exit code.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::NobodyReads => 0,
            Self::Token(..) | Self::Refused(_) | Self::Foreign(_) | Self::Unprinted(_) => 1,
            Self::Usage(_) => 2,
            Self::Silent { .. } => 3,
        }
    }
}

/// One node's admin port.
pub(super) struct Client {
    address: String,
    token: Option<String>,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Client {
    pub(super) fn new(address: String, token: Option<String>) -> Self {
        Self { address, token }
    }

    /// Asks, and reads what was said as a `T`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        self.parse(&self.get_text(path).await?)
    }

    /// Asks, and hands out what was said.
    pub(super) async fn get_text(&self, path: &str) -> Result<String, Trouble> {
        let answer = self.ask(Method::GET, path).await?;
        self.expect_good(answer)
    }

    /// Reads what the node said.
    pub(super) fn parse<T: DeserializeOwned>(&self, body: &str) -> Result<T, Trouble> {
        serde_json::from_str(body).map_err(|_| Trouble::Foreign(self.address.clone()))
    }

    /// Asks for a change; every answer is handed out but those about the token.
    pub(super) async fn post(&self, path: &str) -> Result<Answer, Trouble> {
        self.ask(Method::POST, path).await
    }

    /// The body of a good answer; else why it is none.
    pub(super) fn expect_good(&self, answer: Answer) -> Result<String, Trouble> {
        if answer.status == 200 {
            return Ok(answer.body);
        }
        let said: Message = self.parse(&answer.body)?;
        Err(Trouble::Refused(said.message))
    }

    /// Begins an answer that lasts.
    pub(super) async fn follow(&self, path: &str, last_id: Option<&str>) -> Result<Response<Incoming>, Trouble> {
        let response = timeout(ANSWER, self.send(Method::GET, path, last_id)).await;
        let response = response.map_err(|_| self.silent("it took the question and said nothing"))??;
        if response.status().is_success() {
            return Ok(response);
        }
        let answer = self.whole(response).await?;
        Err(self.expect_good(answer).err().unwrap_or_else(|| Trouble::Foreign(self.address.clone())))
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Answer, Trouble> {
        let exchange = async { self.whole(self.send(method, path, None).await?).await };
        let answer = timeout(ANSWER, exchange).await;
        answer.map_err(|_| self.silent("it took the question and said nothing"))?
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<Answer, Trouble> {
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| self.silent("it stopped in the middle of its answer"))?.to_bytes();
        if status == 401 {
            let why = if self.token.is_some() { "does not take this one" } else { "none was found here" };
            return Err(Trouble::Token(self.address.clone(), why));
        }
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn send(&self, method: Method, path: &str, last_id: Option<&str>) -> Result<Response<Incoming>, Trouble> {
        let silent = |error: &dyn std::fmt::Display| self.silent(&error.to_string());
        let socket = TcpStream::connect(&self.address).await.map_err(|error| silent(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(|error| silent(&error))?;
        // Ends with the connection, which ends when its answer is dropped.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.address);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| Trouble::Usage(error.to_string()))?;
        sender
            .send_request(request)
            .await
            .map_err(|error| if error.is_parse() { Trouble::Foreign(self.address.clone()) } else { silent(&error) })
    }

    fn silent(&self, reason: &str) -> Trouble {
        Trouble::Silent { address: self.address.clone(), reason: reason.to_owned() }
    }
}
