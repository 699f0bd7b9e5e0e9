//! Who gets a certificate: the agent's Pod, for the node that it runs on.
//!
//! ```text
//!  limits ─▶ token readable? ─▶ request readable? ─▶ TokenReview ─▶ Pod and Node, live ─▶ sign
//! ```
//!
//! A token alone is not enough: it outlives its Pod by a minute, and any Pod
//! could be given the ServiceAccount's name by who may create Pods there. So
//! the Pod must exist now, on that node, and belong to the agent's DaemonSet.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{
    TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::PostParams;
use rootstock_core::name::{NodeName, ShootName, Uid};

use super::NodeId;
use super::ca::{self, Issued, NODE_LIFETIME, ShootCa, SignError};
use super::limit::Limiter;
use super::token::{self, AUDIENCE, SUBJECT, TokenError};

const NAMESPACE: &str = "kube-system";
const DAEMON_SET: &str = "rootstock-agent";
const EXTRA: &str = "authentication.kubernetes.io/";
/// How long one question to a shoot's API may take.
const API_TIMEOUT: Duration = Duration::from_secs(10);

/// Per shoot: a pool of 200 nodes may come at once; then 20 each second, which
/// is 60 requests to the shoot's API.
const SHOOT_BURST: u32 = 200;
const SHOOT_RATE: f64 = 20.0;
/// Per token, and so per agent: a restart loop is slowed down after 20.
const TOKEN_BURST: u32 = 20;
const TOKEN_RATE: f64 = 0.5;
/// Shoots on one seed and agents that enrol in the same minute, with room.
const KEYS: usize = 16 * 1024;

/// Checks who asks for a certificate, and signs it.
#[derive(Debug)]
pub struct Enroller {
    limits: Mutex<Limits>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Limits {
    shoots: Limiter<ShootName>,
    callers: Limiter<(ShootName, u64)>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Too many ask.
    #[error("too many certificates are asked for; try again in a few seconds")]
    RateLimited,
    /// The token can't be the agent's.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The certificate request can't be used.
    #[error(transparent)]
    Request(#[from] SignError),
    /// The shoot's API does not accept the token.
    #[error("the shoot's API does not accept the token")]
    TokenRefused,
    /// It accepts it for another audience.
    #[error("the shoot's API does not accept the token for audience rootstock")]
    TokenAudience,
    /// It is someone else's.
    #[error("the token is of {user:?}, not of ServiceAccount kube-system/rootstock-agent")]
    NotAgent {
        /// Whose it is.
        user: String,
    },
    /// It is not bound to a Pod and a Node.
    #[error(
        "the token does not name its {claim}; it has to be a projected token, and Kubernetes 1.30 or later"
    )]
    Unbound {
        /// What it lacks.
        claim: &'static str,
    },
    /// The Pod is not there (any more).
    #[error("Pod kube-system/{pod} of the token does not exist any more")]
    PodGone {
        /// The Pod.
        pod: NodeName,
    },
    /// The Pod is about to go.
    #[error("Pod kube-system/{pod} of the token is terminating")]
    PodTerminating {
        /// The Pod.
        pod: NodeName,
    },
    /// The Pod runs on another node than the token says.
    #[error("Pod kube-system/{pod} of the token does not run on node {node}")]
    PodElsewhere {
        /// The Pod.
        pod: NodeName,
        /// The node in the token.
        node: NodeName,
    },
    /// The Pod is not one of the agent's.
    #[error("Pod kube-system/{pod} of the token does not belong to DaemonSet rootstock-agent")]
    PodForeign {
        /// The Pod.
        pod: NodeName,
    },
    /// No Pod of the agent is left on the node.
    #[error("no Pod of DaemonSet kube-system/rootstock-agent runs on node {node} any more")]
    AgentGone {
        /// The node.
        node: NodeName,
    },
    /// The Node is not there (any more).
    #[error("node {node} does not exist any more")]
    NodeGone {
        /// The Node.
        node: NodeName,
    },
    /// The Node was made anew under the same name.
    #[error("node {node} is another one than the one that was vouched for")]
    NodeReplaced {
        /// The Node.
        node: NodeName,
    },
    /// The shoot's API does not let the controller ask.
    #[error("the controller may not {what} in the shoot yet; try again later")]
    ApiForbidden {
        /// What was asked.
        what: &'static str,
    },
    /// The shoot's API answers with an error, or not at all.
    #[error("the shoot's API could not {what}; try again later")]
    ApiFailed {
        /// What was asked.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The shoot's API took too long.
    #[error("the shoot's API did not {what} in time; try again later")]
    ApiSilent {
        /// What was asked.
        what: &'static str,
    },
}

/// A certificate, and for whom it was given.
#[derive(Debug)]
pub struct Enrolled {
    /// The node whose it is.
    pub node: NodeId,
    /// The agent's Pod that lives there at this moment.
    pub pod: Uid,
    /// The certificate.
    pub issued: Issued,
}

/// What a token that was accepted vouches for.
struct Bound {
    pod: NodeName,
    pod_uid: Uid,
    node: NodeName,
    node_uid: Option<Uid>,
}

impl Default for Enroller {
    fn default() -> Self {
        Self::new()
    }
}

impl Enroller {
    /// With the limits of a seed.
    pub fn new() -> Self {
        let limits = Limits {
            shoots: Limiter::new(SHOOT_BURST, SHOOT_RATE, KEYS),
            callers: Limiter::new(TOKEN_BURST, TOKEN_RATE, KEYS),
        };
        Self { limits: Mutex::new(limits), hasher: RandomState::new() }
    }

