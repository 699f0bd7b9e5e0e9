//! What a user writes into `spec.providerConfig`, as settings of a runtime.
//!
//! ```text
//!  spec.providerConfig ─▶ read ─▶ Given ─▶ check, by the bundle's declaration ─▶ Checked
//!                          │                 │
//!        strict: Refused ◀─┴─────────────────┤
//!        warn:   passed over, and said ◀─────┘
//! ```
//!
//! Two forms are understood. [`GVISOR_KIND`] is the gVisor extension's own: its
//! flags are texts. [`RUNTIME_KIND`] is for every runtime. Which settings there
//! are is for the bundle to say, so a new runtime needs no code here, and as
//! long as the bundle is not known nothing can be wrong with a setting.

mod check;
mod read;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::rollout::strategy::StrategySpec;

pub use read::read;

/// The group and version of the gVisor extension's form.
pub const GVISOR_API: &str = "gvisor.runtime.extensions.config.gardener.cloud/v1alpha1";
/// The kind of the gVisor extension's form, for the type `gvisor` alone.
pub const GVISOR_KIND: &str = "GVisorConfiguration";
/// The group and version of the form for every runtime.
pub const RUNTIME_API: &str = "rootstock.gardener.cloud/v1alpha1";
/// The kind of the form for every runtime.
pub const RUNTIME_KIND: &str = "RuntimeConfiguration";

/// The most bytes of names and texts in one providerConfig. Real ones have 200.
pub const MAX_SIZE: usize = 64 * 1024;
/// The longest text that a setting may have, in bytes: a path's length.
pub const MAX_TEXT: usize = 4096;
/// How long an error may become by naming a second wrong thing, in bytes. It is
/// held for each node.
const MAX_ERROR: usize = 1024;

/// What becomes of fields, flags and values that a runtime does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// They are refused.
    #[default]
    Strict,
    /// They are passed over, and named.
    Warn,
}

/// The form that settings were written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// [`RUNTIME_KIND`]: values as they are.
    #[default]
    Runtime,
    /// [`GVISOR_KIND`]: values as texts.
    GVisor,
}

impl Form {
    /// The field of a setting.
    fn field(self, name: &str) -> String {
        let of = match self {
            Self::Runtime => "settings",
            Self::GVisor => "configFlags",
        };
        format!("spec.providerConfig.{of}[{:?}]", crate::name::cut(name))
    }
}

/// One thing in a providerConfig that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{field} is {value}: {why}")]
pub struct PassedOver {
    /// The field.
    pub field: String,
    /// Its value, cut.
    pub value: String,
    /// Why not, and what is allowed.
    pub why: String,
}

/// A providerConfig that is refused: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub Vec<PassedOver>);

impl std::error::Error for Refused {}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        for (at, wrong) in self.0.iter().enumerate() {
            let wrong = wrong.to_string();
            if at > 0 && text.len() + wrong.len() > MAX_ERROR {
                return write!(f, "{text}; and {} more", self.0.len() - at);
            }
            text.push_str(if at > 0 { "; " } else { "" });
            text.push_str(&wrong);
        }
        f.write_str(&text)
    }
}

/// The settings that a user gave, to be checked when the bundle is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// The settings by name, as they were written.
    pub settings: Map<String, Value>,
    /// How the runtime is rolled out, over what the catalog says.
    pub strategy: Option<StrategySpec>,
    /// What was passed over already.
    pub passed_over: Vec<PassedOver>,
    /// The form that they were written in.
    pub form: Form,
    /// What becomes of those that the bundle does not know.
    pub how: How,
}

/// Settings that a bundle takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checked {
    /// The settings by name. Those that write nothing are left out: who asks
    /// for nothing in other words asks for the same.
    pub settings: Map<String, Value>,
    /// What the bundle does not know.
    pub passed_over: Vec<PassedOver>,
}

/// What was found wrong so far.
#[derive(Debug)]
struct Notes {
    how: How,
    refused: Vec<PassedOver>,
    passed_over: Vec<PassedOver>,
}

impl Notes {
    fn new(how: How) -> Self {
        Self { how, refused: Vec::new(), passed_over: Vec::new() }
    }

    /// Something that can't be understood: refused in any case.
    fn refuse(&mut self, field: impl Into<String>, value: String, why: impl Into<String>) {
        self.refused.push(PassedOver { field: field.into(), value, why: why.into() });
    }

    /// Something that is not known: refused or passed over.
    fn pass_over(&mut self, field: impl Into<String>, value: String, why: impl Into<String>) {
        let wrong = PassedOver { field: field.into(), value, why: why.into() };
        match self.how {
            How::Strict => self.refused.push(wrong),
            How::Warn => self.passed_over.push(wrong),
        }
    }

    /// What is passed over, if nothing is refused; in one order, whatever order
    /// a map keeps.
    fn end(mut self) -> Result<Vec<PassedOver>, Refused> {
        self.refused.sort();
        self.passed_over.sort();
        if self.refused.is_empty() { Ok(self.passed_over) } else { Err(Refused(self.refused)) }
    }
}

/// A value for people, cut. JSON escapes what would break a line.
fn shown(value: &Value) -> String {
    crate::name::cut(&value.to_string())
}
