//! The installer that was in a shoot before: while it can still write on a
//! node, its runtime type stays there as it is.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rootstock_core::assign::{Problem, Resolution};
use rootstock_core::name::{NodeName, RuntimeType, ShootName};
use rootstock_core::plan::inherited::RUNTIME;
use rootstock_core::status::Reason;

use super::Index;
use super::shoot::Shoot;

/// Where the gVisor extension's installers are in a shoot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Installer {
    /// Nowhere, for good.
    #[default]
    Gone,
    /// Nobody has looked yet.
    Unknown,
    /// They may be on any node, and why.
    Everywhere(String),
    /// On these nodes, and why.
    On(BTreeMap<NodeName, String>),
}

impl Installer {
    /// What keeps agents from a node, if something does.
    fn problem(&self, node: &NodeName) -> Option<Problem> {
        let why = match self {
            Self::Gone => return None,
            Self::Unknown => "it is not known yet whether the gVisor extension is there",
            Self::Everywhere(why) => why,
            Self::On(nodes) => nodes.get(node)?,
        };
        Some(Problem::new(Reason::TakeoverPending, why))
    }
}

/// What the types stand for on a node: one with an installer gets nothing of its type.
pub(super) fn gate<'a>(
    bundles: &'a BTreeMap<RuntimeType, Resolution>,
    installer: &Installer,
    node: &NodeName,
) -> Cow<'a, BTreeMap<RuntimeType, Resolution>> {
    let mut bundles = Cow::Borrowed(bundles);
    if let Some(problem) = installer.problem(node)
        && bundles.keys().any(|runtime| runtime.as_str() == RUNTIME)
    {
        for (runtime, resolution) in bundles.to_mut() {
            if runtime.as_str() == RUNTIME {
                *resolution = Resolution::Failed(problem.clone());
            }
        }
    }
    bundles
}

impl Shoot {
    /// Whether a ContainerRuntime of this type is there.
    pub(super) fn asks_for(&self, runtime: &str) -> bool {
        let claims = self.runtimes.values().filter_map(|runtime| runtime.claim.as_ref());
        claims.into_iter().any(|claim| claim.runtime.as_str() == runtime)
    }

    /// Whether nodes have to wait for a first look: in a moment it is known.
    pub(super) fn waits_for_installer(&self) -> bool {
        self.installer == Installer::Unknown && self.asks_for(RUNTIME)
    }
}

impl Index {
    /// Whether a shoot has a ContainerRuntime of this type.
    pub fn asks_for(&self, shoot: &ShootName, runtime: &str) -> bool {
        self.lock().shoots.get(shoot).is_some_and(|shoot| shoot.asks_for(runtime))
    }

    /// Where the installers of a shoot are, as it is known.
    #[cfg(test)]
    pub(crate) fn installer(&self, shoot: &ShootName) -> Installer {
        self.lock().shoots.get(shoot).map(|shoot| shoot.installer.clone()).unwrap_or_default()
    }

    /// Where the installers of a shoot are.
    pub fn put_installer(&self, shoot: &ShootName, installer: Installer) {
        let same = |known: &Shoot| known.installer == installer;
        if self.lock().shoots.get(shoot).is_some_and(same) {
            return;
        }
        self.change(shoot, |shoot| shoot.installer = installer);
    }
}
