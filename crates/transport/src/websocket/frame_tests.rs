//! The rules of frames, one by one, without a socket.

use proptest::prelude::*;

use super::*;

const MAX: usize = 1_000;

/// A header as a peer of `side` would announce it.
fn announced(first: u8, length: usize, masked: bool) -> Header {
    let mut bytes = Vec::new();
    encode(&mut bytes, Opcode::Binary, &vec![0; length], masked.then_some([1, 2, 3, 4]));
    bytes[0] = first;
    Header::parse(&bytes).unwrap()
}

fn judge(rules: &mut Rules, first: u8, length: usize) -> Result<Kind, ReadError> {
    rules.announce(&announced(first, length, true), MAX)
}

fn server() -> Rules {
    Rules::new(Side::Server)
}

#[allow(clippy::needless_pass_by_value)] // reads better at every call
fn is_broken(verdict: Result<Kind, ReadError>) -> bool {
    matches!(verdict, Err(ReadError::Protocol(_)))
}

#[test]
fn a_header_is_parsed_once_it_is_all_there() {
    for (length, masked, size) in
        [(0, false, 2), (125, true, 6), (126, false, 4), (65_535, true, 8), (65_536, true, 14)]
    {
        let mut bytes = Vec::new();
        encode(&mut bytes, Opcode::Binary, &vec![0; length], masked.then_some([9; 4]));
        for short in 0..size {
            assert_eq!(Header::parse(&bytes[..short]), None, "{short} bytes of {size}");
        }
        let header = Header::parse(&bytes[..size]).unwrap();
        assert_eq!((header.size, header.length, header.masked), (size, length as u64, masked));
        assert_eq!(bytes.len(), size + length);
    }
}

#[test]
fn whole_messages_are_bounded_to_the_byte() {
    assert_eq!(judge(&mut server(), 0x82, MAX).unwrap(), Kind::Data(true));
    assert!(matches!(judge(&mut server(), 0x82, MAX + 1), Err(ReadError::TooLarge(MAX))));
}

#[test]
fn fragments_are_bounded_together() {
    let mut rules = server();
    assert_eq!(judge(&mut rules, 0x02, 600).unwrap(), Kind::Data(false));
    assert_eq!(judge(&mut rules, 0x00, 300).unwrap(), Kind::Data(false));
    assert_eq!(judge(&mut rules, 0x80, 100).unwrap(), Kind::Data(true));
    // The next message starts from zero again.
    assert_eq!(judge(&mut rules, 0x02, 600).unwrap(), Kind::Data(false));
    assert!(matches!(judge(&mut rules, 0x80, 401), Err(ReadError::TooLarge(MAX))));
}

#[test]
fn a_message_in_endless_empty_fragments_is_cut_off() {
    let mut rules = server();
    judge(&mut rules, 0x02, 0).unwrap();
    for _ in 1..MAX_FRAGMENTS {
        judge(&mut rules, 0x00, 0).unwrap();
    }
    assert!(is_broken(judge(&mut rules, 0x00, 0)));
}

#[test]
fn control_frames_may_come_between_fragments_even_when_the_message_is_full() {
    let mut rules = server();
    judge(&mut rules, 0x02, MAX).unwrap();
    assert_eq!(judge(&mut rules, 0x89, 125).unwrap(), Kind::Ping);
    assert_eq!(judge(&mut rules, 0x8a, 0).unwrap(), Kind::Pong);
    assert!(rules.amid_message());
    assert_eq!(judge(&mut rules, 0x80, 0).unwrap(), Kind::Data(true));
    assert!(!rules.amid_message());
}

#[test]
fn what_is_out_of_sequence_is_refused() {
    assert!(is_broken(judge(&mut server(), 0x80, 1)), "a continuation of nothing");
    for opener in [0x82, 0x02, 0x81] {
        let mut rules = server();
        judge(&mut rules, 0x02, 1).unwrap();
        assert!(is_broken(judge(&mut rules, opener, 1)), "{opener:#x} inside a message");
    }
    let mut rules = server();
    assert_eq!(judge(&mut rules, 0x88, 0).unwrap(), Kind::Close);
    assert!(matches!(judge(&mut rules, 0x82, 1), Err(ReadError::Gone(_))), "after a close");
}

#[test]
fn text_is_unsupported() {
    assert!(matches!(judge(&mut server(), 0x81, 1), Err(ReadError::Unsupported(_))));
    assert!(matches!(judge(&mut server(), 0x01, 1), Err(ReadError::Unsupported(_))));
}

#[test]
fn reserved_opcodes_and_bits_are_refused() {
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        assert!(is_broken(judge(&mut server(), 0x80 | opcode, 0)), "opcode {opcode:#x}");
    }
    for bit in [0x10, 0x20, 0x40] {
        assert!(is_broken(judge(&mut server(), 0x82 | bit, 1)), "bit {bit:#x}");
    }
}

#[test]
fn control_frames_are_whole_and_short() {
    for opcode in [0x8, 0x9, 0xa] {
        assert!(is_broken(judge(&mut server(), opcode, 0)), "fragmented {opcode:#x}");
        assert!(is_broken(judge(&mut server(), 0x80 | opcode, 126)), "long {opcode:#x}");
        assert!(judge(&mut server(), 0x80 | opcode, 125).is_ok());
    }
}

#[test]
fn each_side_insists_on_the_others_masking() {
    assert!(is_broken(server().announce(&announced(0x82, 1, false), MAX)));
    assert!(is_broken(server().announce(&announced(0x89, 0, false), MAX)));
    let mut client = Rules::new(Side::Client);
    assert!(is_broken(client.announce(&announced(0x82, 1, true), MAX)));
    assert_eq!(client.announce(&announced(0x82, 1, false), MAX).unwrap(), Kind::Data(true));
}

#[test]
fn lengths_have_one_form() {
    for long in [&[0x82, 0xfe, 0, 125, 0, 0, 0, 0][..], &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]] {
        assert!(is_broken(server().announce(&Header::parse(long).unwrap(), MAX)));
    }
    let negative = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(is_broken(server().announce(&Header::parse(&negative).unwrap(), MAX)));
}

#[test]
fn close_frames_are_validated() {
    assert_eq!(close_code(&[]).unwrap(), None);
    for code in [1000u16, 1001, 1002, 1003, 1007, 1011, 1013, 1014, 3000, 4999] {
        assert_eq!(close_code(&close_payload(code, "bye")).unwrap(), Some(code));
    }
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        assert!(close_code(&code.to_be_bytes()).is_err(), "{code}");
    }
    assert!(close_code(&[3]).is_err());
    assert!(close_code(&[3, 232, 0xff]).is_err());
}

#[test]
fn a_reason_is_cut_at_a_characters_edge() {
    assert_eq!(close_payload(1000, &"x".repeat(200)).len(), MAX_CONTROL);
    let payload = close_payload(1000, &"é".repeat(100)); // 123 bytes would split one
    assert_eq!(payload.len(), 2 + 122);
    assert_eq!(close_code(&payload).unwrap(), Some(1000));
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut rules = server();
        let mut rest = &bytes[..];
        while let Some(header) = Header::parse(rest) {
            prop_assert!(header.size <= MAX_HEADER);
            if rules.announce(&header, MAX).is_err() {
                break;
            }
            let frame = header.size + header.length as usize; // allowed, so at most MAX
            rest = rest.get(frame..).unwrap_or_default();
        }
    }
}
