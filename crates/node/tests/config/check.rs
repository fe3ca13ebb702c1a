//! `roomcast check` and `roomcast schema`, as a person and a program run them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::Folder;

fn roomcast(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roomcast")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_good_file_is_told_with_what_differs_and_when_that_acts() {
    let folder = Folder::new();
    let file = folder.file();
    std::fs::write(&file, "[limits]\nmax_rooms = 7\n[node]\nregion = \"far\"\n").unwrap();
    let checked = roomcast(&["check", path(&file)]);
    assert_eq!(checked.status.code(), Some(0));
    let said = text(&checked.stdout);
    assert!(said.starts_with(&format!("{}: good; differs from defaults in:\n", file.display())), "{said}");
    assert!(said.contains("  limits.max_rooms: 10000 -> 7  (live)\n"), "{said}");
    assert!(said.contains("  node.region: \"local\" -> \"far\"  (waits for a restart)\n"), "{said}");

    let running = folder.path.join("running.toml");
    std::fs::write(&running, "[limits]\nmax_rooms = 8\n[node]\nregion = \"far\"\n").unwrap();
    let checked = roomcast(&["check", path(&file), "--against", path(&running), "--json"]);
    assert_eq!(checked.status.code(), Some(0));
    let said: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let expected = json!({
        "file": path(&file),
        "good": true,
        "compared_with": path(&running),
        "changed": [{ "key": "limits.max_rooms", "old": 8, "new": 7, "live": true }],
        "errors": [],
    });
    assert_eq!(said, expected);
}

#[test]
fn a_bad_file_is_told_whole_for_people_and_for_programs() {
    let folder = Folder::new();
    let file = folder.file();
    std::fs::write(&file, "[limits]\nmax_romms = 7\nmax_rooms = 0\n").unwrap();
    let checked = roomcast(&["check", path(&file)]);
    assert_eq!(checked.status.code(), Some(1));
    let name = file.display();
    assert_eq!(
        text(&checked.stderr),
        format!(
            "{name}:2: limits.max_romms: unknown key `max_romms`; did you mean `max_rooms`?\n\
             {name}:3: limits.max_rooms: must be at least 1\n"
        )
    );
    let checked = roomcast(&["check", "--json", path(&file)]);
    assert_eq!(checked.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(said["good"], false);
    assert_eq!(
        said["errors"][0],
        json!({
            "file": path(&file),
            "line": 2,
            "key": "limits.max_romms",
            "reason": "unknown key `max_romms`; did you mean `max_rooms`?",
            "nearest": "max_rooms",
        })
    );
    assert_eq!(said["errors"].as_array().unwrap().len(), 2);
}

/// Runs `check` on a good file, or on a bad one, where standard output goes.
fn check_into(output: impl Into<std::process::Stdio>, good: bool, json: bool) -> Output {
    let folder = Folder::new();
    std::fs::write(folder.file(), if good { "[limits]\nmax_rooms = 7\n" } else { "[limitz]\n" }).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    command.args(["check", path(&folder.file())]).args(json.then_some("--json"));
    command.stdout(output).stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_reader_that_has_gone_leaves_the_exit_code_to_say_whether_the_file_is_good() {
    for (good, json) in [(true, false), (true, true), (false, true)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let checked = check_into(writer, good, json);
        assert_eq!(checked.status.code(), Some(if good { 0 } else { 1 }), "{checked:?}");
        assert_eq!(text(&checked.stderr), "");
    }
}

#[test]
fn a_verdict_that_cannot_be_written_is_a_failure() {
    for json in [false, true] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let checked = check_into(full, true, json);
        assert_eq!(checked.status.code(), Some(1), "{checked:?}");
        assert!(text(&checked.stderr).starts_with("the verdict cannot be printed: "), "{checked:?}");
    }
}

#[test]
fn the_schema_that_is_printed_is_the_one_that_is_checked_in() {
    let printed = roomcast(&["schema"]);
    assert!(printed.status.success());
    let checked_in = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../supervisor.schema.json")).unwrap();
    assert_eq!(text(&printed.stdout), text(&checked_in));
}