    /// Exchanges the token of an agent's Pod for a certificate of its node.
    /// `shoot` is a client of the shoot's own API.
    pub async fn enrol(
        &self,
        ca: &ShootCa,
        shoot: &kube::Client,
        token: &str,
        request: &[u8],
        now: Timestamp,
    ) -> Result<Enrolled, EnrolError> {
        token::precheck(token, now)?;
        self.pass(ca.shoot(), token)?;
        ca::public_key(request)?;
        let bound = bound(review(shoot, token).await?)?;
        let (pod, node) = tokio::try_join!(pod(shoot, &bound.pod), node_uid(shoot, &bound.node))?;
        check_pod(pod.as_ref(), &bound)?;
        let uid = check_node(node, &bound.node, bound.node_uid.as_ref())?;
        let node = NodeId { shoot: ca.shoot().clone(), name: bound.node, uid };
        let issued = ca.sign(request, &node, now, NODE_LIFETIME)?;
        Ok(Enrolled { node, pod: bound.pod_uid, issued })
    }

    /// Exchanges a certificate that is valid for a new one of the same node, if
    /// the node still exists. Whether the agent is still there is the caller's
    /// to know.
    pub async fn renew(
        &self,
        ca: &ShootCa,
        shoot: &kube::Client,
        node: &NodeId,
        request: &[u8],
        now: Timestamp,
    ) -> Result<Issued, EnrolError> {
        self.pass(ca.shoot(), node.uid.as_str())?;
        ca::public_key(request)?;
        check_node(node_uid(shoot, &node.name).await?, &node.name, Some(&node.uid))?;
        Ok(ca.sign(request, node, now, NODE_LIFETIME)?)
    }

