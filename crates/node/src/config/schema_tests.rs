use super::*;

/// Where the checked-in schema is.
const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../supervisor.schema.json");

#[test]
fn the_checked_in_schema_is_current() {
    let checked_in = std::fs::read_to_string(CHECKED_IN).unwrap_or_default();
    assert!(checked_in == schema(), "write it anew: cargo run -- schema > supervisor.schema.json");
}

fn as_json(text: &str) -> Value {
    serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
}

#[test]
fn the_annotated_file_and_the_defaults_are_good_by_the_schema() {
    let validator = jsonschema::draft7::new(&serde_json::from_str(&schema()).unwrap()).unwrap();
    let annotated = include_str!("../../../../supervisor.toml");
    for document in [as_json(annotated), json!({})] {
        let errors: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new());
    }
    assert!(annotated.starts_with("#:schema ./supervisor.schema.json\n"), "editors look for it in the first line");
}

#[test]
fn the_schema_refuses_what_the_node_refuses() {
    let validator = jsonschema::draft7::new(&serde_json::from_str(&schema()).unwrap()).unwrap();
    for text in [
        "[limits]\nmax_romms = 3",
        "[limits]\nmax_rooms = 0",
        "[limits]\nmax_rooms = -1",
        "[limits]\nmax_rooms = \"many\"",
        "[timers]\nping = \"5\"",
        "[timers]\nping = 5",
        "[node]\nname = \"a b\"",
        "[bus]\nkind = \"carrier pigeon\"",
        "[listen.websocket]\ntls = \"of\"",
        "[listen.websocket]\ntls = { cert = \"a\" }",
        "[supervision.roms]\nintensity = 3",
        "[supervision.\"rooms/*\"]\nintensty = 3",
        "[supervision.\"rooms/*\"]\nstrategy = \"one_for_two\"",
        "[supervision.defaults]\nbackoff = { initial = \"1s\", factor = 0.5, max = \"5s\", jitter = 0.2 }",
    ] {
        assert!(!validator.is_valid(&as_json(text)), "{text}");
        assert!(super::super::parse("supervisor.toml", text, &[]).is_err(), "{text}");
    }
    for text in ["[supervision.\"rooms/standup\"]\nperiod = \"1m 30s\"", "[supervision.\"\"]\nintensity = 3"] {
        assert!(validator.is_valid(&as_json(text)), "{text}");
        assert!(super::super::parse("supervisor.toml", text, &[]).is_ok(), "{text}");
    }
}

#[test]
fn each_key_says_whether_it_is_live() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    let described = |path: &str| schema.pointer(path).unwrap()["description"].as_str().unwrap().to_owned();
    assert!(described("/properties/limits/properties/max_rooms").ends_with("Live."));
    assert!(described("/properties/node/properties/region").ends_with("Waits for a restart."));
    let room = "/properties/supervision/properties/rooms~1*/properties";
    assert!(described(&format!("{room}/intensity")).ends_with("Live."));
    assert!(described(&format!("{room}/strategy")).ends_with("Waits for a restart."));
}
