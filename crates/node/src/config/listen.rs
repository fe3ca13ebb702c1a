//! `[listen]`: where the node listens and how that is secured. Nothing is bound here.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[listen]`: with no table below it, all three listeners run on their defaults; with any, only those that are there.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenSettings {
    /// The WebSocket listener.
    #[serde(default)]
    pub websocket: Option<WebSocketSettings>,
    /// The WebTransport listener.
    #[serde(default)]
    pub webtransport: Option<WebTransportSettings>,
    /// The operator's listener.
    #[serde(default)]
    pub admin: Option<AdminSettings>,
}

impl Default for ListenSettings {
    fn default() -> Self {
        Self {
            websocket: Some(WebSocketSettings::default()),
            webtransport: Some(WebTransportSettings::default()),
            admin: Some(AdminSettings::default()),
        }
    }
}

/// `[listen.websocket]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocketSettings {
    /// Address and port; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// How it is secured.
    pub tls: Tls,
}

impl Default for WebSocketSettings {
    fn default() -> Self {
        Self { bind: SocketAddr::from(([127, 0, 0, 1], 8080)), tls: Tls::Mode(TlsMode::Off) }
    }
}

/// `[listen.webtransport]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebTransportSettings {
    /// Address and port; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// How it is secured; never off.
    pub tls: Tls,
}

impl Default for WebTransportSettings {
    fn default() -> Self {
        Self { bind: SocketAddr::from(([127, 0, 0, 1], 4433)), tls: Tls::Mode(TlsMode::SelfSigned) }
    }
}

/// How a listener is secured.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Tls {
    /// `"off"` or `"self-signed"`.
    Mode(TlsMode),
    /// Files in PEM, read again when they change.
    Files(TlsFiles),
}

impl<'de> Deserialize<'de> for Tls {
    /// By hand, so that an error says what may stand there (an untagged enum only says that nothing matched).
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Tls;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(r#""off", "self-signed" or { cert = "FILE", key = "FILE" }"#)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Tls, E> {
                TlsMode::deserialize(serde::de::value::StrDeserializer::new(text)).map(Tls::Mode)
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Tls, A::Error> {
                TlsFiles::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Tls::Files)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `{ cert = "…", key = "…" }`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Security that needs no files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Plain TCP: for loopback, or behind a proxy that ends TLS.
    Off,
    /// A certificate made at start, at most 14 days old, whose hash browsers pin.
    SelfSigned,
}

/// `[listen.admin]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Address and port; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// Holds the token that changing calls need; empty: a random one is made and its file printed.
    pub token_file: PathBuf,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { bind: SocketAddr::from(([127, 0, 0, 1], 9090)), token_file: PathBuf::new() }
    }
}
