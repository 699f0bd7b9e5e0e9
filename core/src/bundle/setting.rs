//! The settings that a user may choose, as a bundle declares them.
//!
//! The declaration is all that Rootstock knows of a runtime's settings: what a
//! user asks for is checked against it, in the controller as on the node, and
//! it says what is written where.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BundleConfig, ConfigFormat, is_false};
use crate::path::BundlePath;

/// The most settings that a bundle may declare, and a user may give.
pub const MAX_SETTINGS: usize = 256;
/// The longest name of a setting, in bytes.
pub const MAX_SETTING_NAME: usize = 128;
/// How many allowed values or names a text lists.
const LISTED: usize = 20;

/// A setting that a user may choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// Its name, as users write it.
    pub name: String,
    /// What its values are: `bool`, `int`, `string`. A setting of a kind that
    /// this version does not know takes no value.
    pub kind: String,
    /// The values that are allowed; all of the kind where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<Value>,
    /// The smallest `int`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// The largest `int`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// The config file where it lands.
    pub config: BundlePath,
    /// The dotted key in that file.
    pub key: String,
    /// How the value is written: as it is, or as `string`.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub written_as: Option<String>,
    /// What a `bool` writes into the same file beside itself when it is true,
    /// by dotted key; texts may hold placeholders.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub also: BTreeMap<String, Value>,
    /// Whether a `bool` writes nothing when it is false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub omit_false: bool,
}

impl Setting {
    /// Whether it takes this value.
    pub fn takes(&self, value: &Value) -> bool {
        self.is_of_kind(value) && (self.allowed.is_empty() || self.allowed.contains(value))
    }

    /// The value that a text stands for, where it stands for one of the kind.
    pub fn read(&self, text: &str) -> Option<Value> {
        match self.kind.as_str() {
            "bool" => text.parse().ok().map(Value::Bool),
            "int" => text.parse::<i64>().ok().map(Value::from),
            "string" => Some(Value::String(text.to_owned())),
            _ => None,
        }
    }

    /// Whether a value writes nothing, so that it is as if it were not there.
    pub fn omits(&self, value: &Value) -> bool {
        self.omit_false && *value == Value::Bool(false)
    }

    /// The values that it takes, for people.
    pub fn wants(&self) -> String {
        if !self.allowed.is_empty() {
            return format!("one of {}", list(self.allowed.iter().map(Value::to_string)));
        }
        match (self.kind.as_str(), self.min, self.max) {
            ("bool", ..) => "true or false".to_owned(),
            ("int", None, None) => "a whole number".to_owned(),
            ("int", Some(min), None) => format!("a whole number from {min} on"),
            ("int", None, Some(max)) => format!("a whole number up to {max}"),
            ("int", Some(min), Some(max)) => format!("a whole number from {min} to {max}"),
            ("string", ..) => "a text".to_owned(),
            (kind, ..) => format!("a value of kind {kind}, which this version does not know"),
        }
    }

    fn is_of_kind(&self, value: &Value) -> bool {
        match self.kind.as_str() {
            "bool" => value.is_boolean(),
            "int" => value.as_i64().is_some_and(|int| {
                self.min.is_none_or(|min| min <= int) && self.max.is_none_or(|max| int <= max)
            }),
            "string" => value.is_string(),
            _ => false,
        }
    }

    /// The keys that it may write.
    fn keys(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.key).chain(self.also.keys()).map(String::as_str)
    }

    /// Refuses what contradicts itself. A kind of a later version is let through.
    fn check(&self) -> Result<(), &'static str> {
        let named = !self.name.is_empty() && self.name.len() <= MAX_SETTING_NAME;
        if !named || self.name.chars().any(char::is_control) {
            return Err("has no name that can be written");
        }
        let (is_bool, is_int) = (self.kind == "bool", self.kind == "int");
        if !is_int && (self.min.is_some() || self.max.is_some()) {
            return Err("has a min or max and is no int");
        }
        if self.min.zip(self.max).is_some_and(|(min, max)| min > max) {
            return Err("has a min above its max");
        }
        if !is_bool && (self.omit_false || !self.also.is_empty()) {
            return Err("has also or omitFalse and is no bool");
        }
        let known = is_bool || is_int || self.kind == "string";
        if known && !self.allowed.iter().all(|value| self.is_of_kind(value)) {
            return Err("allows a value that is not of its kind");
        }
        if self.keys().any(|key| key.len() > 256 || key.split('.').any(str::is_empty)) {
            return Err("has a key that is none");
        }
        Ok(())
    }
}

impl BundleConfig {
    /// The setting of that name.
    pub fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    /// The names of its settings, for people.
    pub fn setting_names(&self) -> String {
        if self.settings.is_empty() {
            return "none".to_owned();
        }
        list(self.settings.iter().map(|setting| setting.name.clone()))
    }

    /// Refuses settings that contradict themselves or each other, whatever a user gives.
    pub(super) fn check_settings(&self) -> Result<(), String> {
        if self.settings.len() > MAX_SETTINGS {
            let count = self.settings.len();
            return Err(format!("it has {count} settings, at most {MAX_SETTINGS} are allowed"));
        }
        let mut names = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for setting in &self.settings {
            let name = crate::name::cut(&setting.name);
            let wrong = |why: &str| Err(format!("setting {name} {why}"));
            if let Err(why) = setting.check() {
                return wrong(why);
            }
            if !names.insert(&setting.name) {
                return wrong("is there twice");
            }
            let Some(config) = self.configs.iter().find(|config| config.name == setting.config)
            else {
                let config = &setting.config;
                return wrong(&format!("lands in {config}, which is not among its configs"));
            };
            if config.format == ConfigFormat::Text {
                return wrong(&format!("lands in {}, which is a text", config.name));
            }
            for key in setting.keys() {
                if !leads_to_a_value(&config.template, key) {
                    return wrong(&format!("has the key {key}, which is no value's"));
                }
                if !keys.insert((&setting.config, key)) {
                    return wrong(&format!("has the key {key}, which another one has too"));
                }
            }
        }
        for (config, key) in &keys {
            let mut above = key.match_indices('.').map(|(at, _)| &key[..at]);
            if let Some(above) = above.find(|above| keys.contains(&(*config, *above))) {
                return Err(format!("key {key} of a setting leads through the value {above}"));
            }
        }
        Ok(())
    }
}

/// Whether a dotted key leads through tables only, to something that is none.
fn leads_to_a_value(template: &Value, key: &str) -> bool {
    let mut at = Some(template);
    for part in key.split('.') {
        match at {
            Some(Value::Object(map)) => at = map.get(part),
            Some(_) => return false,
            None => return true,
        }
    }
    !at.is_some_and(Value::is_object)
}

/// The first of many, with commas.
fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(LISTED);
    let mut text = items.take(LISTED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
