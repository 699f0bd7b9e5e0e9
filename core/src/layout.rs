//! Where a bundle lies on a node, and what containerd is told of it.
//!
//! ```text
//! <binaryPath>/.rootstock/<type>/<digest>/…                the bundle's files
//! <binaryPath>/.rootstock/<type>/<digest>-<settings>/…     its rendered config files
//! <binaryPath>/<entry point> ─▶ .rootstock/<type>/<digest>/<entry point>
//! ```
//!
//! A running pod calls its runtime again and again, by the paths that it was
//! started with. So everything is named by digest, and containerd's table
//! leads straight to it; the links are for people and for scripts.

mod render;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bundle::{BundleConfig, Handler};
use crate::desired::DesiredBundle;
use crate::digest::Digest;
use crate::name::{HandlerName, RuntimeType};
use crate::path::{BinaryPath, BundlePath};
use crate::status::Reason;

pub use render::toml_table;

/// The folder below binaryPath that holds everything of ours.
pub const FOLDER: &str = ".rootstock";
/// What the names of our temporary files and folders begin with.
pub const TEMP_PREFIX: &str = ".rootstock-tmp-";

/// One bundle's folder of files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TreeId {
    /// The binaryPath below which it lies.
    pub binary_path: BinaryPath,
    /// The runtime type.
    pub runtime: RuntimeType,
    /// The digest of the bundle's manifest.
    pub digest: Digest,
}

impl TreeId {
    /// The folder of all trees of the type, relative to binaryPath.
    pub fn parent(&self) -> String {
        format!("{FOLDER}/{}", self.runtime)
    }

    /// The folder's own name.
    pub fn name(&self) -> String {
        self.digest.hex()
    }

    /// The name that it has until all its files are there.
    pub fn temp_name(&self) -> String {
        format!("{TEMP_PREFIX}{}", self.digest.hex())
    }

    /// The folder relative to binaryPath.
    pub fn relative(&self) -> String {
        format!("{}/{}", self.parent(), self.name())
    }

    /// The folder's path on the node.
    pub fn absolute(&self) -> String {
        format!("{}/{}", self.binary_path, self.relative())
    }

    /// Whether a path on the node leads into the folder.
    pub fn holds(&self, path: &str) -> bool {
        path.strip_prefix(&self.absolute()).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Whether a path on the node leads into the folder, or into config files rendered for it.
    pub fn concerns(&self, path: &str) -> bool {
        path.strip_prefix(&self.absolute()).is_some_and(|rest| rest.starts_with(['/', '-']))
    }
}

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.absolute())
    }
}

/// One folder of rendered config files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenderedId {
    /// The tree that its files belong to.
    pub tree: TreeId,
    /// The first 16 hex digits of the settings' digest.
    pub settings: String,
}

impl RenderedId {
    /// The folder's own name.
    pub fn name(&self) -> String {
        format!("{}-{}", self.tree.name(), self.settings)
    }

    /// The folder relative to binaryPath.
    pub fn relative(&self) -> String {
        format!("{}/{}", self.tree.parent(), self.name())
    }

    /// The folder's path on the node.
    pub fn absolute(&self) -> String {
        format!("{}/{}", self.tree.binary_path, self.relative())
    }

    /// Whether a path on the node leads into the folder.
    pub fn holds(&self, path: &str) -> bool {
        path.strip_prefix(&self.absolute()).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// One handler's table in containerd's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerTable {
    /// containerd's name for the kind of shim.
    pub runtime_type: String,
    /// The shim's path on the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub runtime_path: String,
    /// The runtime's own options.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub options: Map<String, Value>,
    /// The pod annotations that the runtime is shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod_annotations: Vec<String>,
    /// Whether a privileged pod goes without the host's devices.
    #[serde(default, skip_serializing_if = "is_false")]
    pub privileged_without_host_devices: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl HandlerTable {
    /// The paths on the node that the table leads to.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let options = self.options.values().filter_map(Value::as_str);
        std::iter::once(self.runtime_path.as_str())
            .chain(options)
            .filter(|path| path.starts_with('/'))
    }
}

/// A link at the top of binaryPath.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Where it stands.
    pub binary_path: BinaryPath,
    /// Its name.
    pub name: String,
}

/// Everything that one desired bundle means on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its files.
    pub tree: TreeId,
    /// Its rendered config files with their content; none where it has none.
    pub rendered: Option<(RenderedId, BTreeMap<BundlePath, String>)>,
    /// Its links and where they lead, relative to binaryPath.
    pub links: BTreeMap<Link, String>,
    /// Its tables in containerd's configuration.
    pub tables: BTreeMap<HandlerName, HandlerTable>,
}

