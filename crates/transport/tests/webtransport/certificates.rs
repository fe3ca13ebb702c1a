//! Which certificate is shown, and who takes it.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use bytes::Bytes;
use roomcast_transport::tls::{Certificate, ClientTrust};
use roomcast_transport::webtransport::{ConnectError, Options, connect};

use crate::support::{Pair, Server, packet, pair, within};

const TIMEOUT: Duration = Duration::from_secs(30);

async fn try_connect(server: &Server, url: &str, trust: &ClientTrust) -> Result<(), ConnectError> {
    let accepting = server.accept(|_| Ok(()));
    let connecting = connect(url, trust, TIMEOUT);
    within(async { tokio::join!(accepting, connecting) }).await.1.map(|_| ())
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_binding_again() {
    let Pair { server, mut reader, writer: _writer, client_reader: _reader, mut client } =
        pair(Options::default()).await;
    let before = server.trust();
    let address = server.address();
    server.identity.replace(Certificate::self_signed(&[], SystemTime::now()).unwrap()).unwrap();
    let after = server.trust();

    let error = try_connect(&server, &server.url(), &before).await.unwrap_err();
    assert!(matches!(error, ConnectError::Quic(_)), "{error}");
    try_connect(&server, &server.url(), &after).await.unwrap();
    assert_eq!(server.address(), address);

    // The connection from before goes on.
    client.send(&[Bytes::from_static(b"old")]).await.unwrap();
    assert_eq!(packet(&mut reader).await, b"old");
}

#[tokio::test]
async fn a_wrong_hash_is_refused_and_one_of_several_suffices() {
    let server = Server::start(Options::default());
    let right = server.identity.current().sha256();
    let error = try_connect(&server, &server.url(), &ClientTrust::Hashes(vec![[7; 32]])).await.unwrap_err();
    assert!(matches!(error, ConnectError::Quic(_)), "{error}");
    try_connect(&server, &server.url(), &ClientTrust::Hashes(vec![[7; 32], right])).await.unwrap();
    try_connect(&server, &server.url(), &ClientTrust::Insecure).await.unwrap();
}

#[tokio::test]
async fn roots_from_a_file_check_the_name_too() {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new(vec!["elsewhere.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (elsewhere, elsewhere_key) = (files.path().join("elsewhere.pem"), files.path().join("key.pem"));
    std::fs::write(&elsewhere, made.pem()).unwrap();
    std::fs::write(&elsewhere_key, key.serialize_pem()).unwrap();

    let here = Server::start(Options::default());
    let there =
        Server::with_certificate(Options::default(), Certificate::load_pem(&elsewhere, &elsewhere_key).unwrap());
    for (server, good) in [(&here, true), (&there, false)] {
        let path = files.path().join("roots.pem");
        let text = base64::engine::general_purpose::STANDARD.encode(&server.identity.current().chain[0]);
        std::fs::write(&path, format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")).unwrap();
        let trust = ClientTrust::RootsFile(path);
        for host in ["localhost", "127.0.0.1"] {
            let url = format!("https://{host}:{}/lobby/a/b", server.address().port());
            let result = try_connect(server, &url, &trust).await;
            assert_eq!(result.is_ok(), good, "{url}: {result:?}");
        }
    }
}
