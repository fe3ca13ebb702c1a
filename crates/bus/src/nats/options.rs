//! What a bus on NATS is told: brokers, credentials, certificates, bounds. What lives here: the options and their checks. What does
//! not: any connection.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectOptions;
use percent_encoding::percent_decode_str;
use roomcast_protocol::SessionId;
use roomcast_relay::EgressLimits;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use url::Url;

use crate::BufferLimits;

/// Tells whether a session is one of this node's own.
pub type IsOwn = Arc<dyn Fn(SessionId) -> bool + Send + Sync>;

/// How a bus reaches its brokers and what it may hold.
#[derive(Clone)]
pub struct NatsOptions {
    /// The brokers, each `nats://host:port` or `tls://host:port`, with credentials as `nats://user:password@…` or
    /// `nats://token@…`, percent-encoded. Other brokers of the same cluster are learned from these.
    pub urls: Vec<String>,
    /// A `.creds` file (a token and an nkey's seed) or a file with only an nkey's seed. Read again for each connection, so it may be
    /// replaced.
    pub credentials_file: Option<PathBuf>,
    /// PEM of the only authorities to trust; with it every connection must be TLS. `None`: the system's, where TLS is used.
    pub tls_ca_file: Option<PathBuf>,
    /// How the connection is called on the broker's side.
    pub name: String,
    /// A packet of one of this node's own sessions is an echo of an earlier connection, and ignored.
    pub own: IsOwn,
    /// What each subscription and inbox may hold unread.
    pub incoming: BufferLimits,
    /// What may wait for the broker, all rooms together.
    pub outgoing: EgressLimits,
    /// A broker that says nothing for three times this long, although it was asked, is lost.
    pub ping: Duration,
    /// The longest that one attempt to reach one broker takes.
    pub connect_timeout: Duration,
    /// The waits between attempts.
    pub backoff: Backoff,
}

impl NatsOptions {
    /// The defaults, with these brokers.
    #[must_use]
    pub fn new(urls: Vec<String>) -> Self {
        Self {
            urls,
            credentials_file: None,
            tls_ca_file: None,
            name: "roomcast".to_owned(),
            own: Arc::new(|_| false),
            incoming: BufferLimits::default(),
            outgoing: EgressLimits { packets: 4_096, bytes: 16 * 1024 * 1024, max_delay: Duration::from_millis(500) },
            ping: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(2),
            // At most a second, so that a broker which is back is found, and remote members are heard again, within two.
            backoff: Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(1) },
        }
    }

    /// Finds what can never work, without reaching any broker.
    ///
    /// # Errors
    ///
    /// The first such thing, with the key to change.
    pub fn check(&self) -> Result<(), NatsError> {
        self.addresses()?;
        self.credentials()?.apply(ConnectOptions::new())?;
        self.check_certificates()
    }

    pub(super) fn addresses(&self) -> Result<Vec<Address>, NatsError> {
        if self.urls.is_empty() {
            return Err(NatsError::NoUrls);
        }
        self.urls.iter().map(|url| Address::parse(url)).collect()
    }

    /// Reads the credentials' file.
    pub(super) fn credentials(&self) -> Result<Credentials, NatsError> {
        let Some(path) = &self.credentials_file else { return Ok(Credentials { path: None, text: String::new() }) };
        let text = read(path).map_err(|reason| NatsError::Credentials { path: path.clone(), reason })?;
        Ok(Credentials { path: Some(path.clone()), text })
    }

    fn check_certificates(&self) -> Result<(), NatsError> {
        let Some(path) = &self.tls_ca_file else { return Ok(()) };
        let refuse = |reason| NatsError::Certificates { path: path.clone(), reason };
        let text = read(path).map_err(refuse)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => Err(refuse("holds no certificate in PEM".to_owned())),
            Ok(_) => Ok(()),
            Err(error) => Err(refuse(format!("is not PEM: {error}"))),
        }
    }
}

impl fmt::Debug for NatsOptions {
    /// Without what the URLs may hold of credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.addresses().unwrap_or_default();
        f.debug_struct("NatsOptions").field("urls", &urls).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Waits that double, each shortened by chance by up to a half, so that nodes which lost a broker together do not come back
/// together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first.
    pub initial: Duration,
    /// The longest.
    pub max: Duration,
}

