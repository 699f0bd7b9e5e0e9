//! Of which RuntimeClass a Pod is: asked once for each, and slowly.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kube::Client;
use kube::api::{GetParams, Request};
use rootstock_core::name::{NodeName, Uid};
use rootstock_daemon::error::Chain;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until, timeout};

use super::Failure;

/// The Pods of one shoot that are remembered.
const MAX_PODS: usize = 4096;
/// The pause between two requests, of which one is under way at most.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the shoot's API may take for one.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of Pods. A Pod's node and class never change once it has a node.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// None for one that is gone, or on no node.
    known: BTreeMap<Uid, Option<Known>>,
    /// Their order, oldest first.
    order: VecDeque<Uid>,
    asked: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    node: NodeName,
    class: Option<String>,
}

/// What is read of a Pod.
#[derive(Clone, Debug, Deserialize)]
struct Pod {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Meta {
    uid: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
    runtime_class_name: Option<String>,
}

impl Pods {
    /// The RuntimeClass of the Pod whose sandbox failed. None where it has none,
    /// is gone, is on another node, or could not be asked for.
    pub(super) async fn class_of(&mut self, client: &Client, failure: &Failure) -> Option<String> {
        if !self.known.contains_key(&failure.uid) {
            if let Some(asked) = self.asked {
                sleep_until(asked + PAUSE).await;
            }
            self.asked = Some(Instant::now());
            let known = match timeout(PATIENCE, ask(client, failure)).await {
                Ok(Ok(known)) => known,
                Ok(Err(error)) => {
                    tracing::debug!(pod = failure.pod, error = %Chain(&error), "a Pod can't be read");
                    return None;
                }
                Err(late) => {
                    tracing::debug!(pod = failure.pod, error = %Chain(&late), "a Pod can't be read");
                    return None;
                }
            };
            self.remember(failure.uid.clone(), known);
        }
        let known = self.known.get(&failure.uid)?.as_ref()?;
        known.class.clone().filter(|_| known.node == failure.node)
    }

    fn remember(&mut self, uid: Uid, known: Option<Known>) {
        if self.order.len() >= MAX_PODS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(uid.clone());
        self.known.insert(uid, known);
    }
}

async fn ask(client: &Client, failure: &Failure) -> Result<Option<Known>, kube::Error> {
    let pods = format!("/api/v1/namespaces/{}/pods", failure.namespace);
    let request = Request::new(pods)
        .get(&failure.pod, &GetParams::default())
        .map_err(kube::Error::BuildRequest)?;
    match client.request::<Pod>(request).await {
        Ok(pod) => Ok(pod.into_known(&failure.uid)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

impl Pod {
    /// None of another Pod of the same name.
    fn into_known(self, uid: &Uid) -> Option<Known> {
        let Self { metadata, spec } = self;
        let node = spec.node_name?.parse().ok()?;
        (metadata.uid.as_deref() == Some(uid.as_str()))
            .then_some(Known { node, class: spec.runtime_class_name })
    }
}

/// Whether it is a name of a Pod or a namespace, as Kubernetes has them: an
/// Event may say anything, and this becomes part of a path.
pub(super) fn is_name(name: &str) -> bool {
    let may = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    (1..=253).contains(&name.len())
        && name.bytes().all(may)
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_pods_than_that_are_remembered() {
        let mut pods = Pods::default();
        for n in 0..MAX_PODS + 3 {
            pods.remember(format!("p{n}").parse().unwrap(), None);
        }
        assert_eq!((pods.known.len(), pods.order.len()), (MAX_PODS, MAX_PODS));
        assert!(!pods.known.contains_key(&"p2".parse::<Uid>().unwrap()));
    }

    #[test]
    fn names_are_those_of_kubernetes() {
        for (name, is) in
            [("a-1.b", true), ("", false), ("..", false), ("a/b", false), ("A", false)]
        {
            assert_eq!(is_name(name), is, "{name}");
        }
    }
}
