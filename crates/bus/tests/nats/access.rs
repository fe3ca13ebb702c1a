//! Who may do what at the broker: credentials, certificates, permissions, and what the operator is told where they are wrong.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use nkeys::KeyPair;
use roomcast_bus::nats::{NatsBus, NatsOptions};
use roomcast_bus::testing::{Broker, BrokerOptions, BrokerVersion};
use roomcast_bus::{Bus, BusState, Published};
use roomcast_protocol::Subject;
use roomcast_protocol::subject::ServerName;

use crate::common::{Told, hearing, next, options, packet, reconnects, room, sent, until, up, within};

/// What a node needs, and nothing more.
const CONFINED: &str = r#"
authorization {
    node = { publish: ["room.>", "roomcast.v1.>", "health.>", "server.>"], subscribe: ["room.>", "roomcast.v1.>", "health.>", "server.>"] }
    deaf = { publish: ["room.>"], subscribe: ["roomcast.v1.>"] }
    mute = { publish: ["health.>"], subscribe: ["room.>"] }
    users = [
        { user: "node", password: "p@ss:word", permissions: $node }
        { user: "deaf", password: "x", permissions: $deaf }
        { user: "mute", password: "x", permissions: $mute }
    ]
}
"#;

async fn confined(version: BrokerVersion) -> Broker {
    Broker::start(&BrokerOptions { extra: CONFINED.to_owned(), ..BrokerOptions::of(version) }).await
}

