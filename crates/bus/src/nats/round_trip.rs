//! Whether what this node sends still reaches the broker. The client library asks only while it hears nothing, so a connection on
//! which the broker talks and cannot be talked to looks alive to it. What does not live here: what follows (`epoch`).
//!
//! The question is a request on a subject of our own that nobody answers: a broker says so at once, by itself. Where somebody
//! listens to everything there, no answer would come; so silence counts only where the connection has been answered before.

use std::time::Duration;

use async_nats::Client;
use async_nats::client::RequestErrorKind;
use bytes::Bytes;
use tokio::time::{sleep, timeout};

/// Where nobody listens. Below what a node is allowed to say in any case.
const NOBODY: &str = "roomcast.v1.echo.nobody";

/// Where answers come to, likewise.
pub(super) const ANSWERS: &str = "roomcast.v1.echo";

/// How many questions in a row may stay without an answer: one may be behind a burst.
const UNANSWERED: u32 = 2;

/// Returns when the broker, which has answered on this connection, answers no more: after some three times `every`. Never, where
/// it has not answered at first.
pub(super) async fn broken(client: Client, every: Duration) {
    let (mut proven, mut silent) = (false, 0);
    loop {
        sleep(every).await;
        if answers(&client, every).await {
            (proven, silent) = (true, 0);
        } else if !proven {
            tracing::debug!("the broker does not say whether it hears this node; going without that");
            return std::future::pending().await;
        } else {
            silent += 1;
            if silent >= UNANSWERED {
                return;
            }
        }
    }
}

async fn answers(client: &Client, within: Duration) -> bool {
    match timeout(within, client.request(NOBODY, Bytes::new())).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == RequestErrorKind::NoResponders,
        Err(_) => false,
    }
}
