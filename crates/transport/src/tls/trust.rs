//! What a client believes: roots, pinned hashes, or anything at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::certificate::{not_pem, read, sha256};
use super::{TlsError, provider};

/// Which servers a client takes.
#[derive(Clone, Debug)]
pub enum ClientTrust {
    /// Those that the system's certificate authorities vouch for.
    SystemRoots,
    /// Those that the authorities in this PEM file vouch for.
    RootsFile(PathBuf),
    /// Those whose certificate has one of these SHA-256 hashes, whatever its names and dates say; it must still prove that
    /// it holds the key. The same idea as a browser's `serverCertificateHashes`.
    Hashes(Vec<[u8; 32]>),
    /// Anybody: whoever sits in between can read everything. For tests and tools on one's own machine.
    Insecure,
}

impl ClientTrust {
    /// TLS 1.3 settings for a client that offers `alpn`.
    ///
    /// # Errors
    /// A file of roots that cannot be used, a system without roots, an empty list of hashes.
    pub fn client_config(&self, alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring has cipher suites of TLS 1.3");
        let pinned = |hashes: Option<Vec<[u8; 32]>>| Arc::new(Pinned { hashes, provider: provider() });
        let mut config = match self {
            Self::SystemRoots => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
            Self::RootsFile(path) => builder.with_root_certificates(roots_file(path)?).with_no_client_auth(),
            Self::Hashes(hashes) if hashes.is_empty() => return Err(TlsError::NoRoots),
            Self::Hashes(hashes) => {
                builder.dangerous().with_custom_certificate_verifier(pinned(Some(hashes.clone()))).with_no_client_auth()
            }
            Self::Insecure => builder.dangerous().with_custom_certificate_verifier(pinned(None)).with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a system root certificate was skipped");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

fn roots_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read(path)?) {
        let certificate = certificate.map_err(|error| not_pem(path, &error))?;
        roots.add(certificate).map_err(|_| TlsError::Malformed { path: path.to_owned() })?;
    }
    if roots.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(roots) }
}

/// Takes a certificate by its hash, or any where there are no hashes; always checks the handshake's signature.
#[derive(Debug)]
struct Pinned {
    hashes: Option<Vec<[u8; 32]>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.hashes {
            Some(hashes) if !hashes.contains(&sha256(end_entity)) => {
                Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_of_hashes_trusts_nobody() {
        assert!(matches!(ClientTrust::Hashes(vec![]).client_config(&[]), Err(TlsError::NoRoots)));
    }

    #[test]
    fn a_file_of_roots_is_checked() {
        let files = tempfile::tempdir().unwrap();
        let path = files.path().join("roots.pem");
        let config = || ClientTrust::RootsFile(path.clone()).client_config(&[b"h3"]);
        assert!(matches!(config(), Err(TlsError::Read { .. })));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(config(), Err(TlsError::NoCertificate { .. })));
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(&path, certificate.pem()).unwrap();
        assert_eq!(config().unwrap().alpn_protocols, [b"h3".to_vec()]);
    }
}
