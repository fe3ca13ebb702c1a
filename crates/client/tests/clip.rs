//! A clip that one client sends is the clip that another writes to a file.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Cursor;

use roomcast_client::clip::Clip;
use roomcast_client::recording::{Left, Recording};
use roomcast_client::{Client, media};
use roomcast_protocol::{Dialect, UserId};
use support::{KINDS, Server, within};

const CLIPS: [&[u8]; 4] = [
    include_bytes!("../clips/vp8.ivf"),
    include_bytes!("../clips/vp9.ivf"),
    include_bytes!("../clips/h264-baseline.h264"),
    include_bytes!("../clips/opus.ogg"),
];

#[tokio::test]
async fn a_clip_arrives_as_it_was_sent() {
    let user = UserId::parse("alice@x").unwrap();
    for kind in KINDS {
        for file in CLIPS {
            let mut server = Server::start(kind).await;
            let sender = Client::connect(server.options()).unwrap();
            let mut from_sender = server.accept().await;
            let mut receiver = Client::connect(server.options()).unwrap();
            let mut to_receiver = server.accept().await;
            within(sender.joined()).await.unwrap();
            within(receiver.joined()).await.unwrap();

            let clip = Clip::parse(file, Clip::ANNEX_B_FRAME_RATE).unwrap();
            let count = clip.frames.len();
            let relay = tokio::spawn(async move {
                for _ in 0..count {
                    let packet = from_sender.packet().await;
                    to_receiver.write(&[&packet]).await;
                }
                (from_sender, to_receiver)
            });
            for (sequence, frame) in (0..).zip(&clip.frames) {
                let packet = media::wrap(Dialect::Seed, &user, &clip.format, sequence, frame);
                within(sender.send(packet)).await.unwrap();
            }
            let mut recording = Recording::default();
            for _ in 0..count {
                let packet = within(receiver.recv()).await.unwrap();
                let frame = media::unwrap(Dialect::Seed, &packet.bytes).unwrap();
                recording.push(&frame, |_| Ok(Cursor::new(Vec::new()))).unwrap();
            }
            assert_eq!(recording.left(), Left::default());
            let written = recording.finish().unwrap().unwrap().into_inner();
            if clip.format.codec().is_audio() {
                assert_eq!(Clip::parse(&written, Clip::ANNEX_B_FRAME_RATE).unwrap(), clip);
            } else {
                assert!(written == file, "{kind:?}: {:?}", clip.format);
            }
            within(relay).await.unwrap();
        }
    }
}
