//! Names as subjects: nothing that a name holds can reach another room's subject or become a wildcard.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::collections::HashSet;

use proptest::prelude::*;
use roomcast_protocol::subject::SubjectError;
use roomcast_protocol::{
    ClusterSubject, NameError, RoomId, RoomSubject, Sender, ServerName, ServerSubject, SessionId, Subject, UserId,
};

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

#[test]
fn plain_names_are_unchanged_and_odd_bytes_are_escaped() {
    assert_eq!(Subject::session(&room("standup"), SessionId(42)).as_str(), "room.standup.42");
    assert_eq!(Subject::session(&room("team.a 1"), SessionId(42)).as_str(), "room.team%2Ea_1.42");
    assert_eq!(Subject::room(&room("standup")).as_str(), "room.standup.*");
    assert_eq!(Subject::system(&room("standup")).as_str(), "room.standup.system");
    assert_eq!(UserId::parse("alice@example.com").unwrap().key(), "alice%40example%2Ecom");
    assert_eq!(UserId::parse("a b%+").unwrap().key(), "a_b%25%2B");
    let server = ServerName::new("eu-west", "roomcast", "node 1.local").unwrap();
    assert_eq!(Subject::health(&server).as_str(), "health.diagnostics.eu-west.roomcast.node%201%2Elocal");
    assert_eq!(Subject::connections(&server).as_str(), "server.connections.eu-west.roomcast.node%201%2Elocal");
}

#[test]
fn rooms_that_share_a_subject_are_one_room_and_users_are_not() {
    let (spaced, joined) = (room("a b"), room("a_b"));
    assert_eq!(spaced, joined);
    assert_eq!(HashSet::from([spaced.clone(), joined.clone()]).len(), 1);
    assert_eq!(spaced.cmp(&joined), std::cmp::Ordering::Equal);
    assert_eq!((spaced.as_str(), joined.as_str()), ("a b", "a_b"), "each keeps its spelling");
    assert_ne!(UserId::parse("a b"), UserId::parse("a_b"));
}

#[test]
fn a_subject_of_a_room_tells_its_sender() {
    fn sender(subject: &str) -> Result<Sender<'_>, SubjectError> {
        RoomSubject::parse(subject).map(|parsed| parsed.sender())
    }
    assert_eq!(sender("room.standup.42"), Ok(Sender::Session(SessionId(42))));
    assert_eq!(sender("room.standup.0"), Ok(Sender::Session(SessionId(0))));
    assert_eq!(sender("room.standup.18446744073709551615"), Ok(Sender::Session(SessionId(u64::MAX))));
    assert_eq!(sender("room.standup.system"), Ok(Sender::System));
    for foreign in
        ["alice", "alice%40example%2Ecom", "alice@example", "042", "+42", "-1", "18446744073709551616", "systems"]
    {
        assert_eq!(sender(&format!("room.standup.{foreign}")), Ok(Sender::Foreign(foreign)));
    }
    for other in [
        "",
        "room",
        "room.standup",
        "room.standup.",
        "room..42",
        "room.standup.4.2",
        "room.standup.*",
        "room.>",
        "room.*.42",
        "room.standup.a b",
        "room.standup.a\r\n",
        "rooms.standup.42",
        "health.diagnostics.a.b.c",
    ] {
        assert_eq!(sender(other), Err(SubjectError::Shape), "{other:?}");
    }
}

#[test]
fn a_token_that_no_room_is_written_as_is_no_room() {
    let parsed = |token: &str| RoomSubject::parse(&format!("room.{token}.1")).unwrap().room();
    assert_eq!(parsed("a_b"), Ok(room("a b")));
    assert_eq!(parsed("team%2Ea"), Ok(room("team.a")));
    for token in ["%61", "a%20b", "team%2ea", "%", "%zz", "%FF", "a@b", "%2E%2E", &"a".repeat(129)] {
        assert_eq!(parsed(token), Err(SubjectError::Name), "{token}");
    }
}

#[test]
fn a_servers_names_are_bounded_and_its_subjects_have_five_tokens() {
    assert_eq!(ServerName::new("", "b", "c"), Err(NameError::Empty));
    assert_eq!(ServerName::new("a", "b", &"c".repeat(129)), Err(NameError::TooLong(128)));
    for (subject, error) in [
        ("health.diagnostics.a.b", SubjectError::Shape),
        ("health.diagnostics.a.b.c.d", SubjectError::Shape),
        ("health.connections.a.b.c", SubjectError::Shape),
        ("health", SubjectError::Shape),
        ("health.diagnostics.a.b.*", SubjectError::Name),
        ("health.diagnostics.a..c", SubjectError::Name),
        ("server.connections.a.b.%63", SubjectError::Name),
    ] {
        assert_eq!(ServerSubject::parse(subject), Err(error), "{subject}");
    }
}