    fn pass(&self, shoot: &ShootName, caller: &str) -> Result<(), EnrolError> {
        let now = Instant::now();
        // A hash, because a token must not be kept. The caller comes first: one
        // that repeats itself must not use up what its shoot has. And callers
        // of a shoot that has nothing left are not remembered: with made-up
        // tokens one shoot would fill the room of all.
        let caller = (shoot.clone(), self.hasher.hash_one(caller));
        let mut limits = self.limits();
        if limits.shoots.could_pass(shoot, now)
            && limits.callers.pass(caller, now)
            && limits.shoots.pass(shoot.clone(), now)
        {
            Ok(())
        } else {
            Err(EnrolError::RateLimited)
        }
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn review(shoot: &kube::Client, token: &str) -> Result<UserInfo, EnrolError> {
    let review = TokenReview {
        spec: TokenReviewSpec {
            audiences: Some(vec![AUDIENCE.to_owned()]),
            token: Some(token.to_owned()),
        },
        ..TokenReview::default()
    };
    let api = Api::<TokenReview>::all(shoot.clone());
    let status = ask("review tokens", api.create(&PostParams::default(), &review)).await?.status;
    let TokenReviewStatus { authenticated, audiences, user, error } = status.unwrap_or_default();
    if authenticated != Some(true) {
        // The API server's reason; it does not hold the token.
        tracing::debug!(error = error.as_deref().unwrap_or_default(), "token refused");
        return Err(EnrolError::TokenRefused);
    }
    // An API server that does not know audiences leaves them out.
    if !audiences.unwrap_or_default().iter().any(|audience| audience == AUDIENCE) {
        return Err(EnrolError::TokenAudience);
    }
    user.ok_or(EnrolError::TokenRefused)
}

fn bound(user: UserInfo) -> Result<Bound, EnrolError> {
    let name = user.username.unwrap_or_default();
    if name != SUBJECT {
        return Err(EnrolError::NotAgent { user: name.chars().take(200).collect() });
    }
    let extra = user.extra.unwrap_or_default();
    // The values become parts of URLs: they are parsed, not trusted.
    let claim = |claim: &'static str| match extra.get(&format!("{EXTRA}{claim}")).map(Vec::as_slice)
    {
        Some([value]) => Ok(value.as_str()),
        Some(_) | None => Err(EnrolError::Unbound { claim }),
    };
    let parsed = |name: &'static str| {
        claim(name)?.parse::<NodeName>().map_err(|_| EnrolError::Unbound { claim: name })
    };
    let uid = |name: &'static str| {
        claim(name)?.parse::<Uid>().map_err(|_| EnrolError::Unbound { claim: name })
    };
    let node_uid = extra.contains_key(&format!("{EXTRA}node-uid")).then(|| uid("node-uid"));
    Ok(Bound {
        pod: parsed("pod-name")?,
        pod_uid: uid("pod-uid")?,
        node: parsed("node-name")?,
        node_uid: node_uid.transpose()?,
    })
}

async fn pod(shoot: &kube::Client, name: &NodeName) -> Result<Option<Pod>, EnrolError> {
    let api = Api::<Pod>::namespaced(shoot.clone(), NAMESPACE);
    ask("read the agent's Pod", api.get_opt(name.as_str())).await
}

/// The UID of the Node of that name.
async fn node_uid(shoot: &kube::Client, name: &NodeName) -> Result<Option<Uid>, EnrolError> {
    let api = Api::<Node>::all(shoot.clone());
    let node = ask("read the Node", api.get_opt(name.as_str())).await?;
    // A UID that is none is as good as no Node.
    Ok(node.and_then(|node| node.metadata.uid?.parse().ok()))
}

fn check_pod(pod: Option<&Pod>, bound: &Bound) -> Result<(), EnrolError> {
    let name = || bound.pod.clone();
    let pod = pod
        .filter(|pod| pod.metadata.uid.as_deref() == Some(bound.pod_uid.as_str()))
        .ok_or_else(|| EnrolError::PodGone { pod: name() })?;
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(EnrolError::PodTerminating { pod: name() });
    }
    let runs_on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if runs_on != Some(bound.node.as_str()) {
        return Err(EnrolError::PodElsewhere { pod: name(), node: bound.node.clone() });
    }
    if is_the_agents(pod.metadata.owner_references.iter().flatten()) {
        Ok(())
    } else {
        Err(EnrolError::PodForeign { pod: name() })
    }
}

/// Whether these are the owners of a Pod of the agent's DaemonSet.
pub(crate) fn is_the_agents<'a>(mut owners: impl Iterator<Item = &'a OwnerReference>) -> bool {
    owners.any(|owner| {
        owner.controller == Some(true)
            && owner.api_version == "apps/v1"
            && owner.kind == "DaemonSet"
            && owner.name == DAEMON_SET
    })
}

fn check_node(
    found: Option<Uid>,
    node: &NodeName,
    expected: Option<&Uid>,
) -> Result<Uid, EnrolError> {
    let found = found.ok_or_else(|| EnrolError::NodeGone { node: node.clone() })?;
    if expected.is_some_and(|expected| *expected != found) {
        return Err(EnrolError::NodeReplaced { node: node.clone() });
    }
    Ok(found)
}

async fn ask<T>(
    what: &'static str,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, EnrolError> {
    match tokio::time::timeout(API_TIMEOUT, answer).await {
        Ok(Ok(value)) => Ok(value),
        // Its role or its token may not be there yet.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
            Err(EnrolError::ApiForbidden { what })
        }
        Ok(Err(source)) => Err(EnrolError::ApiFailed { what, source: Box::new(source) }),
        Err(_elapsed) => Err(EnrolError::ApiSilent { what }),
    }
}

#[cfg(test)]
mod tests;
