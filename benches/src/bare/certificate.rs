//! A certificate that nobody signed, for the yardsticks with TLS.

use anyhow::Context;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// One for the names and addresses that loopback has.
///
/// # Errors
/// When no key can be made.
pub fn self_signed() -> anyhow::Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).context("no certificate can be made")?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok((made.cert.der().clone(), key))
}
