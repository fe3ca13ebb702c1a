//! `roomcast drain`: begins it, and tells how far it is until the node is gone.

use std::time::Duration;

use tokio::time::sleep;

use super::client::{Client, Trouble};
use super::{Drain, put};
use crate::view::{DrainView, NodeView, ago};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// So many looks in a row without an answer: it is gone.
const UNANSWERED: u32 = 3;
/// A line at least this often.
const TELL: Duration = Duration::from_secs(5);

pub(super) async fn run(client: &Client, asked: &Drain) -> Result<(), Trouble> {
    let node: NodeView = client.get("/node").await?;
    let answer = client.post(if asked.hurry { "/drain?hurry=true" } else { "/drain" }).await?;
    let body = client.expect_good(answer)?;
    let begun: DrainView = client.parse(&body)?;
    let say = |text: String| if asked.json { Ok(()) } else { put(&format!("{text}\n")) };
    if asked.json {
        put(&format!("{}\n", body.trim_end()))?;
    }
    say(begun_text(&node.name, &begun))?;
    if asked.no_wait {
        return Ok(());
    }
    let (mut left, mut silent, mut unanswered) = (begun.connections, Duration::ZERO, 0);
    loop {
        sleep(LOOK).await;
        silent += LOOK;
        match client.get::<NodeView>("/node").await {
            // Another one may well begin at the same address.
            Ok(now) if now.name == node.name => {
                unanswered = 0;
                if now.connections != left && silent >= Duration::from_secs(1) || silent >= TELL {
                    (left, silent) = (now.connections, Duration::ZERO);
                    say(format!("  {left} of {} connections left", begun.connections))?;
                }
            }
            Ok(_) => break,
            Err(Trouble::Silent { .. }) => {
                unanswered += 1;
                if unanswered == UNANSWERED {
                    break;
                }
            }
            Err(trouble) => return Err(trouble),
        }
    }
    say(format!("{} has stopped", node.name))
}

fn begun_text(name: &str, begun: &DrainView) -> String {
    let left = Duration::from_millis(begun.window_ms.saturating_sub(begun.since_ms));
    match begun.connections {
        0 => format!("draining {name}: nobody is connected"),
        _ if begun.hurry => format!("draining {name}: {} connections, in a hurry", begun.connections),
        1 => format!("draining {name}: 1 connection, told within {}", ago(left)),
        many => format!("draining {name}: {many} connections, sent elsewhere over {}", ago(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_will_happen() {
        let begun = |connections, hurry| DrainView { connections, window_ms: 30_000, since_ms: 10_000, hurry };
        assert_eq!(begun_text("a", &begun(0, false)), "draining a: nobody is connected");
        assert_eq!(begun_text("a", &begun(300, false)), "draining a: 300 connections, sent elsewhere over 20s");
        assert_eq!(begun_text("a", &begun(1, false)), "draining a: 1 connection, told within 20s");
        assert_eq!(begun_text("a", &begun(300, true)), "draining a: 300 connections, in a hurry");
    }
}