fn file(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// That two buses with these options hear each other.
async fn carries(options: &NatsOptions) {
    let (from, to) = (up(options.clone()).await, up(options.clone()).await);
    let room = room("carried");
    let mut subscription = hearing(&from, &to, &room).await;
    sent(&from, &room, &packet(1, b"heard"));
    assert_eq!(next(&mut subscription).await.payload, "heard");
}

#[tokio::test]
async fn a_user_that_may_do_what_a_node_needs_and_nothing_more_is_enough() {
    for version in BrokerVersion::ALL {
        let told = Told::listen();
        let broker = confined(version).await;
        let options = options(&[broker.url_of("node", "p%40ss%3Aword")]);
        carries(&options).await;
        let (from, to) = (up(options.clone()).await, up(options).await);
        let subject = Subject::health(&ServerName::new("a", "b", "c").unwrap());
        let mut inbox = to.receive(vec![Subject::all_health()]).await.unwrap();
        until("a report", async || {
            from.send(&subject, Bytes::from_static(b"report"));
            tokio::time::timeout(std::time::Duration::from_millis(50), inbox.next()).await.ok()
        })
        .await;
        assert_eq!((from.take_counts().refused, to.take_counts().refused), (0, 0));
        assert_eq!(told.lines(&["ERROR"]), 0, "{}", told.text());
        assert!(!told.text().contains("word"), "a password was told: {}", told.text());
        assert_eq!(from.broker().unwrap().url, broker.url(), "without credentials");
    }
}

#[tokio::test]
async fn what_the_broker_does_not_permit_is_counted_and_told_once_with_what_to_allow() {
    for version in BrokerVersion::ALL {
        let told = Told::listen();
        let broker = confined(version).await;
        let deaf = up(options(&[broker.url_of("deaf", "x")])).await;
        let _subscriptions = [deaf.subscribe(&room("a")).await.unwrap(), deaf.subscribe(&room("b")).await.unwrap()];
        let mut refused = 0;
        until("both refusals", async || {
            refused += deaf.take_counts().refused;
            (refused >= 2).then_some(())
        })
        .await;
        told.hears(&["ERROR", "Subscription", "subscribe on room.>"]).await;
        let mute = up(options(&[broker.url_of("mute", "x")])).await;
        let mut refused = 0;
        for sender in 0..10 {
            sent(&mute, &room("a"), &packet(sender, b"unheard"));
        }
        until("all refusals", async || {
            refused += mute.take_counts().refused;
            (refused >= 10).then_some(())
        })
        .await;
        assert_eq!(told.lines(&["ERROR", "publish on room.>"]), 1, "{}", told.text());
        assert_eq!(told.lines(&["ERROR"]), 2, "{}", told.text());
        assert_eq!((*mute.state().borrow(), *deaf.state().borrow()), (BusState::Up, BusState::Up));
    }
}

#[tokio::test]
async fn wrong_credentials_are_told_of_with_the_keys_to_change_and_tried_again() {
    let told = Told::listen();
    let mut broker = confined(BrokerVersion::Current).await;
    let bus = NatsBus::start(options(&[broker.url_of("node", "wrong-secret")])).unwrap();
    told.hears(&["WARN", "refuses the credentials", "bus.nats.urls", "bus.nats.credentials_file"]).await;
    assert_eq!(*bus.state().borrow(), BusState::Connecting);
    assert_eq!(bus.publish(&room("a"), &packet(1, b"unheard")), Published::Down);
    assert!(!told.text().contains("wrong-secret"), "{}", told.text());
    broker.reconfigure(&CONFINED.replace("p@ss:word", "wrong-secret"));
    within("the broker", bus.state().wait_for(|state| *state == BusState::Up)).await.unwrap();
    assert_eq!(told.lines(&["refuses the credentials"]), 1, "told once: {}", told.text());
}

#[tokio::test]
async fn a_token_in_the_url_is_enough() {
    let extra = "authorization { token: \"a token\" }".to_owned();
    let broker = Broker::start(&BrokerOptions { extra, ..BrokerOptions::default() }).await;
    carries(&options(&[broker.url().replace("://", "://a%20token@")])).await;
}

#[tokio::test]
async fn an_nkeys_seed_in_a_file_is_enough_and_may_be_replaced() {
    for version in BrokerVersion::ALL {
        let directory = tempfile::tempdir().unwrap();
        let (key, other) = (KeyPair::new_user(), KeyPair::new_user());
        let users = |key: &KeyPair| format!("authorization {{ users: [ {{ nkey: {} }} ] }}", key.public_key());
        let mut broker = Broker::start(&BrokerOptions { extra: users(&key), ..BrokerOptions::of(version) }).await;
        let seed = file(directory.path(), "seed", &key.seed().unwrap());
        let options = NatsOptions { credentials_file: Some(seed), ..options(&[broker.url()]) };
        carries(&options).await;
        let bus = up(options).await;
        reconnects(&bus, async || {
            broker.reconfigure(&users(&other));
            within("being cut off", bus.state().wait_for(|state| *state == BusState::Down)).await.unwrap();
            file(directory.path(), "seed", &other.seed().unwrap());
        })
        .await;
    }
}

#[tokio::test]
async fn a_creds_file_of_an_operators_user_is_enough() {
    for version in BrokerVersion::ALL {
        let directory = tempfile::tempdir().unwrap();
        let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
        let operator_token = token(&operator, &operator, r#"{"type":"operator","version":2}"#);
        let limits = r#"{"type":"account","version":2,"limits":{"subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1}}"#;
        let account_token = token(&operator, &account, limits);
        let may = r#"{"allow":["room.>","roomcast.v1.>","health.>","server.>"]}"#;
        let user_claims =
            format!(r#"{{"type":"user","version":2,"subs":-1,"data":-1,"payload":-1,"pub":{may},"sub":{may}}}"#);
        let user_token = token(&account, &user, &user_claims);
        let extra = format!(
            "operator: {operator_token}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_token} }}",
            account.public_key()
        );
        let broker = Broker::start(&BrokerOptions { extra, ..BrokerOptions::of(version) }).await;
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\n{user_token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            user.seed().unwrap()
        );
        let creds = file(directory.path(), "node.creds", &creds);
        carries(&NatsOptions { credentials_file: Some(creds), ..options(&[broker.url()]) }).await;
    }
}

/// What an operator's tools would issue.
fn token(issuer: &KeyPair, subject: &KeyPair, claims: &str) -> String {
    let head = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let body = format!(
        r#"{{"jti":"none","iat":1700000000,"iss":"{}","name":"test","sub":"{}","nats":{claims}}}"#,
        issuer.public_key(),
        subject.public_key()
    );
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(body));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn a_broker_of_a_private_authority_is_reached_with_it_and_refused_without() {
    for version in BrokerVersion::ALL {
        let told = Told::listen();
        let directory = tempfile::tempdir().unwrap();
        let options_tls = BrokerOptions { tls: true, ..BrokerOptions::of(version) };
        let (broker, stranger) = (Broker::start(&options_tls).await, Broker::start(&options_tls).await);
        let right = file(directory.path(), "ca.pem", broker.ca_pem());
        let wrong = file(directory.path(), "other.pem", stranger.ca_pem());
        let with = |tls_ca_file| NatsOptions { tls_ca_file, ..options(&[broker.url()]) };
        carries(&with(Some(right.clone()))).await;
        // Also where the URL does not ask for TLS.
        let plain = vec![broker.url().replace("tls://", "nats://")];
        carries(&NatsOptions { tls_ca_file: Some(right.clone()), ..NatsOptions::new(plain) }).await;
        assert_eq!(told.lines(&["WARN"]), 0, "{}", told.text());
        for file in [Some(wrong), None] {
            let bus = NatsBus::start(with(file)).unwrap();
            told.hears(&["WARN", &broker.url(), "certificate", "bus.nats.tls_ca_file"]).await;
            assert_eq!(*bus.state().borrow(), BusState::Connecting);
        }
        // A broker without TLS gets no credentials from who insists on it.
        let open = Broker::start(&BrokerOptions::of(version)).await;
        let bus = NatsBus::start(NatsOptions { tls_ca_file: Some(right), ..options(&[open.url()]) }).unwrap();
        told.hears(&["WARN", &open.url(), "does not reach"]).await;
        assert_eq!(*bus.state().borrow(), BusState::Connecting);
    }
}
