//! The words for where a rollout is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::rollout::progress::Phase;
use crate::rollout::record::Why;

/// Where a rollout is, or what it waits for: one CamelCase word in JSON.
///
/// What goes with some of them is beside it: [`super::Rollout::wave`],
/// [`super::Rollout::halt`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum RolloutPhase {
    /// [`Phase::Unread`]
    Unread,
    /// [`Phase::Deleting`]
    Deleting,
    /// [`Phase::Unknown`]
    Unknown,
    /// [`Phase::Idle`]
    Idle,
    /// [`Phase::Canary`]
    Canary,
    /// [`Phase::Soaking`]
    Soaking,
    /// [`Phase::Wave`]
    Wave,
    /// [`Phase::Halted`]
    Halted,
    /// [`Phase::Stopped`]
    Stopped,
    /// [`Phase::Paused`]
    Paused,
    /// [`Phase::Frozen`]
    Frozen,
    /// [`Phase::WaitingForRing`]
    WaitingForRing,
    /// [`Phase::WaitingForWindow`]
    WaitingForWindow,
    /// [`Phase::WaitingForNodes`]
    WaitingForNodes,
    /// [`Phase::Blocked`]
    Blocked,
    /// [`Phase::PromotedFails`]
    PromotedFails,
    /// A word of a newer controller.
    Other(String),
}

impl RolloutPhase {
    /// Every word that this version knows.
    pub const KNOWN: [Self; 16] = [
        Self::Unread,
        Self::Deleting,
        Self::Unknown,
        Self::Idle,
        Self::Canary,
        Self::Soaking,
        Self::Wave,
        Self::Halted,
        Self::Stopped,
        Self::Paused,
        Self::Frozen,
        Self::WaitingForRing,
        Self::WaitingForWindow,
        Self::WaitingForNodes,
        Self::Blocked,
        Self::PromotedFails,
    ];

    /// The word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unread => "Unread",
            Self::Deleting => "Deleting",
            Self::Unknown => "Unknown",
            Self::Idle => "Idle",
            Self::Canary => "Canary",
            Self::Soaking => "Soaking",
            Self::Wave => "Wave",
            Self::Halted => "Halted",
            Self::Stopped => "Stopped",
            Self::Paused => "Paused",
            Self::Frozen => "Frozen",
            Self::WaitingForRing => "WaitingForRing",
            Self::WaitingForWindow => "WaitingForWindow",
            Self::WaitingForNodes => "WaitingForNodes",
            Self::Blocked => "Blocked",
            Self::PromotedFails => "PromotedFails",
            Self::Other(word) => word,
        }
    }
}

impl From<Phase> for RolloutPhase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Unread => Self::Unread,
            Phase::Deleting => Self::Deleting,
            Phase::Unknown => Self::Unknown,
            Phase::Idle => Self::Idle,
            Phase::Canary => Self::Canary,
            Phase::Soaking { .. } => Self::Soaking,
            Phase::Wave { .. } => Self::Wave,
            Phase::Halted(_) => Self::Halted,
            Phase::Stopped => Self::Stopped,
            Phase::Paused => Self::Paused,
            Phase::Frozen => Self::Frozen,
            Phase::WaitingForRing => Self::WaitingForRing,
            Phase::WaitingForWindow => Self::WaitingForWindow,
            Phase::WaitingForNodes => Self::WaitingForNodes,
            Phase::Blocked => Self::Blocked,
            Phase::PromotedFails => Self::PromotedFails,
        }
    }
}

impl From<String> for RolloutPhase {
    fn from(word: String) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| known.as_str() == word);
        known.unwrap_or(Self::Other(word))
    }
}

impl From<RolloutPhase> for String {
    fn from(phase: RolloutPhase) -> Self {
        phase.as_str().to_owned()
    }
}

impl fmt::Display for RolloutPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a rollout halted: [`Why`] as a CamelCase word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HaltReason {
    /// [`Why::CanaryFailed`]
    CanaryFailed,
    /// [`Why::CanaryLost`]
    CanaryLost,
    /// [`Why::WaveFailed`]
    WaveFailed,
    /// [`Why::BudgetSpent`]
    BudgetSpent,
    /// [`Why::NothingBefore`]
    NothingBefore,
}

impl HaltReason {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CanaryFailed => "CanaryFailed",
            Self::CanaryLost => "CanaryLost",
            Self::WaveFailed => "WaveFailed",
            Self::BudgetSpent => "BudgetSpent",
            Self::NothingBefore => "NothingBefore",
        }
    }
}

impl From<Why> for HaltReason {
    fn from(why: Why) -> Self {
        match why {
            Why::CanaryFailed => Self::CanaryFailed,
            Why::CanaryLost => Self::CanaryLost,
            Why::WaveFailed => Self::WaveFailed,
            Why::BudgetSpent => Self::BudgetSpent,
            Why::NothingBefore => Self::NothingBefore,
        }
    }
}

impl fmt::Display for HaltReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
