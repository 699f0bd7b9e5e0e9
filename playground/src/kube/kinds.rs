//! The kinds that are served: one line each for the built-in ones, and those of CRDs.

use std::sync::Arc;

use serde_json::Value;

use super::table::{self, Columns};

/// One kind of one version, as discovery shows it and as requests find it.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) plural: String,
    pub(super) singular: String,
    pub(super) short_names: Vec<String>,
    pub(super) categories: Vec<String>,
    pub(super) namespaced: bool,
    /// Whether there is a status subresource.
    pub(super) status: bool,
    /// Whether `metadata.generation` counts changes of the spec.
    pub(super) generation: bool,
    /// Whether an update may leave out the resourceVersion.
    pub(super) unconditional: bool,
    pub(super) names: Names,
    /// Requests are answered and not stored.
    pub(super) review: bool,
    pub(super) columns: Columns,
    /// The schema of a CRD's version; built-in kinds are stored as they come.
    pub(super) schema: Option<Arc<Value>>,
    /// `plural` or `plural.group`: how messages call it, and under what it is stored.
    pub(super) resource: Arc<str>,
}

/// What an object may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// RFC 1123 labels joined by dots.
    Subdomain,
    /// One RFC 1123 label.
    Label,
    /// Anything that fits in a path.
    Path,
}

/// A line of the table of built-in kinds.
struct Row {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    flags: u8,
    columns: Columns,
}

const NAMESPACED: u8 = 1;
const STATUS: u8 = 2;
const GENERATION: u8 = 4;
/// Updates need a resourceVersion.
const CONDITIONAL: u8 = 8;
const LABEL_NAME: u8 = 16;
const PATH_NAME: u8 = 32;
const REVIEW: u8 = 64;

const fn row(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    flags: u8,
    columns: Columns,
) -> Row {
    Row { group, kind, plural, short, flags, columns }
}

/// Which resource stores Events of both groups.
pub(super) const EVENTS: &str = "events";
pub(super) const CRD_GROUP: &str = "apiextensions.k8s.io";
pub(super) const EVENTS_GROUP: &str = "events.k8s.io";

#[rustfmt::skip]
const BUILT_IN: &[Row] = &[
    row("", "Namespace", "namespaces", "ns", STATUS | LABEL_NAME, table::NAMESPACE),
    row("", "Node", "nodes", "no", STATUS, table::NODE),
    row("", "Pod", "pods", "po", NAMESPACED | STATUS | GENERATION, table::POD),
    row("", "Secret", "secrets", "", NAMESPACED, table::SECRET),
    row("", "ConfigMap", "configmaps", "cm", NAMESPACED, table::CONFIG_MAP),
    row("", "ServiceAccount", "serviceaccounts", "sa", NAMESPACED, table::NAME),
    row("", "Event", EVENTS, "ev", NAMESPACED, table::EVENT),
    row(EVENTS_GROUP, "Event", EVENTS, "ev", NAMESPACED, table::EVENT),
    row("apps", "DaemonSet", "daemonsets", "ds", NAMESPACED | STATUS | GENERATION, table::DAEMON_SET),
    row("coordination.k8s.io", "Lease", "leases", "", NAMESPACED | CONDITIONAL, table::LEASE),
    row("node.k8s.io", "RuntimeClass", "runtimeclasses", "", 0, table::RUNTIME_CLASS),
    row("rbac.authorization.k8s.io", "ClusterRole", "clusterroles", "", PATH_NAME, table::NAME),
    row("rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings", "", PATH_NAME, table::NAME),
    row(CRD_GROUP, "CustomResourceDefinition", "customresourcedefinitions", "crd,crds", STATUS | GENERATION | CONDITIONAL, table::NAME),
    row("authentication.k8s.io", "TokenReview", "tokenreviews", "", REVIEW, table::NAME),
    row("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews", "", REVIEW, table::NAME),
];

impl Kind {
    fn built_in(row: &Row) -> Self {
        let has = |flag| row.flags & flag != 0;
        // Events of both groups are the same objects.
        let storage_group = if row.plural == EVENTS { "" } else { row.group };
        Self {
            group: row.group.to_owned(),
            version: "v1".to_owned(),
            kind: row.kind.to_owned(),
            plural: row.plural.to_owned(),
            singular: row.kind.to_lowercase(),
            short_names: words(row.short),
            categories: if matches!(row.plural, "pods" | "daemonsets") {
                vec!["all".to_owned()]
            } else {
                Vec::new()
            },
            namespaced: has(NAMESPACED),
            status: has(STATUS),
            generation: has(GENERATION),
            unconditional: !has(CONDITIONAL),
            names: if has(LABEL_NAME) {
                Names::Label
            } else if has(PATH_NAME) {
                Names::Path
            } else {
                Names::Subdomain
            },
            review: has(REVIEW),
            columns: row.columns.clone(),
            schema: None,
            resource: resource(row.plural, storage_group),
        }
    }

    /// The served versions of a CustomResourceDefinition.
    pub(super) fn of_crd(crd: &Value) -> Vec<Self> {
        let spec = &crd["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().map_or_else(Vec::new, |list| list.iter().map(text).collect())
        };
        let (group, names) = (text(&spec["group"]), &spec["names"]);
        let plural = text(&names["plural"]);
        let kind = text(&names["kind"]);
        let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
        versions
            .iter()
            .filter(|version| version["served"] == true)
            .map(|version| Self {
                group: group.clone(),
                version: text(&version["name"]),
                kind: kind.clone(),
                plural: plural.clone(),
                singular: match names["singular"].as_str() {
                    Some(singular) if !singular.is_empty() => singular.to_owned(),
                    _ => kind.to_lowercase(),
                },
                short_names: texts(&names["shortNames"]),
                categories: texts(&names["categories"]),
                namespaced: spec["scope"] == "Namespaced",
                status: version["subresources"]["status"].is_object(),
                generation: true,
                unconditional: false,
                names: Names::Subdomain,
                review: false,
                columns: Columns::of_crd(&version["additionalPrinterColumns"]),
                schema: Some(Arc::new(version["schema"]["openAPIV3Schema"].clone())),
                resource: resource(&plural, &group),
            })
            .collect()
    }

    /// `v1` or `group/version`.
    pub(super) fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// Whether it comes from a CRD.
    pub(super) fn custom(&self) -> bool {
        self.schema.is_some()
    }
}

/// All kinds that are served.
#[derive(Debug, Clone)]
pub(super) struct Kinds(Vec<Arc<Kind>>);

impl Kinds {
    /// The built-in kinds and those of the given CRDs.
    pub(super) fn new<'a>(crds: impl Iterator<Item = &'a Value>) -> Self {
        let built_in = BUILT_IN.iter().map(Kind::built_in);
        Self(built_in.chain(crds.flat_map(Kind::of_crd)).map(Arc::new).collect())
    }

    /// Finds what a path names.
    pub(super) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let found = self
            .0
            .iter()
            .find(|kind| kind.group == group && kind.version == version && kind.plural == plural);
        found.cloned()
    }

    /// The kind under which a resource is stored, in its first version.
    pub(super) fn stored(&self, resource: &str) -> Option<Arc<Kind>> {
        self.0.iter().find(|kind| &*kind.resource == resource).cloned()
    }

    /// In the order of the table, CRDs last.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.0.iter().map(Arc::as_ref)
    }
}

fn resource(plural: &str, group: &str) -> Arc<str> {
    if group.is_empty() { plural.into() } else { format!("{plural}.{group}").into() }
}

fn words(list: &str) -> Vec<String> {
    list.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