impl Backoff {
    /// The wait after so many failures (0: the first); `chance` is from 0 to 1.
    pub(super) fn wait(&self, failures: u32, chance: f64) -> Duration {
        let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        let whole = self.initial.saturating_mul(factor).min(self.max);
        whole.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0)
    }
}

/// What is wrong with the options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NatsError {
    /// There is nothing to connect to.
    #[error("bus.nats.urls is empty: name at least one broker, for example \"nats://127.0.0.1:4222\"")]
    NoUrls,
    /// One of the URLs is none of a broker.
    #[error("bus.nats.urls: {url} is no broker's URL: {reason}")]
    Url {
        /// Without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The credentials cannot be used.
    #[error("bus.nats.credentials_file: {} {reason}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The authorities cannot be used.
    #[error("bus.nats.tls_ca_file: {} {reason}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))
}

/// One broker's URL, and who to be there.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// `nats` or `tls`.
    scheme: String,
    /// `host:port`, an IPv6 address in brackets.
    authority: String,
    user: Option<String>,
    password: Option<String>,
}

impl Address {
    fn parse(text: &str) -> Result<Self, NatsError> {
        let refuse = |reason: &str| NatsError::Url { url: hide_credentials(text), reason: reason.to_owned() };
        if text.contains(',') {
            return Err(refuse("one URL for each broker, as a list"));
        }
        let whole = if text.contains("://") { text.to_owned() } else { format!("nats://{text}") };
        let url = Url::parse(&whole).map_err(|error| refuse(&error.to_string()))?;
        if !matches!(url.scheme(), "nats" | "tls") {
            return Err(refuse("it must begin with nats:// or tls://"));
        }
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else { return Err(refuse("it has no host")) };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("it must end after the port"));
        }
        let decoded = |part: &str| Some(percent_decode_str(part).decode_utf8_lossy().into_owned());
        Ok(Self {
            scheme: url.scheme().to_owned(),
            authority: format!("{host}:{}", url.port().unwrap_or(4222)),
            user: decoded(url.username()).filter(|user| !user.is_empty()),
            password: url.password().and_then(decoded),
        })
    }

    /// Another broker of the same cluster, which this one told of as `host:port`: the same scheme and credentials.
    pub(super) fn sibling(&self, authority: &str) -> Option<Self> {
        let told = Self::parse(authority).ok()?;
        Some(Self { authority: told.authority, ..self.clone() })
    }

    /// Whether both lead to the same broker.
    pub(super) fn is_same_broker(&self, other: &Self) -> bool {
        self.authority == other.authority
    }

    /// The URL without credentials.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    /// Adds who to be.
    pub(super) fn apply(&self, options: ConnectOptions) -> ConnectOptions {
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => options.user_and_password(user.clone(), password.clone()),
            (Some(token), None) => options.token(token.clone()),
            _ => options,
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url())
    }
}

/// A URL, valid or not, with all before the host gone.
fn hide_credentials(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    match rest.rsplit_once('@') {
        Some((_, host)) if scheme.is_empty() => host.to_owned(),
        Some((_, host)) => format!("{scheme}://{host}"),
        None => text.to_owned(),
    }
}

/// What the credentials' file held. Not shown by any `Debug`.
#[derive(Clone)]
pub(super) struct Credentials {
    path: Option<PathBuf>,
    text: String,
}

impl Credentials {
    /// Adds who to be.
    ///
    /// # Errors
    ///
    /// Where the file is of neither kind.
    pub(super) fn apply(&self, options: ConnectOptions) -> Result<ConnectOptions, NatsError> {
        let Some(path) = &self.path else { return Ok(options) };
        let refuse = |reason: &str| NatsError::Credentials { path: path.clone(), reason: reason.to_owned() };
        if self.text.contains("-----BEGIN") {
            return options.credentials(&self.text).map_err(|error| refuse(&format!("is no .creds file: {error}")));
        }
        let mut lines = self.text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        match (lines.next(), lines.next()) {
            (Some(seed), None) if is_seed(seed) => Ok(options.nkey(seed.to_owned())),
            _ => Err(refuse("is neither a .creds file nor an nkey's seed (SU…)")),
        }
    }
}

