//! A receiver on a link of 500 kbit/s in a call of 2 Mbit/s, over real sockets: its audio is whole, its video starts again at key frames
//! only, its queue stays short, and nobody else notices. And a room that is flooded holds up no other.
//!
//! The figures are printed: `cargo test -p roomcast-testkit --test thin -- --nocapture`.
#![allow(clippy::unwrap_used)]

mod call;
mod rooms;

use std::net::{IpAddr, Ipv4Addr};

use call::{Report, Shaping};
use roomcast_testkit::Via;
use roomcast_testkit::thin::{Congestion, Lettering, Namespace};

/// What the receiver's link carries, in kbit/s.
const LINK: u32 = 500;

fn judge(report: &Report) {
    println!("{report}");
    assert!(report.thin_in_order && report.undecodable.is_empty(), "{:?}", report.undecodable);
    assert!(report.audio_in_time >= 990, "{} per mille of the audio within 300 ms", report.audio_in_time);
    assert!(report.pictures_per_second >= 1.0, "{} pictures a second", report.pictures_per_second);
    // What the link takes in `egress.max_delay`.
    let (packets, bytes) = report.most_queued;
    assert!(packets <= 1_024 && bytes <= u64::from(LINK) * 1_000 / 8 / 2, "{packets} packets, {bytes} bytes waited");
    assert_eq!(report.drops_for_room, 0.0, "its queue was full");
    assert_eq!(report.others_lost, 0, "others lost packets");
    let bound = report.others_alone_p99 + call::NOISE;
    assert!(report.others_p99 <= bound, "others waited {:?}, {:?} before", report.others_p99, report.others_alone_p99);
}

/// The thin link in a namespace, or where there may be none, behind a proxy; which, the figures say.
async fn measured(via: Via, lettering: Lettering, congestion: Congestion) -> Option<Report> {
    match Namespace::make(LINK, congestion) {
        Ok(namespace) => {
            let address = IpAddr::V4(namespace.address());
            Some(call::run(via, lettering, address, Shaping::Namespace(namespace, congestion)).await)
        }
        Err(error) => {
            println!("no network namespace here ({error})");
            if via == Via::WebTransport {
                println!("and no proxy for datagrams: NOT MEASURED");
                return None;
            }
            Some(call::run(via, lettering, IpAddr::V4(Ipv4Addr::LOCALHOST), Shaping::Proxy(LINK)).await)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not met yet: 98.0 to 100 % of the audio within 300 ms, where 99 are asked for"]
async fn a_receiver_on_a_thin_link_keeps_its_audio_where_hints_tell() {
    judge(&measured(Via::WebSocket, Lettering::Hinted, Congestion::Cubic).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_on_a_thin_link_keeps_its_audio_where_only_sizes_tell() {
    judge(&measured(Via::WebSocket, Lettering::BySize, Congestion::Cubic).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not met yet: 98.0 to 100 % of the audio within 300 ms, where 99 are asked for"]
async fn a_receiver_on_a_thin_link_keeps_its_audio_whatever_tcp_does() {
    judge(&measured(Via::WebSocket, Lettering::Hinted, Congestion::Bbr).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "what a proxy's sockets hold cannot be told from what the link carries: audio is in time, pictures not always one a second"]
async fn a_receiver_behind_a_proxy_that_is_thin_keeps_its_audio() {
    for lettering in [Lettering::Hinted, Lettering::BySize] {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        judge(&call::run(Via::WebSocket, lettering, local, Shaping::Proxy(LINK)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "QUIC's send window of 512 KiB takes eight seconds of such a link, so that nothing waits where it could be dropped"]
async fn a_receiver_on_a_thin_link_keeps_its_audio_over_webtransport() {
    if let Some(report) = measured(Via::WebTransport, Lettering::Hinted, Congestion::Cubic).await {
        judge(&report);
    }
}
