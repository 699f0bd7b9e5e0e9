//! The state that each line of the journal holds.

use std::collections::{BTreeMap, BTreeSet};

use rootstock_core::desired::DesiredBundle;
use rootstock_core::digest::Digest;
use rootstock_core::layout::{HandlerTable, RenderedId, TreeId, settings_hash};
use rootstock_core::name::{HandlerName, RuntimeType};
use rootstock_core::path::BinaryPath;
use rootstock_core::status::Reason;
use serde::{Deserialize, Serialize};

use super::VERSION;
use crate::rootfs::Note;

/// The state after one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub(crate) version: u32,
    /// Milliseconds since 1970, for people.
    #[serde(default)]
    pub at: u64,
    /// The step that this line was written for.
    pub step: Step,
    /// The folders of files that were begun or made.
    #[serde(default)]
    pub trees: Vec<TreeRecord>,
    /// The folders of config files that were begun or made.
    #[serde(default)]
    pub rendered: BTreeSet<RenderedId>,
    /// The handlers whose tables in containerd's configuration are ours.
    #[serde(default)]
    pub owned: BTreeMap<HandlerName, RuntimeType>,
    /// An activation whose health is not proven yet.
    #[serde(default)]
    pub activation: Option<Activation>,
    /// What containerd started with, as far as this agent saw it start.
    #[serde(default)]
    pub loaded: Option<Loaded>,
    /// containerd's configuration as this agent wrote it last, or was about to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
    /// The tables of others that made room for ours, as text, to put them back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replaced: BTreeMap<HandlerName, String>,
    /// What containerd's configuration was when ours took its place last. The
    /// file stays beside it for a while: whoever had it open may still write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub displaced: Option<Digest>,
    /// The tables with which a pod sandbox was started.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub proven: BTreeMap<HandlerName, HandlerTable>,
    /// Bundles that were tried here and taken back; they are not tried again
    /// until the bundle or the node is another one, or someone says so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<RuntimeType, Rejected>,
    /// What was in place and changed by others, and put right since.
    #[serde(default, skip_serializing_if = "Drift::is_none")]
    pub drift: Drift,
    /// The files of the gVisor extension that go when nothing uses them, by
    /// their path on the node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inherited: BTreeMap<String, Note>,
}

/// A step, as a word for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// The agent's first line on this node.
    Begin,
    /// Folders are about to be filled.
    Install,
    /// Tables and links are about to change, and containerd to restart.
    Activate,
    /// Tables and links are about to change, without a restart.
    Change,
    /// The change is in place, and containerd is healthy with it.
    Settled,
    /// The change is about to be taken back.
    RollBack,
    /// Folders are about to be deleted.
    Collect,
    /// Folders were deleted.
    Collected,
}

/// A folder of files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRecord {
    /// Which.
    #[serde(flatten)]
    pub id: TreeId,
    /// The bundle's version, for people.
    pub version: String,
    /// The handlers that lead into it.
    pub handlers: BTreeSet<HandlerName>,
}

/// An activation that began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Activation {
    /// Which start of containerd it began under.
    pub start: String,
    /// The handlers that it is for.
    pub handlers: BTreeSet<HandlerName>,
    /// What was before it, to be put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// Why it is being taken back, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
}

/// What was before an activation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    /// containerd's configuration, in `previous.toml`; none where there was no file.
    pub config: Option<Digest>,
    /// Whose the tables were.
    pub owned: BTreeMap<HandlerName, RuntimeType>,
    /// The links that were changed, by their path on the node, and where they
    /// led; none where there was no link.
    pub links: BTreeMap<String, Option<String>>,
    /// The node, as far as it matters to a runtime.
    #[serde(default)]
    pub node: String,
    /// The bundles that the activation is about.
    pub bundles: BTreeMap<RuntimeType, BundleKey>,
}

/// One bundle with its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleKey {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The digest of its settings.
    pub settings: String,
}

impl BundleKey {
    /// That of a desired bundle.
    pub fn of(bundle: &DesiredBundle) -> Self {
        Self { digest: bundle.digest, settings: settings_hash(&bundle.settings) }
    }
}

/// Why an activation is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The reason that users see.
    pub reason: Reason,
    /// What was seen, with the last lines of the unit's journal.
    pub message: String,
    /// The types whose fault it is.
    pub types: BTreeSet<RuntimeType>,
}

/// A bundle that was tried and taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Which.
    #[serde(flatten)]
    pub bundle: BundleKey,
    /// On what node, as far as it matters to a runtime.
    pub node: String,
    /// The reason that users see.
    pub reason: Reason,
    /// What was seen.
    pub message: String,
    /// Whether what was before is back.
    pub back: bool,
}

/// What others changed and the agent put right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// How often.
    pub repaired: u64,
    /// What it was the last time.
    pub last: String,
}

impl Drift {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What containerd started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Which start.
    pub start: String,
    /// Our tables at that moment.
    pub tables: BTreeMap<HandlerName, HandlerTable>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            version: VERSION,
            at: 0,
            step: Step::Begin,
            trees: Vec::new(),
            rendered: BTreeSet::new(),
            owned: BTreeMap::new(),
            activation: None,
            loaded: None,
            config: None,
            displaced: None,
            proven: BTreeMap::new(),
            rejected: BTreeMap::new(),
            drift: Drift::default(),
            replaced: BTreeMap::new(),
            inherited: BTreeMap::new(),
        }
    }
}

impl Record {
    /// The binaryPaths in which something of ours may be.
    pub fn binary_paths(&self) -> BTreeSet<BinaryPath> {
        let trees = self.trees.iter().map(|tree| tree.id.binary_path.clone());
        trees.chain(self.rendered.iter().map(|id| id.tree.binary_path.clone())).collect()
    }

    /// Adds a tree or brings its record up to date.
    pub fn put_tree(&mut self, tree: TreeRecord) {
        self.trees.retain(|there| there.id != tree.id);
        self.trees.push(tree);
        self.trees.sort_by(|a, b| a.id.cmp(&b.id));
    }
}
