//! Certificates and TLS settings of both transports: what a server shows, what a client believes.
//!
//! What does not live here: sockets, and when a certificate is renewed or its files are read again (the node's affair).
//! TLS 1.3 only, ring only, and never the process's default provider: two parts of one process cannot disagree.

mod certificate;
mod server;
mod trust;
mod validity;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use certificate::Certificate;
pub use server::ServerIdentity;
pub use trust::ClientTrust;

/// What can be wrong with certificates, keys and roots. Messages name the file and say what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: cannot be read ({source}); check the path and that this user may read the file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not PEM.
    #[error("{}: is not valid PEM ({message}); DER files are converted with `openssl x509 -inform der -in … -out …`", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A certificate file without a certificate.
    #[error("{}: holds no CERTIFICATE block; give the PEM file with the server's certificate first, then its issuers", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A key file without a usable private key.
    #[error(
        "{}: holds no PRIVATE KEY block that can be used; an encrypted key must be decrypted first with `openssl pkey -in … -out …`",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate whose bytes make no sense.
    #[error("{}: the first certificate is malformed; ask its issuer for a new one", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate are of different pairs.
    #[error(
        "the key in {} does not belong to the first certificate in {}; give the files of one pair, the server's certificate first",
        key.display(),
        certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The key is of a kind that TLS 1.3 cannot use here, or the pair does not fit.
    #[error("the certificate and its key cannot be used: {0}; use an ECDSA P-256, Ed25519 or RSA key")]
    Unusable(rustls::Error),
    /// No self-signed certificate could be made.
    #[error("cannot make a self-signed certificate: {0}")]
    Generate(String),
    /// Nothing to check a server against.
    #[error(
        "no trusted root certificates were found; install the system's `ca-certificates`, or name a file of roots or a hash"
    )]
    NoRoots,
}

/// The one cryptography provider of this project.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
