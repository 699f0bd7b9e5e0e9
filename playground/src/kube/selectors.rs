//! Label and field selectors, as they stand in a query.

use serde_json::Value;

/// What a list or watch selects.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Selector {
    labels: Vec<Label>,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Label {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    path: Vec<String>,
    value: String,
    equal: bool,
}

impl Selector {
    /// Reads the two query parameters; each may be empty.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(super) fn parse(labels: &str, fields: &str) -> Result<Self, String> {
        let labels = split(labels).into_iter().map(label).collect::<Result<_, _>>()?;
        let fields = split(fields).into_iter().map(field).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// Whether it selects the object.
    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|label| label.matches(labels))
            && self.fields.iter().all(|field| field.matches(object))
    }
}

impl Label {
    fn matches(&self, labels: &Value) -> bool {
        let value = |key: &String| labels[key.as_str()].as_str();
        match self {
            Self::In(key, wanted) => value(key).is_some_and(|v| wanted.iter().any(|w| w == v)),
            // As Kubernetes has it: an absent label is not in any set.
            Self::NotIn(key, unwanted) => {
                value(key).is_none_or(|v| unwanted.iter().all(|w| w != v))
            }
            Self::Exists(key) => value(key).is_some(),
            Self::Absent(key) => value(key).is_none(),
        }
    }
}

impl Field {
    fn matches(&self, object: &Value) -> bool {
        let found = self.path.iter().fold(object, |value, step| &value[step.as_str()]);
        let found = match found {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                other.to_string()
            }
        };
        (found == self.value) == self.equal
    }
}

/// At commas outside of brackets.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
    .collect()
}

fn label(text: &str) -> Result<Label, String> {
    let good_value =
        |value: &str| value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let one = |value: &str| -> Result<Vec<String>, String> {
        let value = value.trim();
        if !good_value(value) {
            return Err(format!(
                "unable to parse requirement: {text:?}: invalid label value {value:?}"
            ));
        }
        Ok(vec![value.to_owned()])
    };
    let key = |key: &str| -> Result<String, String> {
        let key = key.trim();
        let good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if key.is_empty() || !key.chars().all(good) {
            return Err(format!(
                "unable to parse requirement: {text:?}: invalid label key {key:?}"
            ));
        }
        Ok(key.to_owned())
    };
    if let Some((name, rest)) = text.split_once(" notin ") {
        return Ok(Label::NotIn(key(name)?, set(rest)?));
    }
    if let Some((name, rest)) = text.split_once(" in ") {
        return Ok(Label::In(key(name)?, set(rest)?));
    }
    if let Some((name, value)) = text.split_once("!=") {
        return Ok(Label::NotIn(key(name)?, one(value)?));
    }
    if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Label::In(key(name)?, one(value)?));
    }
    match text.strip_prefix('!') {
        Some(name) => Ok(Label::Absent(key(name)?)),
        None => Ok(Label::Exists(key(text)?)),
    }
}

fn set(text: &str) -> Result<Vec<String>, String> {
    let inner = text
        .trim()
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        .ok_or_else(|| format!("unable to parse requirement: found {text:?}, expected: '('"))?;
    Ok(inner.split(',').map(|value| value.trim().to_owned()).collect())
}

fn field(text: &str) -> Result<Field, String> {
    let (path, value, equal) = if let Some((path, value)) = text.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (path, value, true)
    } else {
        return Err(format!("invalid selector: {text:?}; can't understand {text:?}"));
    };
    let path = path.trim().split('.').map(str::to_owned).collect();
    Ok(Field { path, value: value.trim().to_owned(), equal })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels() {
        let object =
            json!({"metadata": {"labels": {"pool": "a", "x.io/cri": "containerd", "flag": ""}}});
        for (selector, expected) in [
            ("", true),
            ("pool=a", true),
            ("pool==b", false),
            ("pool!=b", true),
            ("other!=b", true),
            ("pool in (a, b),x.io/cri=containerd", true),
            ("pool in (b,c)", false),
            ("pool notin (b,c)", true),
            ("other notin (b)", true),
            ("flag", true),
            ("flag=", true),
            ("!flag", false),
            ("!other", true),
            ("pool=a,other", false),
        ] {
            let parsed = Selector::parse(selector, "").unwrap();
            assert_eq!(parsed.matches(&object), expected, "{selector}");
        }
        for bad in ["a b", "=x", "pool in a", "!!x", "a=b=c", "a=b c"] {
            assert!(Selector::parse(bad, "").is_err(), "{bad}");
        }
    }

    #[test]
    fn fields() {
        let object = json!({"metadata": {"name": "n", "namespace": "ns"}, "spec": {"nodeName": "w"},
            "status": {"phase": "Running"}, "involvedObject": {"name": "p"}, "type": "Opaque"});
        for (selector, expected) in [
            ("metadata.name=n", true),
            ("metadata.name=m", false),
            ("metadata.name=n,metadata.namespace=ns", true),
            ("spec.nodeName=w,status.phase!=Succeeded,status.phase!=Failed", true),
            ("status.phase=Pending", false),
            ("involvedObject.name==p", true),
            ("type=Opaque", true),
            ("spec.absent=", true),
            ("spec.absent!=", false),
        ] {
            let parsed = Selector::parse("", selector).unwrap();
            assert_eq!(parsed.matches(&object), expected, "{selector}");
        }
        assert!(Selector::parse("", "metadata.name").is_err());
    }
}
