//! What a rollout is decided by, besides what is recorded.

use std::collections::BTreeMap;

use super::record::{Command, Digests};
use super::strategy::Strategy;
use super::window::Weekly;
use crate::digest::Digest;
use crate::name::{Architecture, NodeName, RuntimeType, Uid};
use crate::status::{Phase, Reason};

/// One shoot, as it is known now.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// Whether its nodes have been listed. Until then nothing is decided: a
    /// node that is not listed yet would be taken for one that is gone.
    pub complete: bool,
    /// Whether somebody stopped every rollout of the seed.
    pub frozen: bool,
    /// The shoot's maintenance window, if it has one.
    pub maintenance: Option<&'a Weekly>,
    /// Its ContainerRuntimes, by name.
    pub tracks: BTreeMap<&'a str, Track<'a>>,
    /// Its nodes.
    pub nodes: Vec<Node<'a>>,
}

/// One ContainerRuntime: a type in a pool.
#[derive(Clone, Debug)]
pub struct Track<'a> {
    /// The type.
    pub runtime: &'a RuntimeType,
    /// How carefully it is rolled out.
    pub strategy: &'a Strategy,
    /// What the catalog's bundle is for each architecture that it is for;
    /// `None` where that is not known now. Empty when nothing is known.
    pub target: BTreeMap<Architecture, Option<Digest>>,
    /// What somebody asks for, as long as it is written on the resource.
    pub command: Option<Command>,
    /// Whether the resource is being deleted.
    pub deleting: bool,
    /// What other shoots made of it; `None` where there are no rings, as in a
    /// plain cluster: every bundle is open then.
    pub seed: Option<&'a Seed>,
}

/// What the seed says of a type's bundles to one shoot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seed {
    /// The digests of which something is said. Of others it is not known
    /// whether they are open, so they are not.
    pub digests: BTreeMap<Digest, Standing>,
    /// The bundle that has been through every ring.
    pub promoted: Digests,
    /// Whether nothing is said because what is recorded could not be read.
    pub unread: bool,
}

impl Seed {
    /// Whether it has been through every ring.
    pub(super) fn has_promoted(&self, digest: Digest) -> bool {
        self.promoted.values().any(|promoted| *promoted == digest)
    }
}

/// Whether a shoot may try a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It may.
    Open,
    /// Other shoots try it first. Nothing is known to work in any shoot, so where
    /// nothing is promoted and nothing runs yet it may be taken before: there is
    /// nothing safer, and nothing that it could break.
    First,
    /// Other shoots try it first.
    NotYet,
    /// It broke other shoots.
    Stopped,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// Its UID: another node of the same name is another node.
    pub uid: &'a Uid,
    /// Its pool: the nodes among which so many may be unavailable.
    pub pool: &'a str,
    /// Its architecture, where it is one that is known.
    pub architecture: Option<Architecture>,
    /// Whether Kubernetes says that it is ready.
    pub ready: bool,
    /// Whether it still has the taint `critical-components-not-ready`: nothing runs there yet.
    pub joining: bool,
    /// Whether it is on its way out: cordoned, terminating, to be deleted by
    /// the autoscaler, or updated in place.
    pub leaving: bool,
    /// Whether its agent is there.
    pub link: Link,
    /// Its runtimes: at most one of a type, with the resource that decides there.
    pub runtimes: Vec<OnNode<'a>>,
}

/// A node's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It has not come since this controller started, and still may: nobody
    /// knows what the node has. The caller bounds this time, and says
    /// [`Link::Away`] after it.
    Awaited,
    /// It is here and has said what the node has.
    Here,
    /// It is not here.
    Away {
        /// Whether the node was ready before. One that never was is no loss.
        was_ready: bool,
    },
}

/// One runtime on one node.
#[derive(Clone, Debug)]
pub struct OnNode<'a> {
    /// The name of the ContainerRuntime that decides.
    pub track: &'a str,
    /// What the node last said of the type. Of a node that is away this is its
    /// last word.
    pub report: Option<Said<'a>>,
    /// The bundle that lies on its disk in full, verified and not activated.
    pub fetched: Option<Digest>,
    /// Whether activating what it is to have restarts containerd; true where
    /// that is not known.
    pub restart: bool,
    /// What became of pods' sandboxes on the bundle that the report names.
    pub sandboxes: Sandboxes,
}

/// What a node says of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said<'a> {
    /// The bundle; none where nothing could be begun.
    pub digest: Option<Digest>,
    /// Where it is.
    pub phase: Phase,
    /// Why it is no further.
    pub reason: Option<Reason>,
    /// What exactly, for people.
    pub message: &'a str,
}

/// What became of pods' sandboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sandboxes {
    /// How many were started on the bundle since it was activated.
    pub started: u64,
    /// How many could not be started since then.
    pub failed: Rate,
    /// How many could not be started before, on what the node had then.
    pub failed_before: Rate,
}

/// So many in so many seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how many seconds.
    pub seconds: u32,
}

impl Rate {
    /// Whether it is more often than `other`. In the first minute nobody can
    /// tell how often something happens, so no less is counted.
    fn exceeds(self, other: Self) -> bool {
        let seconds = |rate: Self| u64::from(rate.seconds.max(60));
        u64::from(self.count) * seconds(other) > u64::from(other.count) * seconds(self)
    }
}

/// So few tries to start a sandbox that failed say nothing: what passes by itself does that.
const HICCUPS: u32 = 2;