/// Whether the client library can read this nkey: asked by way of a `.creds` file, the only one that it checks at once.
fn is_seed(seed: &str) -> bool {
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\nnone\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    seed.starts_with("SU") && ConnectOptions::new().credentials(&creds).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(urls: &[&str]) -> NatsOptions {
        NatsOptions::new(urls.iter().map(|url| (*url).to_owned()).collect())
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn a_url_is_taken_apart_and_shown_without_credentials() {
        let addresses = with(&["nats://a%40b:p%3Aw@host:5", "tls://token@[::1]:6", "plain", "nats://127.0.0.1/"]);
        let addresses = addresses.addresses().unwrap();
        assert_eq!(addresses[0].user.as_deref(), Some("a@b"));
        assert_eq!(addresses[0].password.as_deref(), Some("p:w"));
        let shown: Vec<String> = addresses.iter().map(|address| format!("{address:?}")).collect();
        assert_eq!(shown, ["nats://host:5", "tls://[::1]:6", "nats://plain:4222", "nats://127.0.0.1:4222"]);
        let sibling = addresses[0].sibling("10.0.0.1:7").unwrap();
        assert_eq!((sibling.url(), sibling.user.as_deref()), ("nats://10.0.0.1:7".to_owned(), Some("a@b")));
        assert!(addresses[1].sibling("[fe80::1]:7").unwrap().url().starts_with("tls://[fe80::1]:7"));
    }

    #[test]
    fn what_can_never_work_is_refused_with_its_key_and_without_its_secrets() {
        assert_eq!(with(&[]).check(), Err(NatsError::NoUrls));
        for url in [
            "http://u:secret@host",
            "ws://host",
            "nats://",
            "nats://u:secret@host:port",
            "nats://u:secret@host/subject",
            "nats://a:1,nats://u:secret@b:2",
        ] {
            let error = with(&["nats://fine", url]).check().unwrap_err().to_string();
            assert!(error.starts_with("bus.nats.urls: ") && !error.contains("secret"), "{error}");
        }
        let mut options = with(&["host"]);
        options.credentials_file = Some("/does/not/exist".into());
        let error = options.check().unwrap_err().to_string();
        assert!(error.starts_with("bus.nats.credentials_file: /does/not/exist cannot be read: "), "{error}");
        options.credentials_file = None;
        let empty = file("no certificate");
        options.tls_ca_file = Some(empty.path().to_owned());
        let error = options.check().unwrap_err().to_string();
        assert!(
            error.starts_with("bus.nats.tls_ca_file: ") && error.ends_with("holds no certificate in PEM"),
            "{error}"
        );
    }

    #[test]
    fn credentials_are_a_seed_or_a_creds_file_and_nothing_else() {
        const SEED: &str = "SUACH75SWCM5D2JMJM6EKLR2WDARVGZT4QC6LX3AGHSWOMVAKERABBBRWM";
        let mut options = with(&["host"]);
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.e.s\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
        );
        for (text, fine) in [
            (SEED, true),
            (&format!("# the node's key\n\n{SEED}\n"), true),
            (&creds, true),
            (&SEED[..40], false),
            (&format!("{SEED}\n{SEED}"), false),
            ("", false),
            ("user:password", false),
            (&creds.replace(SEED, "SUNOSEED"), false),
        ] {
            let file = file(text);
            options.credentials_file = Some(file.path().to_owned());
            let checked = options.check();
            assert_eq!(checked.is_ok(), fine, "{text}: {checked:?}");
            assert!(fine || !checked.unwrap_err().to_string().contains(SEED));
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_at_least_half_of_that() {
        let backoff = Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(2) };
        let waits: Vec<u128> = (0..7).map(|failures| backoff.wait(failures, 0.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1_600, 2_000]);
        assert_eq!(backoff.wait(40, 1.0), Duration::from_secs(1));
        assert_eq!(backoff.wait(0, 1.0), Duration::from_millis(25));
    }
}
