//! The two forms.

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{
    Form, GVISOR_API, GVISOR_KIND, Given, How, MAX_SIZE, MAX_TEXT, Notes, RUNTIME_API,
    RUNTIME_KIND, Refused, shown,
};
use crate::bundle::{MAX_SETTING_NAME, MAX_SETTINGS};
use crate::name::{RuntimeType, cut};
use crate::rollout::strategy::StrategySpec;

const FIELD: &str = "spec.providerConfig";
const GVISOR: &str = "gvisor";

/// Reads a providerConfig. None, null and an empty one give no settings.
///
/// # Errors
/// When it can't be understood, whatever `how` says; and in strict also when it
/// has a field that has no effect.
pub fn read(config: Option<&Value>, runtime: &RuntimeType, how: How) -> Result<Given, Refused> {
    let mut notes = Notes::new(how);
    let config = config.unwrap_or(&Value::Null);
    let (form, settings) = object(config, runtime, &mut notes);
    let strategy = match form {
        Form::Runtime => strategy(config.get("strategy"), &mut notes),
        Form::GVisor => None,
    };
    let passed_over = notes.end()?;
    Ok(Given { settings, strategy, passed_over, form, how })
}

fn object(config: &Value, runtime: &RuntimeType, notes: &mut Notes) -> (Form, Map<String, Value>) {
    let nothing = (Form::default(), Map::new());
    let map = match config {
        Value::Null => return nothing,
        Value::Object(map) if map.is_empty() => return nothing,
        Value::Object(map) => map,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            notes.refuse(FIELD, kind_of(config).to_owned(), "want an object");
            return nothing;
        }
    };
    if size(config) > MAX_SIZE {
        let why = format!("at most {MAX_SIZE} bytes are allowed");
        notes.refuse(FIELD, "too large".to_owned(), why);
        return nothing;
    }
    if !has_few(FIELD, map, notes) {
        return nothing;
    }
    match form(map, runtime, notes) {
        Some(Form::GVisor) => (Form::GVisor, gvisor(map, notes)),
        Some(Form::Runtime) => (Form::Runtime, generic(map, notes)),
        None => nothing,
    }
}

/// Which form it is in, by apiVersion and kind.
fn form(map: &Map<String, Value>, runtime: &RuntimeType, notes: &mut Notes) -> Option<Form> {
    let is_gvisor = runtime.as_str() == GVISOR;
    let api = text_of(map, "apiVersion", GVISOR_API, is_gvisor, notes);
    let kind = text_of(map, "kind", GVISOR_KIND, is_gvisor, notes);
    let (Some(api), Some(kind)) = (&api, &kind) else {
        // What is missing is not guessed; it has been said which it is.
        return None;
    };
    match (api.as_str(), kind.as_str()) {
        (RUNTIME_API, RUNTIME_KIND) => Some(Form::Runtime),
        (GVISOR_API, GVISOR_KIND) if is_gvisor => Some(Form::GVisor),
        (GVISOR_API, GVISOR_KIND) => {
            let why = format!(
                "it is for the type {GVISOR} alone, for {runtime} want kind {RUNTIME_KIND} of {RUNTIME_API}"
            );
            notes.refuse(field("kind"), quoted(kind), why);
            None
        }
        // The one that is as it should be is not named.
        (GVISOR_API | RUNTIME_API, _) => {
            notes.refuse(field("kind"), quoted(kind), forms(is_gvisor));
            None
        }
        _ => {
            notes.refuse(field("apiVersion"), quoted(api), forms(is_gvisor));
            None
        }
    }
}

/// A text that every form has. The gVisor extension does without it, so a
/// missing one is passed over where its form may be meant.
fn text_of(
    map: &Map<String, Value>,
    name: &str,
    of_gvisor: &str,
    is_gvisor: bool,
    notes: &mut Notes,
) -> Option<String> {
    match map.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        None | Some(Value::Null | Value::String(_)) => {
            let missing = "missing".to_owned();
            if is_gvisor && notes.how == How::Warn {
                notes.pass_over(field(name), missing, format!("it is taken for {of_gvisor}"));
                return Some(of_gvisor.to_owned());
            }
            notes.refuse(field(name), missing, forms(is_gvisor));
            None
        }
        Some(other) => {
            notes.refuse(field(name), shown(other), forms(is_gvisor));
            None
        }
    }
}

/// The forms that a type may have.
fn forms(is_gvisor: bool) -> String {
    let generic = format!("kind {RUNTIME_KIND} of {RUNTIME_API}");
    if is_gvisor {
        format!("want kind {GVISOR_KIND} of {GVISOR_API}, or {generic}")
    } else {
        format!("want {generic}")
    }
}