impl Sandboxes {
    /// Whether more fail than before.
    pub fn failing(&self) -> bool {
        self.failed.count > HICCUPS && self.failed.exceeds(self.failed_before)
    }
}

/// What a node says of one digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Ready,
    /// It does not, and the bundle may be why.
    Failing(Reason),
    /// Something else is in its way.
    Held(Reason),
    /// It is on its way.
    Busy(Phase),
    /// Nothing.
    Nothing,
}

impl OnNode<'_> {
    /// What is said of a digest.
    pub fn verdict(&self, digest: Digest) -> Verdict {
        let Some(said) = &self.report else { return Verdict::Nothing };
        let concerns = match said.digest {
            Some(of) => of == digest,
            // What could not even be begun has no digest.
            None => said.phase.is_failure(),
        };
        if !concerns {
            return Verdict::Nothing;
        }
        let reason = said.reason.unwrap_or(Reason::Internal);
        match said.phase {
            Phase::Loaded | Phase::Proven if self.sandboxes.failing() => {
                Verdict::Failing(Reason::ProofFailed)
            }
            Phase::Loaded | Phase::Proven => Verdict::Ready,
            Phase::RolledBack | Phase::Degraded => Verdict::Failing(reason),
            Phase::Failed if is_of_the_bundle(reason) => Verdict::Failing(reason),
            Phase::Failed | Phase::Blocked | Phase::Unsupported => Verdict::Held(reason),
            Phase::Waiting
            | Phase::Pulling
            | Phase::Verified
            | Phase::Queued
            | Phase::Activating => Verdict::Busy(said.phase),
            // It goes, or has gone: it is not there.
            Phase::Removing | Phase::InUse | Phase::Removed => Verdict::Nothing,
        }
    }

    /// Whether it works with this digest.
    pub fn has(&self, digest: Digest) -> bool {
        self.verdict(digest) == Verdict::Ready
    }

    /// Whether it is being activated.
    pub(super) fn activates(&self, digest: Digest) -> bool {
        self.verdict(digest) == Verdict::Busy(Phase::Activating)
    }

    /// Whether containerd runs with this digest, whatever becomes of pods there.
    pub(super) fn runs(&self, digest: Digest) -> bool {
        self.report.is_some_and(|said| said.digest == Some(digest) && said.phase.is_ready())
    }

    /// Whether every byte of a digest is on the node's disk.
    pub(super) fn is_fetched(&self, digest: Digest) -> bool {
        let tried = || match self.verdict(digest) {
            Verdict::Ready | Verdict::Failing(_) => true,
            Verdict::Busy(phase) => {
                matches!(phase, Phase::Verified | Phase::Queued | Phase::Activating)
            }
            Verdict::Held(_) | Verdict::Nothing => false,
        };
        self.fetched == Some(digest) || tried()
    }
}

impl Node<'_> {
    /// Whether it belongs to what its pool offers: a node on which nothing runs
    /// yet, or that never was ready, is no loss when it is away.
    pub(super) fn counts(&self) -> bool {
        !self.joining && self.link != Link::Away { was_ready: false }
    }

    /// Whether it is unavailable, for whatever reason but a slot.
    pub(super) fn is_unavailable(&self) -> bool {
        let degraded = |on: &OnNode<'_>| on.report.is_some_and(|r| r.phase == Phase::Degraded);
        let away = matches!(self.link, Link::Away { .. });
        self.counts() && (self.leaving || !self.ready || away || self.runtimes.iter().any(degraded))
    }

    /// Whether its agent is here and it stays.
    pub(super) fn is_reachable(&self) -> bool {
        self.link == Link::Here && !self.leaving
    }
}

/// Whether it can be in the way of a bundle's bytes alone.
pub(super) fn is_of_the_pull(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::RegistryUnreachable
            | Reason::RegistryUnauthorized
            | Reason::BundleNotFound
            | Reason::DigestMismatch
            | Reason::SizeExceeded
            | Reason::Truncated
            | Reason::NoSpace
    )
}

/// Whether the bundle may be why nothing could be begun with it. A registry, a
/// disk, a setting or a node that is not fit for it says nothing of the bundle.
fn is_of_the_bundle(reason: Reason) -> bool {
    match reason {
        Reason::BundleInvalid
        | Reason::PathRefused
        | Reason::SignatureRefused
        | Reason::ContainerdStartFailed
        | Reason::HandlerMissing
        | Reason::ProofFailed
        | Reason::CrashLoop
        | Reason::DeadlineExceeded
        | Reason::Internal => true,
        Reason::TypeUnknown
        | Reason::BundlePending
        | Reason::RegistryUnreachable
        | Reason::RegistryUnauthorized
        | Reason::BundleNotFound
        | Reason::DigestMismatch
        | Reason::SizeExceeded
        | Reason::Truncated
        | Reason::BinaryPathRefused
        | Reason::ArchitectureMismatch
        | Reason::NoSpace
        | Reason::HostError
        | Reason::SelectorInvalid
        | Reason::ConfigurationInvalid
        | Reason::SettingsConflict
        | Reason::PreflightUnmet
        | Reason::ContainerdUnknown
        | Reason::ContainerdConfigForeignChange
        | Reason::ContainerdConfigInvalid
        | Reason::NodeUnreachable
        | Reason::AgentMissing
        | Reason::ShootUnreachable
        | Reason::GenerationOutdated
        | Reason::Hibernated
        | Reason::Paused
        | Reason::Halted
        | Reason::PodsRunning
        | Reason::TakeoverPending => false,
    }
}
