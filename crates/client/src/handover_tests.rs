//! The matching against a model: what two connections bring of the same senders' packets.

use proptest::prelude::*;

use super::*;

/// One sender in a model of a move. Its packets are `first..end` by number; equal numbers modulo `alphabet` are equal.
#[derive(Clone, Debug)]
struct Speaker {
    /// The old connection brings the packets before this one.
    old_ends: usize,
    /// The new connection brings the packets from this one on; at most `old_ends`, or one would be lost.
    new_begins: usize,
    end: usize,
    /// How many different packets it has.
    alphabet: usize,
}

fn speaker(alphabet: impl Strategy<Value = usize>) -> impl Strategy<Value = Speaker> {
    (0_usize..12, 0_usize..12, 0_usize..12, alphabet).prop_map(|(before, shared, after, alphabet)| Speaker {
        new_begins: before,
        old_ends: before + shared,
        end: before + shared + after,
        alphabet,
    })
}

impl Speaker {
    fn mark(&self, sender: usize, number: usize) -> Mark {
        let packet = (sender * 1000 + number % self.alphabet) as u64;
        Mark { sender: sender as u64, packet, bare: packet }
    }
}

/// A sender, and the number of one of its packets.
type Sent = (usize, usize);

/// Several senders' packets in some order, each sender's in its own order.
fn interleave(ranges: &[std::ops::Range<usize>], dice: &mut fastrand::Rng) -> Vec<Sent> {
    let mut left: Vec<_> = ranges.to_vec();
    let mut all = Vec::new();
    loop {
        let waiting: Vec<usize> = (0..left.len()).filter(|sender| !left[*sender].is_empty()).collect();
        let Some(sender) = dice.choice(waiting) else { return all };
        all.push((sender, left[sender].start));
        left[sender].start += 1;
    }
}

/// What the application gets of the new connection, when `held` of its packets had come before the old one ended.
fn handed_on(
    speakers: &[Speaker],
    old: &[(Sent, Instant)],
    new: &[(Sent, Instant)],
    held: usize,
    sent: &[u64],
) -> Vec<Sent> {
    let now = Instant::now();
    let mark = |(sender, number): Sent| speakers[sender].mark(sender, number);
    let mut memory = Memory::default();
    memory.keep(now);
    for (packet, at) in old {
        assert!(memory.add(mark(*packet), *at));
    }
    let sent = sent.iter().map(|packet| (*packet, now)).collect();
    let held: Vec<_> = new[..held].iter().map(|(packet, at)| (mark(*packet), *at)).collect();
    let mut matcher = Matcher::new(memory.entries(now), &sent, held.iter(), now);
    new.iter().map(|(packet, _)| *packet).filter(|packet| matcher.judge(mark(*packet)) == Verdict::New).collect()
}

