//! What a run will do: the arguments checked and worked out. Pure; connects to nothing.

use std::collections::HashSet;
use std::time::Duration;

use roomcast_protocol::MAX_PACKET_BYTES;
use url::Url;

use crate::arguments::{Arguments, Mix, Senders};
use crate::packet::{self, Kind};

/// The most connections: more than one address's ports can carry.
const MOST_CONNECTIONS: u64 = 100_000;
/// The most pairs of a receiver and a sender: they are remembered in 16 bytes each, 256 MiB in all.
const MOST_PAIRS: u64 = 16 << 20;
/// The fewest members of a room that do not churn: one who sends, one who is owed it.
const STEADY: u32 = 2;
/// Frames of video a second.
const FRAMES: u64 = 30;
/// A key frame has so many times the bytes of a delta frame: what encoders make of a talking head in a call.
const KEY_FRAME: u64 = 8;
/// Delta frames in percent of their mean, in turn; their mean is 100.
const DELTAS: [u64; 8] = [100, 82, 118, 94, 130, 76, 106, 94];
/// Bytes of 20 ms of sound at 32 to 64 kbit/s, in turn.
const SOUNDS: [usize; 5] = [120, 80, 160, 100, 140];
/// The largest media payload: what a packet holds besides is far less than a kilobyte.
const LARGEST_PAYLOAD: usize = MAX_PACKET_BYTES - 1_000;

/// How packets reach a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `ws://`
    WebSocket,
    /// `wss://`
    WebSocketTls,
    /// `https://`
    WebTransport,
}

/// A router's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As it was given, without a path.
    pub url: Url,
    /// By its scheme.
    pub transport: Transport,
}

/// Something that a sender sends at a steady pace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Track {
    /// Between two packets.
    pub(crate) period: Duration,
    /// What the packets are, in turn: numbers of shapes. The first one begins.
    pub(crate) turns: Vec<usize>,
}

/// A packet's kind and media payload in bytes.
pub(crate) type Shape = (Kind, usize);

/// A run that can be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to connect; at least one.
    pub targets: Vec<Target>,
    /// Rooms; at least one.
    pub rooms: u32,
    /// Members of each; at least one.
    pub members: u32,
    /// The first so many of each room's members send.
    pub senders: u32,
    /// The first so many of each room's members stay; the others churn.
    pub steady: u32,
    /// Joins a second; 0: as fast as possible.
    pub ramp: u32,
    /// Between two times that one churning member leaves; `None` where nobody churns.
    pub stay: Option<Duration>,
    /// Before the measured window.
    pub warmup: Duration,
    /// The measured window.
    pub duration: Duration,
    /// Which certificates to take.
    pub trust: roomcast_transport::tls::ClientTrust,
    /// Routers' processes on this machine.
    pub pids: Vec<u32>,
    /// Threads that make the load; at least one.
    pub threads: u32,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) tracks: Vec<Track>,
    /// What is sent, in words.
    pub(crate) load: String,
}

/// Why a run cannot be made; says what to change.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Something that is no router's address.
    #[error("{0}: {1}; write ws://HOST:PORT, wss://HOST:PORT or https://HOST:PORT")]
    Url(String, &'static str),
    /// A number that is out of its bounds.
    #[error("{0}")]
    Number(String),
    /// More than this tool holds.
    #[error("{0}")]
    TooMuch(String),
}

fn number(what: String) -> PlanError {
    PlanError::Number(what)
}

