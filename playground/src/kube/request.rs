//! What a request asks: its path, verb, query and the form of the answer.

use std::sync::Arc;

use axum::extract::Query;
use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header};
use serde_json::Value;

use super::{
    failure::Failure,
    kinds::{Kind, Kinds},
    store::Key,
};

/// A request about objects.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) target: Target,
    pub(super) verb: Verb,
    pub(super) query: Parameters,
    pub(super) form: Form,
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

/// What a path names.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) kind: Arc<Kind>,
    /// `None` for cluster-scoped kinds and for all namespaces.
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

/// How objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    /// Metadata alone.
    Partial,
    /// A Table; with whole objects in its rows, or with their metadata.
    Table {
        whole: bool,
    },
}

/// The parameters of the query.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Target {
    /// Reads `/api/v1/…` and `/apis/<group>/<version>/…`, already split and decoded.
    pub(super) fn parse(kinds: &Kinds, path: &[&str]) -> Option<Self> {
        let (group, version, rest) = match path {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let find = |plural: &str| kinds.find(group, version, plural);
        let target = |kind, namespace: Option<&str>, rest: &[&str]| {
            let (name, subresource) = match rest {
                [] => (None, None),
                [name] => (Some(*name), None),
                [name, subresource] => (Some(*name), Some(*subresource)),
                _ => return None,
            };
            let owned = |text: Option<&str>| text.map(str::to_owned);
            Some(Self {
                kind,
                namespace: owned(namespace),
                name: owned(name),
                subresource: owned(subresource),
            })
        };
        if let ["namespaces", namespace, plural, rest @ ..] = rest
            && let Some(kind) = find(plural)
            && kind.namespaced
        {
            return target(kind, Some(namespace), rest);
        }
        let (plural, rest) = rest.split_first()?;
        let kind = find(plural)?;
        if kind.namespaced && !rest.is_empty() {
            return None;
        }
        target(kind, None, rest)
    }

    /// The key of the named object.
    pub(super) fn key(&self) -> Option<Key> {
        Some(Key {
            resource: Arc::clone(&self.kind.resource),
            namespace: self.namespace.clone().unwrap_or_default(),
            name: self.name.clone()?,
        })
    }

    /// `plural` or `plural/subresource`, as roles name it.
    pub(super) fn resource(&self) -> String {
        match &self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.kind.plural),
            None => self.kind.plural.clone(),
        }
    }
}

impl Verb {
    /// What a method means for a target.
    pub(super) fn of(method: &Method, target: &Target, query: &Parameters) -> Option<Self> {
        let named = target.name.is_some();
        Some(match (method.as_str(), named) {
            ("GET", true) => Self::Get,
            ("GET", false) if query.flag("watch") => Self::Watch,
            ("GET", false) => Self::List,
            ("POST", named) if named == target.subresource.is_some() => Self::Create,
            ("PUT", true) => Self::Update,
            ("PATCH", true) => Self::Patch,
            ("DELETE", true) => Self::Delete,
            ("DELETE", false) => Self::DeleteCollection,
            _ => return None,
        })
    }

    /// As roles name it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

impl Form {
    /// The first form in `Accept` that is known here.
    pub(super) fn of(headers: &HeaderMap, query: &Parameters) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        for entry in accept.unwrap_or_default().split(',') {
            let mut parts = entry.split(';').map(str::trim);
            if !matches!(parts.next(), Some("application/json" | "*/*" | "application/*")) {
                continue;
            }
            let (mut form, mut version) = (None, None);
            for part in parts {
                match part.split_once('=') {
                    Some(("as", value)) => form = Some(value.to_owned()),
                    Some(("v", value)) => version = Some(value.to_owned()),
                    _ => {}
                }
            }
            match (form.as_deref(), version.as_deref()) {
                (None, _) => return Self::Whole,
                (Some("Table"), Some("v1")) => {
                    return Self::Table { whole: query.get("includeObject") == "Object" };
                }
                (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1")) => {
                    return Self::Partial;
                }
                _ => {}
            }
        }
        Self::Whole
    }
}

impl Parameters {
    pub(super) fn of(uri: &Uri) -> Self {
        Query::try_from_uri(uri).map_or_else(|_| Self::default(), |Query(pairs)| Self(pairs))
    }

    /// The first value of a parameter, or "".
    pub(super) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1")
    }

    /// A number, `None` where it is absent or empty.
    ///
    /// # Errors
    /// It is no number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(None);
        }
        let number = text.parse().map_err(|_| {
            Failure::bad_request(format!("{name}: Invalid value: {text:?}: must be a number"))
        })?;
        Ok(Some(number))
    }

    /// Whether nothing is to be stored.
    pub(super) fn dry_run(&self) -> bool {
        !self.get("dryRun").is_empty()
    }
}

impl Request {
    /// The body as an object; an empty body is `None`.
    ///
    /// # Errors
    /// It is no JSON object.
    pub(super) fn object(&self) -> Result<Option<Value>, Failure> {
        if self.body.is_empty() {
            return Ok(None);
        }
        if !self.content_type.is_empty() && self.content_type != "application/json" {
            return Err(Failure::unsupported_media_type(&self.content_type));
        }
        let value: Value = serde_json::from_slice(&self.body).map_err(|error| {
            Failure::bad_request(format!("the body of the request is no JSON: {error}"))
        })?;
        if !value.is_object() {
            return Err(Failure::bad_request("the body of the request is no object"));
        }
        Ok(Some(value))
    }
}

/// The parts of a path, `%`-decoded.
pub(super) fn segments(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty()).map(decode).collect()
}

fn decode(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let kinds = Kinds::new(std::iter::empty());
        let parse = |path: &str| {
            let parts = segments(path);
            let parts: Vec<_> = parts.iter().map(String::as_str).collect();
            Target::parse(&kinds, &parts).map(|target| {
                (
                    target.resource(),
                    target.namespace.unwrap_or_default(),
                    target.name.unwrap_or_default(),
                )
            })
        };
        for (path, resource, namespace, name) in [
            ("/api/v1/nodes", "nodes", "", ""),
            ("/api/v1/nodes/n/status", "nodes/status", "", "n"),
            ("/api/v1/pods", "pods", "", ""),
            ("/api/v1/namespaces", "namespaces", "", ""),
            ("/api/v1/namespaces/a", "namespaces", "", "a"),
            ("/api/v1/namespaces/a/status", "namespaces/status", "", "a"),
            ("/api/v1/namespaces/a/pods", "pods", "a", ""),
            ("/api/v1/namespaces/a/pods/p", "pods", "a", "p"),
            ("/api/v1/namespaces/a/serviceaccounts/s/token", "serviceaccounts/token", "a", "s"),
            ("/apis/apps/v1/namespaces/a/daemonsets/d", "daemonsets", "a", "d"),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Ax",
                "clusterroles",
                "",
                "system:x",
            ),
        ] {
            assert_eq!(
                parse(path),
                Some((resource.into(), namespace.into(), name.into())),
                "{path}"
            );
        }
        for path in [
            "/api/v1/absent",
            "/api/v1/pods/p",
            "/apis/apps/v1",
            "/other",
            "/api/v1/nodes/n/status/x",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn forms() {
        let form = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Form::of(&headers, &Parameters::default())
        };
        assert_eq!(form("*/*"), Form::Whole);
        assert_eq!(form("application/vnd.kubernetes.protobuf,application/json"), Form::Whole);
        assert_eq!(
            form("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
            Form::Table { whole: false }
        );
        assert_eq!(
            form("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"),
            Form::Whole
        );
        assert_eq!(
            form("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Form::Partial
        );
    }
}