/// Why a bundle can't be laid out with these settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A setting that the bundle does not have, or a value that it does not take.
    #[error("{0}")]
    Setting(String),
    /// The bundle's own template can't be written in its format.
    #[error("config file {name} of the bundle can't be written: {why}")]
    Template {
        /// The file.
        name: BundlePath,
        /// What is wrong with it.
        why: String,
    },
}

impl LayoutError {
    /// The reason that users see.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Setting(_) => Reason::ConfigurationInvalid,
            Self::Template { .. } => Reason::BundleInvalid,
        }
    }
}

impl Layout {
    /// What the bundle means on a node.
    pub fn of(desired: &DesiredBundle) -> Result<Self, LayoutError> {
        let bundle = desired.config.config();
        let tree = TreeId {
            binary_path: desired.binary_path.clone(),
            runtime: bundle.runtime.clone(),
            digest: desired.digest,
        };
        let settings = render::check_settings(bundle, &desired.settings)?;
        let id = RenderedId { tree: tree.clone(), settings: settings_hash(&desired.settings) };
        let places = Placeholders {
            bundle: tree.absolute(),
            config: id.absolute(),
            binary_path: desired.binary_path.to_string(),
        };
        let mut files = BTreeMap::new();
        for config in &bundle.configs {
            let content = render::config(config, &settings, &places)
                .map_err(|why| LayoutError::Template { name: config.name.clone(), why })?;
            files.insert(config.name.clone(), content);
        }
        let rendered = (!files.is_empty()).then_some((id, files));
        let links = links(&tree, bundle);
        let tables =
            bundle.handlers.iter().map(|h| (h.name.clone(), table(h, &tree, &places))).collect();
        Ok(Self { tree, rendered, links, tables })
    }
}

fn links(tree: &TreeId, bundle: &BundleConfig) -> BTreeMap<Link, String> {
    let link = |entry: &BundlePath| {
        let name = entry.as_str().to_owned();
        let target = format!("{}/{entry}", tree.relative());
        (Link { binary_path: tree.binary_path.clone(), name }, target)
    };
    bundle.entry_points.iter().map(link).collect()
}

fn table(handler: &Handler, tree: &TreeId, places: &Placeholders) -> HandlerTable {
    let mut options: Map<String, Value> = handler
        .options
        .iter()
        .map(|(key, value)| (key.clone(), places.expand_value(value)))
        .collect();
    if let Some(config) = &handler.config {
        options
            .insert("ConfigPath".to_owned(), Value::String(format!("{}/{config}", places.config)));
    }
    HandlerTable {
        runtime_type: handler.runtime_type.clone(),
        runtime_path: format!("{}/{}", tree.absolute(), handler.shim),
        options,
        pod_annotations: handler.pod_annotations.clone(),
        privileged_without_host_devices: handler.privileged_without_host_devices,
    }
}

/// The first 16 hex digits of the digest of the settings, written with sorted keys.
///
/// 64 bits: the few settings of one bundle on one node can't meet by chance.
pub fn settings_hash(settings: &Map<String, Value>) -> String {
    let mut text = String::new();
    canonical(&Value::Object(settings.clone()), &mut text);
    let mut hex = Digest::of(text.as_bytes()).hex();
    hex.truncate(16);
    hex
}

/// JSON with sorted keys and without spaces, whatever order the map keeps.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            text.push('{');
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String(key.clone()).to_string());
                text.push(':');
                canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                canonical(item, text);
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
    }
}

/// What the placeholders of a bundle stand for on this node.
#[derive(Debug)]
struct Placeholders {
    bundle: String,
    config: String,
    binary_path: String,
}

impl Placeholders {
    /// Replaces `{bundle}`, `{config}` and `{binaryPath}`; other braces stay.
    ///
    /// One pass: what was put in is not looked at again.
    fn expand(&self, text: &str) -> String {
        let known = [
            ("{bundle}", &self.bundle),
            ("{config}", &self.config),
            ("{binaryPath}", &self.binary_path),
        ];
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some((name, value)) = known.iter().find(|(name, _)| rest.starts_with(name)) {
                out.push_str(value);
                rest = &rest[name.len()..];
            } else {
                out.push('{');
                rest = &rest[1..];
            }
        }
        out.push_str(rest);
        out
    }

    fn expand_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.expand(text)),
            Value::Array(items) => items.iter().map(|item| self.expand_value(item)).collect(),
            Value::Object(map) => Value::Object(
                map.iter().map(|(key, value)| (key.clone(), self.expand_value(value))).collect(),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}