impl Plan {
    /// Works out what the arguments ask for.
    ///
    /// # Errors
    ///
    /// The first argument that cannot be, with what to change.
    pub fn new(given: &Arguments, cores: u32) -> Result<Self, PlanError> {
        let targets = given.urls.iter().map(|url| target(url)).collect::<Result<Vec<_>, _>>()?;
        if targets.is_empty() {
            return Err(number("give the URL of a router".to_owned()));
        }
        if given.rooms == 0 || given.members == 0 {
            return Err(number("--rooms and --members are at least 1".to_owned()));
        }
        let (churning, senders) = roles(given)?;
        let steady = given.members - churning;
        let connections = u64::from(given.rooms) * u64::from(given.members);
        if connections > MOST_CONNECTIONS {
            return Err(PlanError::TooMuch(format!(
                "{connections} connections are more than the {MOST_CONNECTIONS} that one run holds; lower --rooms or \
                 --members, or run it from several machines"
            )));
        }
        let pairs = connections * u64::from(senders);
        if pairs > MOST_PAIRS {
            return Err(PlanError::TooMuch(format!(
                "{pairs} pairs of a receiver and a sender are more than the {MOST_PAIRS} that are kept count of; lower \
                 --senders or --members"
            )));
        }
        if given.duration < Duration::from_millis(100) || given.duration > Duration::from_secs(24 * 3600) {
            return Err(number("--duration is from 100ms to 24h".to_owned()));
        }
        if given.warmup > Duration::from_secs(3600) {
            return Err(number("--warmup is at most 1h".to_owned()));
        }
        let threads = given.threads.unwrap_or((cores / 2).max(1));
        if !(1..=64).contains(&threads) {
            return Err(number("--threads is from 1 to 64".to_owned()));
        }
        let (shapes, tracks, load) = media(given, senders)?;
        let churners = f64::from(churning) * f64::from(given.rooms);
        let stay = (given.churn > 0).then(|| Duration::from_secs_f64(churners / f64::from(given.churn)));
        if stay.is_some_and(|stay| stay < Duration::from_millis(50)) {
            return Err(number(format!(
                "--churn {} has each of the {churners} members that churn leave more than 20 times a second; lower it, or \
                 have more members",
                given.churn
            )));
        }
        let trust = match given.cert_sha256 {
            Some(hash) => roomcast_transport::tls::ClientTrust::Hashes(vec![hash]),
            None if given.insecure => roomcast_transport::tls::ClientTrust::Insecure,
            None => roomcast_transport::tls::ClientTrust::SystemRoots,
        };
        let mut seen = HashSet::new();
        Ok(Self {
            targets,
            rooms: given.rooms,
            members: given.members,
            senders,
            steady,
            ramp: given.ramp,
            stay,
            warmup: given.warmup,
            duration: given.duration,
            trust,
            pids: given.pids.iter().copied().filter(|pid| seen.insert(*pid)).collect(),
            threads,
            shapes,
            tracks,
            load,
        })
    }

    /// All members of all rooms.
    #[must_use]
    pub const fn connections(&self) -> usize {
        self.rooms as usize * self.members as usize
    }

    /// How many copies are owed of a packet that a sender sends.
    #[must_use]
    pub const fn owed(&self) -> u64 {
        self.steady as u64 - 1
    }

    /// Where a member connects, and which thread drives it.
    pub(crate) fn place(&self, room: u32, member: u32) -> (usize, u32) {
        let index = room as usize * self.members as usize + member as usize;
        (index % self.targets.len(), ((index / self.targets.len()) % self.threads as usize) as u32)
    }

    /// What the run is, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let plural =
            |count: u32, one: &str| format!("{} {one}{}", grouped(count.into()), if count == 1 { "" } else { "s" });
        let urls: Vec<&str> = self.targets.iter().map(|target| target.url.as_str().trim_end_matches('/')).collect();
        let churn = match self.stay {
            Some(_) => format!(", {} of each room leave and join again", self.members - self.steady),
            None => String::new(),
        };
        format!(
            "{} of {} over {}: {}{churn}",
            plural(self.rooms, "room"),
            plural(self.members, "member"),
            urls.join(", "),
            self.load
        )
    }
}

/// How many of a room's members churn, and how many send.
fn roles(given: &Arguments) -> Result<(u32, u32), PlanError> {
    let churning = if given.churn == 0 {
        0
    } else if given.members > STEADY {
        (given.members / 4).clamp(1, given.members - STEADY)
    } else {
        return Err(number(format!(
            "--churn wants rooms of at least {}: two members stay; raise --members",
            STEADY + 1
        )));
    };
    let steady = given.members - churning;
    let senders = match given.senders {
        _ if given.idle => return Ok((churning, 0)),
        Senders::All => steady,
        Senders::Some(0) => return Err(number("--senders is at least 1; for none at all there is --idle".to_owned())),
        Senders::Some(senders) if senders > given.members => {
            return Err(number(format!(
                "--senders {senders} is more than the {} members of a room; lower it or raise --members",
                given.members
            )));
        }
        Senders::Some(senders) if senders > steady => {
            return Err(number(format!(
                "--senders {senders} is more than the {steady} members of a room that stay while {churning} churn; lower \
                 it or raise --members"
            )));
        }
        Senders::Some(senders) => senders,
    };
    if given.members < 2 {
        return Err(number("a room of one member has nobody to send to; raise --members, or use --idle".to_owned()));
    }
    Ok((churning, senders))
}

