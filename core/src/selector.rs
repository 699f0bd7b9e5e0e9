//! Label selectors, evaluated as Kubernetes evaluates `metav1.LabelSelector`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::name::{cut, is_qualified_name};

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A selector as it is written in a resource, not yet checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SelectorSpec {
    /// All of these labels with exactly these values.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub match_labels: Labels,
    /// All of these requirements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<RequirementSpec>,
    /// Fields of a newer Kubernetes, kept as they are. They select nothing.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

/// One requirement as it is written in a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequirementSpec {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// The values for `In` and `NotIn`; none for the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// A selector that was checked. An empty one matches everything, as in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

/// Why a selector can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// A key that is no label key.
    #[error("selector key {0:?} is not a label key")]
    Key(String),
    /// A value that is no label value.
    #[error("selector value {value:?} of key {key:?} is not a label value")]
    Value {
        /// The requirement's key.
        key: String,
        /// The refused value.
        value: String,
    },
    /// An operator that Kubernetes does not have.
    #[error(
        "selector operator {operator:?} of key {key:?} is unknown: use In, NotIn, Exists or DoesNotExist"
    )]
    Operator {
        /// The requirement's key.
        key: String,
        /// The refused operator.
        operator: String,
    },
    /// `In` or `NotIn` without values.
    #[error("selector operator {operator} of key {key:?} needs at least one value")]
    NoValues {
        /// The requirement's key.
        key: String,
        /// `In` or `NotIn`.
        operator: String,
    },
    /// `Exists` or `DoesNotExist` with values.
    #[error("selector operator {operator} of key {key:?} takes no values")]
    UnwantedValues {
        /// The requirement's key.
        key: String,
        /// `Exists` or `DoesNotExist`.
        operator: String,
    },
}

impl Selector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether no label that is there speaks against the object: it is
    /// selected, or would be if it had labels that it lacks.
    pub fn allows(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| {
            !labels.contains_key(&requirement.key) || requirement.matches(labels)
        })
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            // A label that is not there is in no set: NotIn matches it.
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl TryFrom<&SelectorSpec> for Selector {
    type Error = InvalidSelector;

    fn try_from(spec: &SelectorSpec) -> Result<Self, InvalidSelector> {
        let labels = spec.match_labels.iter().map(|(key, value)| RequirementSpec {
            key: key.clone(),
            operator: "In".to_owned(),
            values: vec![value.clone()],
        });
        let requirements = labels
            .chain(spec.match_expressions.iter().cloned())
            .map(Requirement::try_from)
            .collect::<Result<_, _>>()?;
        Ok(Self(requirements))
    }
}

impl TryFrom<RequirementSpec> for Requirement {
    type Error = InvalidSelector;

    fn try_from(spec: RequirementSpec) -> Result<Self, InvalidSelector> {
        let RequirementSpec { key, operator, values } = spec;
        if !is_label_key(&key) {
            return Err(InvalidSelector::Key(cut(&key)));
        }
        if let Some(value) = values.iter().find(|value| !is_label_value(value)) {
            return Err(InvalidSelector::Value { key, value: cut(value) });
        }
        let (wants_values, build): (bool, fn(BTreeSet<String>) -> Operator) =
            match operator.as_str() {
                "In" => (true, Operator::In),
                "NotIn" => (true, Operator::NotIn),
                "Exists" => (false, |_| Operator::Exists),
                "DoesNotExist" => (false, |_| Operator::DoesNotExist),
                _ => return Err(InvalidSelector::Operator { key, operator: cut(&operator) }),
            };
        match (wants_values, values.is_empty()) {
            (true, true) => Err(InvalidSelector::NoValues { key, operator }),
            (false, false) => Err(InvalidSelector::UnwantedValues { key, operator }),
            _ => Ok(Self { key, operator: build(values.into_iter().collect()) }),
        }
    }
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    is_qualified_name(name) && prefix.is_none_or(|p| p.parse::<crate::name::NodeName>().is_ok())
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_qualified_name(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> SelectorSpec {
        SelectorSpec {
            match_expressions: vec![RequirementSpec {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: values.iter().map(|v| (*v).to_owned()).collect(),
            }],
            ..SelectorSpec::default()
        }
    }

    #[test]
    fn operators_match_as_in_kubernetes() {
        let with_a = labels(&[("pool", "a")]);
        let empty_value = labels(&[("pool", "")]);
        let without = labels(&[("other", "x")]);
        // operator, values, pool=a, pool= (empty), no such label
        let table: [(&str, &[&str], bool, bool, bool); 7] = [
            ("In", &["a", "b"], true, false, false),
            ("In", &["b"], false, false, false),
            ("In", &[""], false, true, false),
            ("NotIn", &["a"], false, true, true),
            ("NotIn", &["b"], true, true, true),
            ("Exists", &[], true, true, false),
            ("DoesNotExist", &[], false, false, true),
        ];
        for (operator, values, a, empty, absent) in table {
            let selector = Selector::try_from(&expression("pool", operator, values)).unwrap();
            assert_eq!(selector.matches(&with_a), a, "{operator} {values:?} on pool=a");
            assert_eq!(selector.matches(&empty_value), empty, "{operator} {values:?} on pool=");
            assert_eq!(selector.matches(&without), absent, "{operator} {values:?} without");
        }
    }

    #[test]
    fn an_empty_selector_matches_everything() {
        assert!(Selector::default().matches(&Labels::new()));
        assert!(
            Selector::try_from(&SelectorSpec::default()).unwrap().matches(&labels(&[("a", "b")]))
        );
    }

    #[test]
    fn malformed_selectors_say_what_is_wrong() {
        let table = [
            (expression("pool", "in", &["a"]), "In, NotIn, Exists or DoesNotExist"),
            (expression("pool", "In", &[]), "at least one value"),
            (expression("pool", "Exists", &["a"]), "takes no values"),
            (expression("", "Exists", &[]), "not a label key"),
            (expression("a/b/c", "Exists", &[]), "not a label key"),
            (expression("pool", "In", &["a b"]), "not a label value"),
        ];
        for (spec, want) in table {
            let error = Selector::try_from(&spec).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    proptest! {
        #[test]
        fn in_and_not_in_are_opposites(
            key in "[a-c]", value in "[a-c]?", values in proptest::collection::vec("[a-c]", 1..4),
            present in any::<bool>(),
        ) {
            let spec = |operator: &str| SelectorSpec {
                match_expressions: vec![RequirementSpec {
                    key: key.clone(), operator: operator.to_owned(), values: values.clone(),
                }],
                ..SelectorSpec::default()
            };
            let labels = if present { labels(&[(&key, &value)]) } else { Labels::new() };
            let inside = Selector::try_from(&spec("In")).unwrap().matches(&labels);
            let outside = Selector::try_from(&spec("NotIn")).unwrap().matches(&labels);
            prop_assert_ne!(inside, outside);
        }

        #[test]
        fn no_input_panics(key in ".*", operator in ".*", value in ".*") {
            let _ = Selector::try_from(&expression(&key, &operator, &[&value]));
        }
    }
}
