//! Reads what a newer version may have added words to.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A map without the entries that this version does not know.
pub(super) fn map<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: FromStr + Ord,
    V: DeserializeOwned,
{
    let read = BTreeMap::<String, Value>::deserialize(deserializer)?;
    let known = |(key, value): (String, Value)| {
        Some((key.parse().ok()?, serde_json::from_value(value).ok()?))
    };
    Ok(read.into_iter().filter_map(known).collect())
}

/// A list without the entries that this version does not know.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let read = Vec::<Value>::deserialize(deserializer)?;
    Ok(read.into_iter().filter_map(|value| serde_json::from_value(value).ok()).collect())
}

/// A value; the default where this version does not know it.
pub(super) fn one<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}
