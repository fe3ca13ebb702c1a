//! `listeners/certificates`: renews self-signed certificates before they end, and reads certificate files again when they
//! change. New connections get the new certificate; nothing is bound again and no call notices.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};
use roomcast_transport::tls::{Certificate, ServerIdentity};
use tokio::time::sleep;

use crate::config::Tls;
use crate::node::certificate_names;
use crate::store::Store;

/// How often files are looked at, and the longest sleep before a self-signed certificate's age is.
const PERIOD: Duration = Duration::from_secs(10);

/// One incarnation of the certificates' keeper.
pub struct Certificates;

impl Worker for Certificates {
    type Message = ();
    type Args = Arc<Store>;

    async fn start(store: Arc<Store>, ctx: &Context<Self>) -> Result<Self, StartError> {
        ctx.attach("keep", keep(store));
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }
}

async fn keep(store: Arc<Store>) -> Result<(), Failure> {
    let settings = store.settings();
    let (websocket, webtransport) = (settings.listen.websocket.as_ref(), settings.listen.webtransport.as_ref());
    let kept = [
        ("websocket", &store.sockets.websocket_identity, websocket.map(|listener| &listener.tls)),
        ("webtransport", &store.sockets.webtransport_identity, webtransport.map(|listener| &listener.tls)),
    ];
    let mut seen = [None, None];
    loop {
        for ((name, identity, tls), seen) in kept.iter().zip(&mut seen) {
            let Some(identity) = identity else { continue };
            let result = match tls {
                Some(Tls::Files(files)) => reload(identity, &files.cert, &files.key, seen),
                _ => renew(identity, SystemTime::now()),
            };
            match result {
                Ok(true) => tracing::info!(
                    listener = name,
                    sha256 = identity.current().hash_base64(),
                    "a new certificate is served"
                ),
                Ok(false) => {}
                // The old one is served on: the operator may be half-way through replacing the files.
                Err(error) => tracing::error!(listener = name, %error, "the certificate stays as it was"),
            }
        }
        sleep(PERIOD).await;
    }
}

/// Makes a new self-signed certificate when the current one's time has come.
pub(crate) fn renew(identity: &ServerIdentity, now: SystemTime) -> Result<bool, Failure> {
    if now < identity.renew_at() {
        return Ok(false);
    }
    identity.replace(Certificate::self_signed(&certificate_names(), now)?)?;
    Ok(true)
}

/// Reads the files when one of them changed since the last look.
fn reload(
    identity: &ServerIdentity,
    cert: &Path,
    key: &Path,
    seen: &mut Option<[SystemTime; 2]>,
) -> Result<bool, Failure> {
    let changed = [std::fs::metadata(cert)?.modified()?, std::fs::metadata(key)?.modified()?];
    if seen.replace(changed) == Some(changed) {
        return Ok(false);
    }
    let certificate = Certificate::load_pem(cert, key)?;
    if certificate.sha256() == identity.current().sha256() {
        return Ok(false);
    }
    identity.replace(certificate)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_certificate_is_renewed_before_it_ends_and_not_sooner() {
        let now = SystemTime::now();
        let identity = ServerIdentity::new(Certificate::self_signed(&certificate_names(), now).unwrap()).unwrap();
        let first = identity.current().sha256();
        assert!(!renew(&identity, now).unwrap());
        assert_eq!(identity.current().sha256(), first);
        let late = identity.current().not_after - Duration::from_secs(60);
        assert!(renew(&identity, late).unwrap());
        assert_ne!(identity.current().sha256(), first);
        assert!(identity.current().not_after > late + Duration::from_secs(24 * 3600));
    }
}
