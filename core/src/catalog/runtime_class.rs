//! The RuntimeClasses that a shoot gets for a type.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::{HandlerName, RuntimeClassName, cut};

/// A RuntimeClass that a shoot gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeClass {
    /// Its name: what pods put in `runtimeClassName`.
    pub name: RuntimeClassName,
    /// Its handler.
    pub handler: HandlerName,
    /// Its overhead, as Kubernetes has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overhead: Option<Overhead>,
    /// Its scheduling, as Kubernetes has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,
}

/// What a pod's sandbox takes beside its containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Overhead {
    /// By resource: `cpu`, `memory`.
    pub pod_fixed: BTreeMap<String, Quantity>,
}

/// Which nodes the pods may run on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scheduling {
    /// The labels of these nodes: the type's own label where it is left out,
    /// every node where it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// What the pods tolerate beside their own tolerations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
}

/// A toleration of a taint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Toleration {
    /// The taint's key; every taint where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How the value is compared; `Equal` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<Operator>,
    /// The taint's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The taint's effect; every effect where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// How long a `NoExecute` taint is tolerated; for ever where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// Key and value are the same.
    Equal,
    /// The key is the same.
    Exists,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// New pods stay away.
    NoSchedule,
    /// New pods rather stay away.
    PreferNoSchedule,
    /// Pods that run are evicted too.
    NoExecute,
}

/// An amount of a resource as Kubernetes writes it: `250m`, `160Mi`, `2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Amount", into = "String")]
pub struct Quantity(String);

/// A text that is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid quantity {0:?}: want a number with one of n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei behind it or nothing"
)]
pub struct InvalidQuantity(String);

/// YAML has `2` as a number and `250m` as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Amount {
    Whole(u64),
    Fraction(f64),
    Text(String),
}

const SUFFIXES: [&str; 16] =
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl TryFrom<Amount> for Quantity {
    type Error = InvalidQuantity;

    fn try_from(amount: Amount) -> Result<Self, InvalidQuantity> {
        let text = match amount {
            Amount::Whole(number) => number.to_string(),
            Amount::Fraction(number) => number.to_string(),
            Amount::Text(text) => text,
        };
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if digits(whole) && digits(fraction) && SUFFIXES.contains(&&text[number.len()..]) {
            Ok(Self(text))
        } else {
            Err(InvalidQuantity(cut(&text)))
        }
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.0
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(overhead: Value, scheduling: Value) -> Result<RuntimeClass, serde_json::Error> {
        let mut class = json!({"name": "kata", "handler": "kata"});
        for (key, value) in [("overhead", overhead), ("scheduling", scheduling)] {
            if !value.is_null() {
                class[key] = value;
            }
        }
        serde_json::from_value(class)
    }

    #[test]
    fn overhead_and_scheduling_are_kept_as_kubernetes_has_them() {
        let overhead = json!({"podFixed": {"cpu": "250m", "memory": "160Mi"}});
        let scheduling = json!({
            "nodeSelector": {"a": "b"},
            "tolerations": [
                {"key": "kata", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3},
            ],
        });
        let class = read(overhead.clone(), scheduling.clone()).unwrap();
        let written = serde_json::to_value(&class).unwrap();
        assert_eq!([&written["overhead"], &written["scheduling"]], [&overhead, &scheduling]);
        let class = read(json!({"podFixed": {"cpu": 2}}), Value::Null).unwrap();
        assert_eq!(class.overhead.unwrap().pod_fixed["cpu"].to_string(), "2");
    }

    #[test]
    fn another_shape_is_refused_by_name() {
        let table = [
            (json!({"podFixd": {}}), Value::Null, "podFixd"),
            (json!({"podFixed": {"cpu": "much"}}), Value::Null, "much"),
            (json!({"podFixed": {"cpu": "-1"}}), Value::Null, "-1"),
            (json!({"podFixed": {"cpu": "1mm"}}), Value::Null, "1mm"),
            (json!({"podFixed": {"cpu": "1.m"}}), Value::Null, "1.m"),
            (Value::Null, json!({"nodeSelectors": {}}), "nodeSelectors"),
            (Value::Null, json!({"tolerations": [{"effect": "Never"}]}), "Never"),
            (Value::Null, json!({"tolerations": [{"operator": "In"}]}), "In"),
        ];
        for (overhead, scheduling, word) in table {
            let error = read(overhead, scheduling).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
        let error = serde_json::from_value::<RuntimeClass>(json!({"name": "Kata", "handler": "k"}));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("invalid RuntimeClass name \"Kata\""), "{error}");
    }
}
