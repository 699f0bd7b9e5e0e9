//! Config files from a template and the user's settings, byte for byte the same each time.

use serde_json::{Map, Value};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table};

use super::{LayoutError, Placeholders};
use crate::bundle::{BundleConfig, ConfigFile, ConfigFormat, Setting};
use crate::name::cut;

/// The settings that were given, each checked against the bundle, in the bundle's order.
pub(super) fn check_settings<'a>(
    bundle: &'a BundleConfig,
    given: &Map<String, Value>,
) -> Result<Vec<(&'a Setting, Value)>, LayoutError> {
    if let Some(name) = given.keys().find(|name| bundle.setting(name).is_none()) {
        return Err(LayoutError::Setting(format!(
            "setting {:?} is unknown to {} {}, which has: {}",
            cut(name),
            bundle.runtime,
            bundle.version,
            bundle.setting_names()
        )));
    }
    let mut settings = Vec::new();
    for setting in &bundle.settings {
        let Some(value) = given.get(&setting.name) else { continue };
        if !setting.takes(value) {
            return Err(LayoutError::Setting(format!(
                "setting {:?} is {}, want {}",
                setting.name,
                cut(&value.to_string()),
                setting.wants()
            )));
        }
        settings.push((setting, value.clone()));
    }
    Ok(settings)
}

/// The content of one config file.
pub(super) fn config(
    config: &ConfigFile,
    settings: &[(&Setting, Value)],
    places: &Placeholders,
) -> Result<String, String> {
    // Placeholders first: a user's text is taken as it is.
    let mut content = places.expand_value(&config.template);
    for (setting, value) in settings.iter().filter(|(s, _)| s.config == config.name) {
        if setting.omits(value) {
            continue;
        }
        if *value == Value::Bool(true) {
            for (key, value) in &setting.also {
                set(&mut content, key, places.expand_value(value))?;
            }
        }
        let value = match setting.written_as.as_deref() {
            None => value.clone(),
            Some("string") if value.is_string() => value.clone(),
            Some("string") => Value::String(value.to_string()),
            Some(other) => {
                return Err(format!("setting {} is to be written as {other:?}", setting.name));
            }
        };
        set(&mut content, &setting.key, value)?;
    }
    match config.format {
        ConfigFormat::Toml => {
            let map = content.as_object().ok_or("a toml file needs an object")?;
            Ok(DocumentMut::from(toml_table(map)?).to_string())
        }
        ConfigFormat::Json => {
            let mut text =
                serde_json::to_string_pretty(&sorted(&content)).map_err(|e| e.to_string())?;
            text.push('\n');
            Ok(text)
        }
        ConfigFormat::Text => Ok(content.as_str().ok_or("a text file needs a text")?.to_owned()),
    }
}

/// Sets a dotted key; the tables on the way are made where they are missing.
fn set(content: &mut Value, key: &str, value: Value) -> Result<(), String> {
    let mut at = content;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        let Value::Object(map) = at else {
            return Err(format!("key {key} leads through something that is no table"));
        };
        if parts.peek().is_none() {
            map.insert(part.to_owned(), value);
            return Ok(());
        }
        at = map.entry(part).or_insert_with(|| Value::Object(Map::new()));
    }
    Ok(())
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            Value::Object(entries.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

const NO_NULL: &str = "toml has no null";
const NO_NUMBER: &str = "toml has no such number";

/// An object as a TOML table in its one form: values before tables, each by name.
///
/// # Errors
/// Says what TOML does not have: null, or an integer beyond 64 bits with sign.
pub fn toml_table(map: &Map<String, Value>) -> Result<Table, &'static str> {
    table(map, false)
}

fn table(map: &Map<String, Value>, nested: bool) -> Result<Table, &'static str> {
    let mut table = Table::new();
    let mut entries: Vec<_> = map.iter().collect();
    // A value behind a table would belong to that table.
    entries.sort_by_key(|(key, value)| (value.is_object(), *key));
    for (key, value) in entries {
        let item = match value.as_object() {
            Some(inner) => Item::Table(self::table(inner, true)?),
            None => Item::Value(inline(value)?),
        };
        table.insert(key, item);
    }
    table.set_implicit(nested && !map.is_empty() && map.values().all(Value::is_object));
    Ok(table)
}

/// A value as it stands behind `=`.
fn inline(value: &Value) -> Result<toml_edit::Value, &'static str> {
    Ok(match value {
        Value::Null => return Err(NO_NULL),
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => int.into(),
            (None, Some(float)) if !number.is_u64() => float.into(),
            _ => return Err(NO_NUMBER),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => {
            let items: Vec<toml_edit::Value> =
                items.iter().map(inline).collect::<Result<_, _>>()?;
            items.into_iter().collect::<Array>().into()
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let mut table = InlineTable::new();
            for (key, value) in entries {
                table.insert(key, inline(value)?);
            }
            table.into()
        }
    })
}
