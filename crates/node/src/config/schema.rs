//! The JSON Schema of `supervisor.toml`, made from the settings' types, for editors that complete and check the file.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::change::is_live;
use super::settings::Settings;

/// The schema, as pretty JSON with a line end: what `roomcast schema` prints and `supervisor.schema.json` holds.
///
/// # Panics
/// Never: a schema is plain JSON.
#[must_use]
pub fn schema() -> String {
    // Draft 7 without references: the dialect that the editors' TOML extensions understand best.
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Settings>().to_value();
    schema["title"] = json!("Roomcast's configuration, supervisor.toml");
    if let Some(sections) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        mark(sections, &mut Vec::new());
    }
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
    text.push('\n');
    text
}

/// Adds to each key whether it acts while the node runs.
fn mark(properties: &mut Map<String, Value>, path: &mut Vec<String>) {
    for (name, schema) in properties {
        path.push(name.clone());
        let Some(schema) = schema.as_object_mut() else { continue };
        let inner = schema.get_mut("properties").and_then(Value::as_object_mut);
        if let Some(inner) = inner {
            mark(inner, path);
        } else {
            let note = if is_live(path) { "Live." } else { "Waits for a restart." };
            let described = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            let described = format!("{described} {note}").trim().to_owned();
            schema.insert("description".into(), described.into());
        }
        path.pop();
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