/// The gVisor extension's form. What its decoder refuses is refused; what it
/// ignores without a word is passed over with one, or refused in strict.
fn gvisor(map: &Map<String, Value>, notes: &mut Notes) -> Map<String, Value> {
    let mut flags = Map::new();
    for (name, value) in map {
        match (name.as_str(), value) {
            ("apiVersion" | "kind", _) | ("configFlags" | "testImageTag", Value::Null) => {}
            ("configFlags", Value::Object(given)) => flags = self::flags(given, notes),
            ("configFlags", other) => {
                notes.refuse(field(name), kind_of(other).to_owned(), "want an object of texts");
            }
            ("testImageTag", Value::String(_)) => {
                let why = "it has no effect: which gVisor is installed is for the operator's catalog to say";
                notes.pass_over(field(name), shown(value), why);
            }
            ("testImageTag", other) => notes.refuse(field(name), shown(other), "want a text"),
            (_, other) => {
                let why = "no such field, want configFlags";
                notes.pass_over(unknown(name), shown(other), why);
            }
        }
    }
    flags
}

fn flags(given: &Map<String, Value>, notes: &mut Notes) -> Map<String, Value> {
    let mut flags = Map::new();
    if !has_few(&field("configFlags"), given, notes) {
        return flags;
    }
    for (name, value) in given {
        let field = Form::GVisor.field(name);
        match value {
            Value::String(_) => {
                if is_bearable(&field, name, value, notes) {
                    flags.insert(name.clone(), value.clone());
                }
            }
            Value::Null => notes.pass_over(field, shown(value), "want a text in quotes"),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                notes.refuse(field, shown(value), "want a text in quotes");
            }
        }
    }
    flags
}

/// The form for every runtime.
fn generic(map: &Map<String, Value>, notes: &mut Notes) -> Map<String, Value> {
    let mut settings = Map::new();
    for (name, value) in map {
        match (name.as_str(), value) {
            ("apiVersion" | "kind" | "strategy", _) | ("settings", Value::Null) => {}
            ("settings", Value::Object(given)) => settings = self::settings(given, notes),
            ("settings", other) => {
                notes.refuse(field(name), kind_of(other).to_owned(), "want an object");
            }
            (_, other) => {
                notes.pass_over(
                    unknown(name),
                    shown(other),
                    "no such field, want settings or strategy",
                );
            }
        }
    }
    settings
}

/// How the resource is rolled out, where that differs from the catalog. What is
/// wrong in it is refused in any case: a rollout that is less careful than
/// somebody meant is found out too late.
fn strategy(given: Option<&Value>, notes: &mut Notes) -> Option<StrategySpec> {
    let given = given.filter(|given| !given.is_null())?;
    match StrategySpec::deserialize(given) {
        Ok(spec) => Some(spec),
        Err(error) => {
            notes.refuse(field("strategy"), shown(given), error.to_string());
            None
        }
    }
}

fn settings(given: &Map<String, Value>, notes: &mut Notes) -> Map<String, Value> {
    let mut settings = Map::new();
    if !has_few(&field("settings"), given, notes) {
        return settings;
    }
    for (name, value) in given {
        let field = Form::Runtime.field(name);
        let scalar = value.is_boolean() || value.is_string() || value.is_i64();
        if !scalar {
            let why = "want true or false, a whole number or a text";
            notes.pass_over(field, shown(value), why);
        } else if is_bearable(&field, name, value, notes) {
            settings.insert(name.clone(), value.clone());
        }
    }
    settings
}

/// Whether an object has no more entries than anyone needs.
fn has_few(field: &str, map: &Map<String, Value>, notes: &mut Notes) -> bool {
    let few = map.len() <= MAX_SETTINGS;
    if !few {
        let value = format!("an object of {} entries", map.len());
        notes.refuse(field, value, format!("at most {MAX_SETTINGS} are allowed"));
    }
    few
}

/// Whether a setting's name and text are short enough.
fn is_bearable(field: &str, name: &str, value: &Value, notes: &mut Notes) -> bool {
    if name.is_empty() || name.len() > MAX_SETTING_NAME {
        let why = format!("want a name of 1 to {MAX_SETTING_NAME} bytes");
        notes.pass_over(field, shown(value), why);
        return false;
    }
    if value.as_str().is_some_and(|text| text.len() > MAX_TEXT) {
        let why = format!("want a text of at most {MAX_TEXT} bytes");
        notes.pass_over(field, shown(value), why);
        return false;
    }
    true
}

/// The bytes of all names and texts, and one for every value.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + text.len(),
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(map) => 1 + map.iter().map(|(key, v)| key.len() + size(v)).sum::<usize>(),
    }
}

fn field(name: &str) -> String {
    format!("{FIELD}.{name}")
}

/// A field whose name someone made up.
fn unknown(name: &str) -> String {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain && !name.is_empty() { field(&cut(name)) } else { format!("{FIELD}[{:?}]", cut(name)) }
}

fn quoted(text: &str) -> String {
    format!("{:?}", cut(text))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