fn target(given: &str) -> Result<Target, PlanError> {
    let bad = |why| PlanError::Url(given.to_owned(), why);
    let url = Url::parse(given).map_err(|_| bad("is not a URL"))?;
    let transport = match url.scheme() {
        "ws" => Transport::WebSocket,
        "wss" => Transport::WebSocketTls,
        "https" => Transport::WebTransport,
        _ => return Err(bad("is neither WebSocket nor WebTransport")),
    };
    if url.host().is_none() {
        return Err(bad("names no host"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(bad("has a path, but rooms and members are named by this tool"));
    }
    Ok(Target { url, transport })
}

/// What is sent: the packets' shapes, the tracks of one sender, and both in words.
fn media(given: &Arguments, senders: u32) -> Result<(Vec<Shape>, Vec<Track>, String), PlanError> {
    let mut shapes = Vec::new();
    let mut tracks = Vec::new();
    if given.idle {
        return Ok((shapes, tracks, "nobody sends".to_owned()));
    }
    let whom = if senders == given.members { "all".to_owned() } else { grouped(senders.into()) };
    let mut says = Vec::new();
    if given.mix == Mix::Fixed {
        if !(1..=10_000).contains(&given.rate) {
            return Err(number("--rate is from 1 to 10000 packets a second".to_owned()));
        }
        let smallest = packet::smallest();
        if !(smallest..=MAX_PACKET_BYTES).contains(&given.size) {
            return Err(number(format!(
                "--size is from {smallest} (a packet with its time stamp) to {MAX_PACKET_BYTES} bytes"
            )));
        }
        shapes.push((Kind::Audio, packet::payload_for(given.size)));
        tracks.push(Track { period: Duration::from_secs(1) / given.rate, turns: vec![0] });
        says.push(format!("{} packets/s of {} bytes", given.rate, grouped(given.size as u64)));
    }
    if matches!(given.mix, Mix::Audio | Mix::Call) {
        let turns = (0..SOUNDS.len()).map(|turn| shapes.len() + turn).collect();
        shapes.extend(SOUNDS.map(|bytes| (Kind::Audio, bytes)));
        tracks.push(Track { period: Duration::from_millis(20), turns });
        says.push("sound at 50 packets/s".to_owned());
    }
    if matches!(given.mix, Mix::Video | Mix::Call) {
        if !(20_000..=200_000_000).contains(&given.bitrate) {
            return Err(number("--bitrate is from 20k to 200M".to_owned()));
        }
        if given.key_interval < Duration::from_millis(100) || given.key_interval > Duration::from_secs(60) {
            return Err(number("--key-interval is from 100ms to 60s".to_owned()));
        }
        let (key, deltas, frames) = picture_sizes(given.bitrate, given.key_interval);
        if key > LARGEST_PAYLOAD as u64 {
            return Err(number(format!(
                "at --bitrate {} a key frame has {key} bytes, more than a packet may; lower it, or have key frames more \
                 often",
                given.bitrate
            )));
        }
        let first = shapes.len();
        shapes.push((Kind::KeyFrame, key as usize));
        shapes.extend(deltas.map(|bytes| (Kind::DeltaFrame, bytes as usize)));
        let delta = |frame: usize| first + 1 + frame % DELTAS.len();
        let turns = (0..frames).map(|frame| if frame == 0 { first } else { delta(frame) }).collect();
        tracks.push(Track { period: Duration::from_secs(1) / FRAMES as u32, turns });
        says.push(format!(
            "video at {FRAMES} frames/s and {} kbit/s, key frames of {} bytes every {:?}",
            grouped(given.bitrate / 1_000),
            grouped(key),
            given.key_interval
        ));
    }
    Ok((shapes, tracks, format!("{whom} send {}", says.join(" and "))))
}

/// The bytes of a key frame and of each delta frame, and the frames from one key frame to the next.
fn picture_sizes(bitrate: u64, key_interval: Duration) -> (u64, [u64; DELTAS.len()], usize) {
    let frames = ((key_interval.as_secs_f64() * FRAMES as f64).round() as u64).max(1);
    let group = bitrate as f64 / 8.0 * frames as f64 / FRAMES as f64;
    let delta = group / (KEY_FRAME + frames - 1) as f64;
    let floor = packet::STAMP as u64;
    let key = ((delta * KEY_FRAME as f64) as u64).max(floor);
    (key, DELTAS.map(|percent| ((delta * percent as f64 / 100.0) as u64).max(floor)), frames as usize)
}

/// A number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::tests::parse;

    fn plan(line: &str) -> Result<Plan, String> {
        Plan::new(&parse(line)?, 2).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_two_members_who_both_send() {
        let plan = plan("ws://127.0.0.1:8080").unwrap();
        assert_eq!((plan.rooms, plan.members, plan.senders, plan.steady, plan.threads), (1, 2, 2, 2, 1));
        assert_eq!((plan.connections(), plan.owed()), (2, 1));
        assert_eq!(plan.tracks, [Track { period: Duration::from_secs(1) / 30, turns: vec![0] }]);
        assert_eq!(
            plan.summary(),
            "1 room of 2 members over ws://127.0.0.1:8080: all send 30 packets/s of 1,200 bytes"
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_change() {
        for (line, advice) in [
            ("ftp://a:1", "ws://HOST:PORT"),
            ("a:1", "ws://HOST:PORT"),
            ("ws://a:1/lobby/x/y", "has a path"),
            ("ws://a:1 --members 1", "raise --members"),
            ("ws://a:1 --members 0", "at least 1"),
            ("ws://a:1 --senders 3", "lower it or raise --members"),
            ("ws://a:1 --senders 0", "there is --idle"),
            ("ws://a:1 --churn 1", "at least 3"),
            ("ws://a:1 --members 4 --senders 4 --churn 1", "3 members of a room that stay"),
            ("ws://a:1 --members 4 --churn 100", "more than 20 times a second"),
            ("ws://a:1 --size 20", "a packet with its time stamp"),
            ("ws://a:1 --size 5000000", "to 4000000 bytes"),
            ("ws://a:1 --rate 0", "from 1 to 10000"),
            ("ws://a:1 --rooms 60000", "100000"),
            ("ws://a:1 --members 5000", "lower --senders"),
            ("ws://a:1 --duration 10ms", "100ms to 24h"),
            ("ws://a:1 --threads 0", "from 1 to 64"),
            ("ws://a:1 --mix video --bitrate 1k", "from 20k"),
            ("ws://a:1 --mix video --bitrate 200M --key-interval 10s", "more than a packet may"),
            ("ws://a:1 --mix video --key-interval 1ms", "from 100ms"),
        ] {
            let said = plan(line).expect_err(line);
            assert!(said.contains(advice), "{line}: {said}");
        }
    }

    #[test]
    fn idle_members_send_nothing_and_may_be_alone() {
        let plan = plan("ws://a:1 --idle --members 1 --rooms 9").unwrap();
        assert_eq!((plan.senders, plan.tracks.len(), plan.owed()), (0, 0, 0));
    }

    #[test]
    fn those_that_churn_are_a_quarter_and_only_listen() {
        let plan = plan("ws://a:1 --members 20 --rooms 2 --churn 5").unwrap();
        assert_eq!((plan.steady, plan.senders, plan.owed()), (15, 15, 14));
        assert_eq!(plan.stay, Some(Duration::from_secs(2)), "ten members, five times a second in all");
    }

    #[test]
    fn video_has_the_bitrate_that_was_asked_for() {
        let plan = plan("ws://a:1 --mix video --bitrate 1500k --key-interval 2s").unwrap();
        let [track] = &plan.tracks[..] else { panic!("one track") };
        assert_eq!(track.turns.len(), 60);
        let sizes: Vec<usize> = track.turns.iter().map(|turn| plan.shapes[*turn].1).collect();
        let bits = sizes.iter().sum::<usize>() as f64 * 8.0 / 2.0;
        assert!((bits - 1_500_000.0).abs() < 15_000.0, "{bits}");
        assert_eq!(plan.shapes[track.turns[0]].0, Kind::KeyFrame);
        assert!((40_000..50_000).contains(&sizes[0]), "{}", sizes[0]);
        assert!(sizes[1..].iter().all(|size| (4_000..8_000).contains(size)));
    }

    #[test]
    fn a_call_has_both() {
        let plan = plan("ws://a:1 --mix call").unwrap();
        assert_eq!(plan.tracks.len(), 2);
        assert_eq!(plan.shapes.len(), SOUNDS.len() + 1 + DELTAS.len());
        assert_eq!(plan.shapes[plan.tracks[1].turns[0]].0, Kind::KeyFrame);
        assert!(plan.tracks[0].turns.iter().all(|turn| plan.shapes[*turn].0 == Kind::Audio));
    }

    #[test]
    fn a_rooms_members_are_spread_over_all_routers_and_threads() {
        let plan = plan("ws://a:1 wss://b:2 https://c:3 --members 6 --threads 2").unwrap();
        let places: Vec<_> = (0..6).map(|member| plan.place(0, member)).collect();
        assert_eq!(places, [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]);
        assert_eq!(plan.targets[2].transport, Transport::WebTransport);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
