//! Who wrote what, in the order in which it was written.

use super::rbac::User;
use super::request::{Request, Verb};

/// One write that the API has carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Who.
    pub user: String,
    /// Verb and resource, as `patch nodes/status`.
    pub what: String,
    /// Namespace and name, as far as the request names them.
    pub object: String,
}

impl Audited {
    /// Nothing of a request that only reads, or asks the API to judge.
    pub(super) fn new(user: &User, request: &Request) -> Option<Self> {
        if matches!(request.verb, Verb::Get | Verb::List | Verb::Watch)
            || request.target.kind.review
        {
            return None;
        }
        let target = &request.target;
        let parts = [target.namespace.as_deref(), target.name.as_deref()];
        Some(Self {
            user: user.name.clone(),
            what: format!("{} {}", request.verb.as_str(), target.resource()),
            object: parts.into_iter().flatten().collect::<Vec<_>>().join("/"),
        })
    }
}
