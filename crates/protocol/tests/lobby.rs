//! Which request targets are a place to join, and how the others are answered.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use proptest::prelude::*;
use roomcast_protocol::{Lobby, LobbyError, NameError, RoomId, UserId};

fn names(target: &str) -> Result<(String, String), LobbyError> {
    Lobby::parse(target).map(|lobby| (lobby.user.to_string(), lobby.room.to_string()))
}

#[test]
fn a_place_to_join_is_a_user_and_a_room() {
    for (target, user, room) in [
        ("/lobby/alice/standup", "alice", "standup"),
        ("/lobby/alice@example.com/team.a-1_b", "alice@example.com", "team.a-1_b"),
        ("/lobby/alice%40example%2ecom/team%20a", "alice@example.com", "team a"),
        ("/lobby/a+b%25/r", "a+b%", "r"), // a plus is a plus in a path
        ("/lobby/alice/standup?token=x/y/../%zz", "alice", "standup"),
        ("/lobby/.../...", "...", "..."),
    ] {
        assert_eq!(names(target), Ok((user.into(), room.into())), "{target}");
    }
}

#[test]
fn another_path_is_not_found() {
    for target in [
        "",
        "/",
        "*",
        "lobby/alice/standup",
        "/lobby",
        "/lobby/",
        "/lobby?token=x",
        "/lobby/alice",
        "/lobby/alice?/standup",
        "/lobby/alice/standup/",
        "/lobby/alice/standup/x",
        "/lobby///",
        "//lobby/alice/standup",
        "/Lobby/alice/standup",
        "/%6Cobby/alice/standup",
        "/lobbyalice/standup",
        "http://host/lobby/alice/standup",
        "/metrics",
    ] {
        let error = names(target).unwrap_err();
        assert_eq!((error, error.status()), (LobbyError::NotLobby, 404), "{target}");
    }
}

#[test]
fn a_bad_name_is_a_bad_request() {
    let long = |letter: &str, bytes| letter.repeat(bytes);
    let cases = [
        ("", NameError::Empty),
        ("*", NameError::Character),
        (">", NameError::Character),
        ("..", NameError::DotSegment),
        ("%2E%2e", NameError::DotSegment),
        (".", NameError::DotSegment),
        ("a%00", NameError::Character),
        ("a\0", NameError::Character),
        ("a%0D%0Ab", NameError::Character),
        ("a\u{7f}b", NameError::Character),
        ("a%2Fb", NameError::Character),
        ("a%3Fb", NameError::Character),
        ("a#b", NameError::Character),
        ("a\\b", NameError::Character),
        ("caf%C3%A9", NameError::Character),
        ("café", NameError::Character),
        ("system-&^%25$%23@!", NameError::Character),
    ];
    for (name, error) in cases {
        let user = names(&format!("/lobby/{name}/standup")).unwrap_err();
        let room = names(&format!("/lobby/alice/{name}")).unwrap_err();
        assert_eq!((user, user.status()), (LobbyError::User(error), 400), "{name:?}");
        assert_eq!((room, room.status()), (LobbyError::Room(error), 400), "{name:?}");
    }
    for name in ["%", "%4", "%zz", "a%", "%+1", "%FF", "%C3%28", "%ED%A0%80", "%C0%AF"] {
        assert_eq!(names(&format!("/lobby/{name}/standup")), Err(LobbyError::Encoding), "{name:?}");
        assert_eq!(names(&format!("/lobby/alice/{name}")), Err(LobbyError::Encoding), "{name:?}");
    }
    assert_eq!(LobbyError::Encoding.status(), 400);
    for (bytes, fits) in [(254, true), (255, false), (10_000, false), (1_000_000, false)] {
        for letter in ["a", "%61"] {
            let target = format!("/lobby/{}/standup", long(letter, bytes));
            let expected = LobbyError::User(NameError::TooLong(UserId::MAX_BYTES));
            assert_eq!(names(&target).err(), (!fits).then_some(expected), "{bytes} times {letter}");
        }
    }
    for (bytes, fits) in [(128, true), (129, false), (10_000, false)] {
        for letter in ["a", "%61"] {
            let target = format!("/lobby/alice/{}", long(letter, bytes));
            let expected = LobbyError::Room(NameError::TooLong(RoomId::MAX_BYTES));
            assert_eq!(names(&target).err(), (!fits).then_some(expected), "{bytes} times {letter}");
        }
    }
    assert_eq!(names("/lobby/@/room!"), Err(LobbyError::Room(NameError::Character)));
    assert_eq!(names("/lobby/a/room@"), Err(LobbyError::Room(NameError::Character)), "a room has no @");
}

proptest! {
    #[test]
    fn any_text_is_answered(target in prop_oneof!["\\PC{0,40}", "(/lobby)?(/[a-z%0-9 .?]{0,6}){0,4}", any::<String>()]) {
        roomcast_protocol::fuzz::check_lobby(target.as_bytes());
    }

    #[test]
    fn what_is_formatted_is_parsed_back(user in "[A-Za-z0-9._%+@ -]{1,254}", room in "[A-Za-z0-9._ -]{1,128}") {
        prop_assume!(![".", ".."].contains(&user.as_str()) && ![".", ".."].contains(&room.as_str()));
        let lobby = Lobby { user: UserId::parse(&user).unwrap(), room: RoomId::parse(&room).unwrap() };
        prop_assert_eq!(names(&lobby.target()), Ok((user, room)));
        prop_assert!(lobby.target().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-%".contains(&byte)));
    }
}
