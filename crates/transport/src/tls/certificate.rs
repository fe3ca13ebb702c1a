//! One certificate with its key: made here or read from files, and its hash as people and browsers want it.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

use super::{TlsError, provider, validity};

/// How long a self-signed certificate is valid in all. Browsers accept a pinned certificate only if this is at most 14
/// days; a day less forgives how they count.
const SELF_SIGNED_VALIDITY: Duration = Duration::from_secs(13 * 24 * 60 * 60);

/// How far before `now` it starts, for clients whose clock is behind.
const BACK_DATE: Duration = Duration::from_secs(60 * 60);

/// A chain of certificates, the server's own first, and its private key.
pub struct Certificate {
    /// The server's certificate, then its issuers.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the first one.
    pub key: PrivateKeyDer<'static>,
    /// When the first one ends.
    pub not_after: SystemTime,
}

impl Certificate {
    /// Makes an ECDSA P-256 certificate, valid from an hour before `now` for 13 days, for `localhost`, `127.0.0.1`, `::1`
    /// and `names` (host names or addresses). Browsers take it by its hash (`serverCertificateHashes`).
    ///
    /// # Errors
    /// A name that is neither a host name nor an address.
    pub fn self_signed(names: &[String], now: SystemTime) -> Result<Self, TlsError> {
        let failed = |error: rcgen::Error| TlsError::Generate(error.to_string());
        let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        for name in names {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        let mut params = rcgen::CertificateParams::new(all).map_err(failed)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "roomcast self-signed");
        // Certificates count in whole seconds.
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(BACK_DATE);
        let from = UNIX_EPOCH + Duration::from_secs(since.as_secs());
        let to = from + SELF_SIGNED_VALIDITY;
        params.not_before = from.into();
        params.not_after = to.into();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Self {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            not_after: to,
        })
    }

    /// Reads a chain and its key from PEM files (they may be the same file) and checks that they belong together.
    ///
    /// # Errors
    /// A message that names the file and says what to do.
    pub fn load_pem(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let bytes = read(certificate)?;
        let chain = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| not_pem(certificate, &error))?;
        let leaf = chain.first().ok_or_else(|| TlsError::NoCertificate { path: certificate.to_owned() })?;
        let (_, not_after) = validity::of(leaf).ok_or_else(|| TlsError::Malformed { path: certificate.to_owned() })?;
        let der = match PrivateKeyDer::from_pem_slice(&read(key)?) {
            Ok(der) => der,
            Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey { path: key.to_owned() }),
            Err(error) => return Err(not_pem(key, &error)),
        };
        let loaded = Self { chain, key: der, not_after };
        match loaded.certified() {
            Ok(_) => Ok(loaded),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() })
            }
            Err(error) => Err(TlsError::Unusable(error)),
        }
    }

    /// SHA-256 of the first certificate's DER: what a client pins.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        sha256(self.chain.first().map_or(&[], AsRef::as_ref))
    }

    /// The hash in Base64, as a web page decodes it for `serverCertificateHashes`.
    #[must_use]
    pub fn hash_base64(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(self.sha256())
    }

    /// The hash as `openssl x509 -fingerprint -sha256` prints it: `AB:CD:…`.
    #[must_use]
    pub fn hash_hex(&self) -> String {
        self.sha256().map(|byte| format!("{byte:02X}")).join(":")
    }

    pub(super) fn certified(&self) -> Result<CertifiedKey, rustls::Error> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &provider())
    }
}

impl Clone for Certificate {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), not_after: self.not_after }
    }
}

/// Without the key: this ends up in logs.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("sha256", &self.hash_hex())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

pub(super) fn sha256(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

pub(super) fn not_pem(path: &Path, error: &pem::Error) -> TlsError {
    TlsError::Pem { path: path.to_owned(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_790_000_000);

    #[test]
    fn a_self_signed_certificate_is_one_that_browsers_pin() {
        let now = UNIX_EPOCH + NOW + Duration::from_millis(700);
        let made = Certificate::self_signed(&["router.example".to_owned(), "localhost".to_owned()], now).unwrap();
        let (from, to) = validity::of(&made.chain[0]).unwrap();
        assert!(from < now && now < to);
        assert!(to.duration_since(from).unwrap() <= Duration::from_secs(14 * 24 * 60 * 60));
        assert_eq!(made.not_after, to);
        // prime256v1, 1.2.840.10045.3.1.7.
        let curve = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        assert!(made.chain[0].windows(curve.len()).any(|window| window == curve));
        for name in ["localhost", "router.example"] {
            assert_eq!(
                made.chain[0].windows(name.len()).filter(|window| *window == name.as_bytes()).count(),
                1,
                "{name}"
            );
        }
        made.certified().unwrap();
    }

    #[test]
    fn every_certificate_has_its_own_key_and_hash() {
        let now = UNIX_EPOCH + NOW;
        let (one, two) = (Certificate::self_signed(&[], now).unwrap(), Certificate::self_signed(&[], now).unwrap());
        assert_ne!(one.sha256(), two.sha256());
        assert_eq!(one.hash_hex().len(), 32 * 3 - 1);
        assert_eq!(one.hash_base64().len(), 44);
        assert!(!format!("{one:?}").contains("key"));
    }

    #[test]
    fn a_name_that_is_no_name_is_refused() {
        let error = Certificate::self_signed(&["zürich".to_owned()], UNIX_EPOCH + NOW).unwrap_err();
        assert!(matches!(error, TlsError::Generate(_)), "{error}");
    }

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, content: &str) -> std::path::PathBuf {
            let path = self.0.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        }
    }

    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn files_are_read_and_checked() {
        let files = Files::new();
        let (certificate, key) = pair();
        let (other, _) = pair();
        let whole = files.write("whole.pem", &format!("{key}{certificate}{other}"));
        let loaded = Certificate::load_pem(&whole, &whole).unwrap();
        assert_eq!(loaded.chain.len(), 2);

        let certificate = files.write("cert.pem", &certificate);
        let other = files.write("other.pem", &other);
        let key = files.write("key.pem", &key);
        let garbage = files.write("garbage.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
        let hollow = files.write("hollow.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let missing = files.0.path().join("missing.pem");

        let fails = |certificate: &Path, key: &Path| Certificate::load_pem(certificate, key).unwrap_err();
        assert!(matches!(fails(&missing, &key), TlsError::Read { path, .. } if path == missing));
        assert!(matches!(fails(&certificate, &missing), TlsError::Read { path, .. } if path == missing));
        assert!(matches!(fails(&key, &key), TlsError::NoCertificate { path } if path == key));
        assert!(matches!(fails(&certificate, &certificate), TlsError::NoKey { path } if path == certificate));
        assert!(matches!(fails(&garbage, &key), TlsError::Pem { path, .. } if path == garbage));
        assert!(matches!(fails(&hollow, &key), TlsError::Malformed { path } if path == hollow));
        assert!(matches!(fails(&other, &key), TlsError::Mismatch { .. }));
        assert!(fails(&missing, &key).to_string().contains("missing.pem"));
    }
}