#[test]
fn nodes_speak_on_subjects_of_their_own() {
    assert_eq!(Subject::presence("eu-1").as_str(), "roomcast.v1.presence.eu-1");
    assert_eq!(Subject::roster("eu 1.local").as_str(), "roomcast.v1.roster.eu%201%2Elocal");
    assert_eq!(Subject::sync("*").as_str(), "roomcast.v1.sync.%2A");
    let heard: Vec<String> = Subject::cluster("eu-1").into_iter().map(Subject::into_string).collect();
    assert_eq!(heard, ["roomcast.v1.presence.*", "roomcast.v1.roster.*", "roomcast.v1.sync.eu-1"]);
    for (subject, error) in [
        ("roomcast.v1.presence", SubjectError::Shape),
        ("roomcast.v1", SubjectError::Shape),
        ("roomcast.v2.presence.a", SubjectError::Shape),
        ("roomcast.v1x.presence.a", SubjectError::Shape),
        ("Roomcast.v1.presence.a", SubjectError::Shape),
        ("roomcast.v1.health.a", SubjectError::Shape),
        ("room.v1.presence.a", SubjectError::Shape),
        ("roomcast.v1.presence.", SubjectError::Name),
        ("roomcast.v1.presence.*", SubjectError::Name),
        ("roomcast.v1.roster.>", SubjectError::Name),
        ("roomcast.v1.sync.a.b", SubjectError::Name),
        ("roomcast.v1.sync.%61", SubjectError::Name),
        ("roomcast.v1.sync.a%2e", SubjectError::Name),
        ("roomcast.v1.sync.%FF", SubjectError::Name),
    ] {
        assert_eq!(ClusterSubject::parse(subject), Err(error), "{subject}");
    }
}

#[test]
fn names_are_checked() {
    for (name, error) in [
        ("", NameError::Empty),
        ("a/b", NameError::Character),
        ("a*", NameError::Character),
        ("a>", NameError::Character),
        ("a\n", NameError::Character),
        ("é", NameError::Character),
        (".", NameError::DotSegment),
        ("..", NameError::DotSegment),
        (roomcast_protocol::SYSTEM_USER, NameError::Character),
    ] {
        assert_eq!(UserId::parse(name), Err(error), "{name:?}");
        assert_eq!(RoomId::parse(name), Err(error), "{name:?}");
    }
    for user_only in ["a%", "a+", "a@"] {
        assert!(UserId::parse(user_only).is_ok());
        assert_eq!(RoomId::parse(user_only), Err(NameError::Character));
    }
    assert!(UserId::parse(&"a".repeat(254)).is_ok() && UserId::parse(&"a".repeat(255)).is_err());
    assert!(RoomId::parse(&"a".repeat(128)).is_ok() && RoomId::parse(&"a".repeat(129)).is_err());
}

fn any_room() -> impl Strategy<Value = RoomId> {
    prop_oneof!["[A-Za-z0-9._ -]{1,128}", "[a. _-]{1,3}"]
        .prop_filter_map("a dot segment", |name| RoomId::parse(&name).ok())
}

proptest! {
    #[test]
    fn a_room_and_a_session_come_back_from_their_subject(room in any_room(), session: u64) {
        let subject = Subject::session(&room, SessionId(session));
        prop_assert_eq!(subject.as_str().split('.').count(), 3);
        prop_assert!(subject.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-%".contains(&byte)));
        let parsed = RoomSubject::parse(subject.as_str()).unwrap();
        prop_assert!(parsed.is_in(&room));
        prop_assert_eq!(parsed.room(), Ok(room));
        prop_assert_eq!(parsed.sender(), Sender::Session(SessionId(session)));
    }

    #[test]
    fn two_rooms_share_a_subject_only_where_they_differ_in_spaces(one in any_room(), other in any_room()) {
        let same_subject = Subject::room(&one) == Subject::room(&other);
        prop_assert_eq!(same_subject, one.as_str().replace(' ', "_") == other.as_str().replace(' ', "_"));
        prop_assert_eq!(same_subject, one == other);
        prop_assert_eq!(RoomSubject::parse(Subject::system(&one).as_str()).unwrap().is_in(&other), one == other);
    }

    #[test]
    fn a_node_comes_back_from_its_subjects_and_hears_only_its_own(node in ".{1,20}", other in "\\PC{1,3}") {
        for (subject, parsed) in [
            (Subject::presence(&node), ClusterSubject::Presence(node.clone())),
            (Subject::roster(&node), ClusterSubject::Roster(node.clone())),
            (Subject::sync(&node), ClusterSubject::Sync(node.clone())),
        ] {
            prop_assert_eq!(subject.as_str().split('.').count(), 4);
            prop_assert!(subject.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-%".contains(&byte)));
            prop_assert_eq!(ClusterSubject::parse(subject.as_str()), Ok(parsed));
            prop_assert!(RoomSubject::parse(subject.as_str()).is_err() && ServerSubject::parse(subject.as_str()).is_err());
        }
        prop_assert_eq!(Subject::sync(&node) == Subject::sync(&other), node == other);
    }

    #[test]
    fn a_server_comes_back_from_its_subjects(region in "\\PC{1,20}", service in any::<String>(), server in "[a-z.*> ]{1,9}") {
        let Ok(name) = ServerName::new(&region, &service, &server) else { return Ok(()) };
        for subject in [Subject::health(&name), Subject::connections(&name)] {
            prop_assert_eq!(subject.as_str().split('.').count(), 5);
            prop_assert!(subject.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-%".contains(&byte)));
        }
        prop_assert_eq!(ServerSubject::parse(Subject::health(&name).as_str()), Ok(ServerSubject::Health(name.clone())));
        let connections = Subject::connections(&name);
        prop_assert_eq!(ServerSubject::parse(connections.as_str()), Ok(ServerSubject::Connections(name)));
    }
}
