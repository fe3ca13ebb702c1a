//! What a server shows: one certificate behind every listener, replaced while they run.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Certificate, TlsError, provider};

/// How long before its end a self-signed certificate is renewed: long enough that a node whose renewal fails is noticed
/// and mended before clients are.
const RENEW_BEFORE_END: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// The certificate that every listener of a node shows. Clones are the same identity.
#[derive(Clone, Debug)]
pub struct ServerIdentity {
    shown: Arc<Shown>,
}

#[derive(Debug)]
struct Shown {
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    certificate: Arc<Certificate>,
    certified: Arc<CertifiedKey>,
}

impl Current {
    fn new(certificate: Certificate) -> Result<Self, TlsError> {
        let certified = Arc::new(certificate.certified().map_err(TlsError::Unusable)?);
        Ok(Self { certificate: Arc::new(certificate), certified })
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().certified))
    }
}

impl ServerIdentity {
    /// Starts with `certificate`.
    ///
    /// # Errors
    /// [`TlsError::Unusable`] where the key is of no use or not the certificate's.
    pub fn new(certificate: Certificate) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(Current::new(certificate)?);
        Ok(Self { shown: Arc::new(Shown { current }) })
    }

    /// Shows `certificate` to every connection from now on; those that stand are not touched, nothing is bound again.
    ///
    /// # Errors
    /// [`TlsError::Unusable`] as for [`Self::new`]; the certificate in use stays.
    pub fn replace(&self, certificate: Certificate) -> Result<(), TlsError> {
        self.shown.current.store(Arc::new(Current::new(certificate)?));
        Ok(())
    }

    /// The certificate that is shown now.
    #[must_use]
    pub fn current(&self) -> Arc<Certificate> {
        Arc::clone(&self.shown.current.load().certificate)
    }

    /// When the certificate shown now, if it is self-signed, should be replaced: three days before it ends.
    #[must_use]
    pub fn renew_at(&self) -> SystemTime {
        renew_at(self.shown.current.load().certificate.not_after)
    }

    /// For WebSockets over TLS: TLS 1.3, HTTP/1.1.
    #[must_use]
    pub fn tls_config(&self) -> Arc<ServerConfig> {
        Arc::new(self.config(b"http/1.1"))
    }

    /// For WebTransport: QUIC, HTTP/3.
    #[must_use]
    pub fn quic_config(&self) -> Arc<QuicServerConfig> {
        let config = QuicServerConfig::try_from(self.config(web_transport_quinn::ALPN.as_bytes()));
        Arc::new(config.expect("ring has the cipher suite of QUIC's first packets"))
    }

    fn config(&self, alpn: &[u8]) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring has cipher suites of TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![alpn.to_vec()];
        // No resumption: every connection sees, and checks, the certificate of today. A full handshake costs tens of
        // microseconds, and a client connects once per call.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config
    }
}

fn renew_at(not_after: SystemTime) -> SystemTime {
    not_after.checked_sub(RENEW_BEFORE_END).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn certificate(day: u64) -> Certificate {
        Certificate::self_signed(&[], UNIX_EPOCH + Duration::from_secs(86_400 * day)).unwrap()
    }

    #[test]
    fn renewal_comes_after_the_start_and_before_the_end() {
        let identity = ServerIdentity::new(certificate(20_000)).unwrap();
        let start = UNIX_EPOCH + Duration::from_secs(86_400 * 20_000);
        assert!(identity.renew_at() > start + Duration::from_secs(86_400 * 9));
        assert_eq!(identity.renew_at(), identity.current().not_after - RENEW_BEFORE_END);
        assert_eq!(renew_at(UNIX_EPOCH), UNIX_EPOCH - RENEW_BEFORE_END);
    }

    #[test]
    fn a_replacement_is_shown_by_every_clone_and_a_bad_one_by_none() {
        let identity = ServerIdentity::new(certificate(20_000)).unwrap();
        let clone = identity.clone();
        let next = certificate(20_009);
        let hash = next.sha256();
        identity.replace(next).unwrap();
        assert_eq!(clone.current().sha256(), hash);

        let mut crossed = certificate(20_010);
        crossed.key = certificate(20_010).key;
        assert!(matches!(identity.replace(crossed), Err(TlsError::Unusable(_))));
        assert_eq!(clone.current().sha256(), hash);
    }

    #[test]
    fn the_settings_are_those_that_were_asked_for() {
        let identity = ServerIdentity::new(certificate(20_000)).unwrap();
        let config = identity.tls_config();
        assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
        assert_eq!(config.max_early_data_size, 0);
        let _ = identity.quic_config();
    }
}
