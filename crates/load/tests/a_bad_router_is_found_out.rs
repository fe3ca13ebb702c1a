//! A router that loses, repeats, reorders, echoes and leaks on purpose, and counts what it did: the report must say the same.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use clap::Parser;
use roomcast_load::{Arguments, Plan, Report, run};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    arguments: Arguments,
}

/// What was done wrong, in copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wrongs {
    lost: u64,
    duplicated: u64,
    reordered: u64,
    leaked: u64,
}

#[derive(Default)]
struct Sender {
    packets: u64,
    held: Option<Vec<u8>>,
}

struct Member {
    user: String,
    room: String,
    out: UnboundedSender<Vec<u8>>,
}

#[derive(Default)]
struct Router {
    members: Vec<Member>,
    senders: HashMap<(String, String), Sender>,
    wrongs: Wrongs,
    packets: u64,
    pongs: u64,
    /// Does everything right.
    good: bool,
}

impl Router {
    /// To the others of the room; how many they are.
    fn relay(&self, user: &str, room: &str, frame: &[u8]) -> u64 {
        let others = self.members.iter().filter(|member| member.room == room && member.user != user);
        others.map(|member| _ = member.out.send(frame.to_vec())).count() as u64
    }

    fn packet(&mut self, user: &str, room: &str, frame: Vec<u8>) {
        self.packets += 1;
        let sender = self.senders.entry((user.to_owned(), room.to_owned())).or_default();
        sender.packets += 1;
        let held = if sender.packets % 10 == 8 { sender.held.take() } else { None };
        match sender.packets % 10 {
            _ if self.good => _ = self.relay(user, room, &frame),
            3 => self.wrongs.lost += self.members.iter().filter(|member| member.room == room).count() as u64 - 1,
            5 => {
                self.relay(user, room, &frame);
                self.wrongs.duplicated += self.relay(user, room, &frame);
            }
            7 => sender.held = Some(frame),
            9 => {
                self.relay(user, room, &frame);
                for member in &self.members {
                    // To another room, and back to its sender.
                    if member.room != room || member.user == user {
                        self.wrongs.leaked += 1;
                        let _ = member.out.send(frame.clone());
                    }
                }
            }
            _ => _ = self.relay(user, room, &frame),
        }
        if let Some(held) = held {
            self.wrongs.reordered += self.relay(user, room, &held);
        }
    }

    /// What it did wrong in all; what it still holds is lost.
    fn reckon(&self) -> Wrongs {
        let mut wrongs = self.wrongs;
        for ((_, room), _) in self.senders.iter().filter(|(_, sender)| sender.held.is_some()) {
            wrongs.lost += self.members.iter().filter(|member| member.room == *room).count() as u64 - 1;
        }
        wrongs
    }
}

async fn serve(listener: TcpListener, router: Arc<Mutex<Router>>) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(member(socket, Arc::clone(&router)));
    }
}

async fn member(socket: TcpStream, router: Arc<Mutex<Router>>) {
    let (read, mut write) = socket.into_split();
    let mut read = BufReader::new(read);
    let mut path = String::new();
    let mut line = String::new();
    while read.read_line(&mut line).await.unwrap() > 2 {
        if let Some(rest) = line.strip_prefix("GET /lobby/") {
            path = rest.split(' ').next().unwrap().to_owned();
        }
        line.clear();
    }
    let (user, room) = path.split_once('/').unwrap();
    write
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        .await
        .unwrap();
    let (out, mut frames) = unbounded_channel::<Vec<u8>>();
    // A ping with four bytes of content.
    let _ = out.send(b"\x89\x04ping".to_vec());
    router.lock().unwrap().members.push(Member { user: user.to_owned(), room: room.to_owned(), out });
    tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            if write.write_all(&frame).await.is_err() {
                return;
            }
        }
    });
    while let Some((opcode, payload)) = frame(&mut read).await {
        match opcode {
            0x8a => router.lock().unwrap().pongs += u64::from(payload == b"ping"),
            0x82 => {
                let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
                router.lock().unwrap().packet(user, room, [&[0x82, 126], &length[..], &payload].concat());
            }
            _ => return,
        }
    }
}

/// The next frame of a client, unmasked; none at the end.
async fn frame(read: &mut BufReader<OwnedReadHalf>) -> Option<(u8, Vec<u8>)> {
    let opcode = read.read_u8().await.ok()?;
    let length = match read.read_u8().await.ok()? & 0x7f {
        126 => usize::from(read.read_u16().await.ok()?),
        short => usize::from(short),
    };
    let mask = read.read_u32().await.ok()?.to_be_bytes();
    let mut payload = vec![0; length];
    read.read_exact(&mut payload).await.ok()?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Some((opcode, payload))
}

/// Two rooms of three, all of whom send fifty packets a second for a second.
async fn measure(good: bool) -> (Report, Arc<Mutex<Router>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let router = Arc::new(Mutex::new(Router { good, ..Router::default() }));
    tokio::spawn(serve(listener, Arc::clone(&router)));
    let arguments =
        ["--rooms", "2", "--members", "3", "--rate", "50", "--duration", "1s", "--warmup", "0s", "--ramp", "0"];
    let cli = Cli::try_parse_from(["bench", &*url].into_iter().chain(arguments)).unwrap();
    let plan = Plan::new(&cli.arguments, 2).unwrap();
    let (report, _) = tokio::task::spawn_blocking(move || run(plan, &mut |_| {})).await.unwrap().unwrap();
    (report, router)
}

#[tokio::test]
async fn what_a_router_does_wrong_is_counted_copy_by_copy() {
    let (report, router) = measure(false).await;
    let router = router.lock().unwrap();
    assert_eq!(report.sent, router.packets);
    assert_eq!(report.offered, 2 * report.sent);
    let Report { lost, duplicated, reordered, leaked, .. } = report;
    let wrongs = router.reckon();
    assert_eq!(Wrongs { lost, duplicated, reordered, leaked }, wrongs);
    assert!(lost > 0 && duplicated > 0 && reordered > 0 && leaked > 0, "all of it was tried: {wrongs:?}");
    assert_eq!(router.pongs, 6, "everybody answers a ping");
}

#[tokio::test]
async fn a_good_router_has_nothing_held_against_it() {
    let (report, router) = measure(true).await;
    assert_eq!(report.sent, router.lock().unwrap().packets);
    assert_eq!((report.lost, report.duplicated, report.reordered, report.leaked, report.disconnected), (0, 0, 0, 0, 0));
    // What comes after the window's end is no less delivered, but not within it.
    assert!(report.delivered > 0 && report.delivered <= report.offered, "{report:?}");
}