/// By the packets' places: nothing is known of the times.
fn timed(packets: Vec<Sent>) -> Vec<(Sent, Instant)> {
    let now = Instant::now();
    packets.into_iter().map(|packet| (packet, now)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Unlike packets: however the two connections are delayed and interleaved, and however little of the new one has
    /// come by the switch.
    #[test]
    fn each_packet_is_handed_on_once_and_in_order(
        speakers in prop::collection::vec(speaker(Just(1000)), 1..5),
        lag in 0.0..=1.0_f64,
        seed: u64,
    ) {
        let mut dice = fastrand::Rng::with_seed(seed);
        let old = interleave(&speakers.iter().map(|s| 0..s.old_ends).collect::<Vec<_>>(), &mut dice);
        let new = interleave(&speakers.iter().map(|s| s.new_begins..s.end).collect::<Vec<_>>(), &mut dice);
        let held = (new.len() as f64 * lag) as usize;
        let mut got = old.clone();
        got.extend(handed_on(&speakers, &timed(old), &timed(new), held, &[]));
        for (sender, speaker) in speakers.iter().enumerate() {
            let numbers: Vec<usize> = got.iter().filter(|(s, _)| *s == sender).map(|(_, number)| *number).collect();
            prop_assert_eq!(numbers, (0..speaker.end).collect::<Vec<_>>());
        }
    }

    /// Equal packets among them: where the new connection has begun to bring what the old one brought, the times of the
    /// packets tell copies apart that nothing else does. Packets of a sender are 800 ms apart, and the nodes less than 250 ms.
    #[test]
    fn equal_packets_are_told_apart_by_their_order_and_their_times(
        speakers in prop::collection::vec(speaker(1_usize..4), 1..5),
        seed: u64,
    ) {
        let speakers: Vec<Speaker> = speakers
            .into_iter()
            .map(|s| if s.old_ends == s.new_begins { Speaker { old_ends: s.old_ends + 1, end: s.end + 1, ..s } } else { s })
            .collect();
        let mut dice = fastrand::Rng::with_seed(seed);
        let base = Instant::now();
        let come = |packets: Vec<Sent>, dice: &mut fastrand::Rng| -> Vec<(Sent, Instant)> {
            let late = |dice: &mut fastrand::Rng| Duration::from_millis(dice.u64(..250));
            packets
                .into_iter()
                .map(|(sender, number)| ((sender, number), base + Duration::from_millis(800 * number as u64) + late(dice)))
                .collect()
        };
        let old = interleave(&speakers.iter().map(|s| 0..s.old_ends).collect::<Vec<_>>(), &mut dice);
        let new = interleave(&speakers.iter().map(|s| s.new_begins..s.end).collect::<Vec<_>>(), &mut dice);
        let (old_timed, new_timed) = (come(old.clone(), &mut dice), come(new.clone(), &mut dice));
        let mut got = old;
        got.extend(handed_on(&speakers, &old_timed, &new_timed, new.len(), &[]));
        for (sender, speaker) in speakers.iter().enumerate() {
            // Equal packets are the same to the application: what counts is the sequence of their contents.
            let contents: Vec<usize> = got.iter().filter(|(s, _)| *s == sender).map(|(_, n)| n % speaker.alphabet).collect();
            let expected: Vec<usize> = (0..speaker.end).map(|number| number % speaker.alphabet).collect();
            prop_assert_eq!(contents, expected);
        }
    }

    /// Where each node loses some of what it should bring: what the old one brought never comes again, and what it did not
    /// is never left out.
    #[test]
    fn with_losses_nothing_comes_twice_and_nothing_is_left_out(
        speakers in prop::collection::vec(speaker(Just(1000)), 1..5),
        lag in 0.0..=1.0_f64,
        loss in 0.0..0.5_f64,
        seed: u64,
    ) {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut old = interleave(&speakers.iter().map(|s| 0..s.old_ends).collect::<Vec<_>>(), &mut dice);
        let mut new = interleave(&speakers.iter().map(|s| s.new_begins..s.end).collect::<Vec<_>>(), &mut dice);
        old.retain(|_| dice.f64() >= loss);
        new.retain(|_| dice.f64() >= loss);
        // Datagrams overtake each other.
        for _ in 0..new.len() / 4 {
            let place = dice.usize(..new.len() - 1);
            new.swap(place, place + 1);
        }
        let held = (new.len() as f64 * lag) as usize;
        let got = handed_on(&speakers, &timed(old.clone()), &timed(new.clone()), held, &[]);
        let expected: Vec<Sent> = new.into_iter().filter(|packet| !old.contains(packet)).collect();
        prop_assert_eq!(got, expected);
    }

    /// This client's own packets come back by the new connection, among those of others.
    #[test]
    fn an_echo_is_left_out_as_often_as_it_was_sent(
        others in speaker(Just(1000)),
        own in speaker(1_usize..4),
        seed: u64,
    ) {
        let speakers = [others.clone(), own.clone()];
        let mut dice = fastrand::Rng::with_seed(seed);
        let old = interleave(&[0..others.old_ends, 0..0], &mut dice);
        // What was sent before the new session was there does not come back.
        let new = interleave(&[others.new_begins..others.end, own.new_begins..own.old_ends], &mut dice);
        let sent: Vec<u64> = (0..own.old_ends).map(|number| own.mark(1, number).packet).collect();
        let held = dice.usize(..=new.len());
        let got = handed_on(&speakers, &timed(old), &timed(new), held, &sent);
        prop_assert_eq!(got, (others.old_ends..others.end).map(|number| (0, number)).collect::<Vec<_>>());
    }
}

#[test]
fn a_sign_of_life_that_repeats_itself_is_matched_by_its_time() {
    let base = Instant::now();
    let at = |milliseconds: u64| base + Duration::from_millis(milliseconds);
    let speakers = [Speaker { old_ends: 4, new_begins: 3, end: 6, alphabet: 1 }];
    let old: Vec<_> = (0..4).map(|number| ((0, number), at(1000 * number as u64))).collect();
    let new: Vec<_> = (3..6).map(|number| ((0, number), at(1000 * number as u64 + 80))).collect();
    // The last of the old one is the first of the new one, though four might be.
    assert_eq!(handed_on(&speakers, &old, &new, 3, &[]), [(0, 4), (0, 5)]);
}

#[test]
fn memories_are_bounded_in_age_and_in_number() {
    let base = Instant::now();
    let mut memory = Memory::default();
    assert!(memory.add(1, base));
    assert!(memory.add(2, base + REACH));
    assert_eq!(memory.entries(base + REACH).len(), 2);
    assert_eq!(memory.entries(base + REACH + Duration::from_millis(1)).len(), 1);
    memory.keep(base + REACH);
    assert_eq!(memory.entries(base + 10 * REACH).len(), 1, "kept");
    for number in 1..REMEMBERED {
        assert!(memory.add(number as u64, base));
    }
    assert!(!memory.add(0, base), "one was forgotten that should be kept");
    assert_eq!(memory.entries(base).len(), REMEMBERED);
}

#[test]
fn matching_ends_when_nothing_is_left_or_the_time_is_over() {
    let base = Instant::now();
    let mark = Mark { sender: 1, packet: 2, bare: 2 };
    let old = VecDeque::from([(mark, base)]);
    let mut matcher = Matcher::new(&old, &VecDeque::new(), std::iter::empty(), base);
    assert!(!matcher.is_over(base));
    assert!(matcher.is_over(base + MATCHED_FOR));
    matcher.postpone(base + MATCHED_FOR);
    assert!(!matcher.is_over(base + MATCHED_FOR));
    assert_eq!(matcher.judge(mark), Verdict::Brought);
    assert_eq!(matcher.judge(mark), Verdict::New);
    assert!(matcher.is_over(base));
}

#[test]
fn a_stamped_packet_is_known_by_what_its_sender_sent() {
    use prost::Message as _;
    use roomcast_protocol::sessions::PacketWrapper;
    let marker = Marker::new(Dialect::Sessions);
    let packet = PacketWrapper { user_id: b"ann".to_vec(), data: vec![1, 2, 3], ..PacketWrapper::default() };
    let sent = packet.encode_to_vec();
    for session in [1_u64, 127, 128, 1 << 40] {
        let mut stamped = sent.clone();
        stamped.push(4 << 3);
        prost::encoding::encode_varint(session, &mut stamped);
        let mark = marker.mark(&stamped);
        assert_eq!(mark.bare, marker.sent(&sent));
        assert_eq!(mark.packet, marker.sent(&stamped));
        assert_ne!(mark.sender, marker.mark(&sent).sender);
    }
    assert_eq!(marker.mark(b"\0nonsense").sender, 0);
}
