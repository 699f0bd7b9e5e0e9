//! The Kubernetes API, as far as it is asked.

use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config};
use serde_json::json;

use crate::args::Connection;
use crate::error::Error;

/// What somebody asks of a rollout.
pub(crate) const ROLLOUT: &str = "rootstock.gardener.cloud/rollout";

/// How long one answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// So many resources are listed at once.
const PAGE: u32 = 500;

/// A client by the user's kubeconfig, or by a Pod's ServiceAccount where there is none.
///
/// # Errors
/// [`Error::Kubeconfig`] and [`Error::Plugin`]; nothing is asked of the cluster.
pub async fn client(connection: &Connection) -> Result<Client, Error> {
    let path = || connection.kubeconfig.clone();
    let refused = |source| Error::Kubeconfig { path: path(), source };
    let options =
        KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
    let mut config = match &connection.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|e| refused(e.into()))?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await
        }
        None if options.context.is_some() => Config::from_kubeconfig(&options).await,
        None => Ok(Config::infer().await.map_err(|e| refused(e.into()))?),
    }
    .map_err(|e| refused(e.into()))?;
    config.connect_timeout = Some(Duration::from_secs(10));
    // An exec plugin is run here, and again when its token is about to expire.
    Client::try_from(config).map_err(|error| Error::of_kubeconfig(path(), error))
}

/// Which ContainerRuntimes.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    /// Those of a namespace.
    Namespace(String),
    /// All.
    All,
}

impl Scope {
    pub(crate) fn new(client: &Client, all: bool, namespace: Option<&str>) -> Self {
        if all {
            return Self::All;
        }
        Self::Namespace(namespace.unwrap_or_else(|| client.default_namespace()).to_owned())
    }

    pub(crate) fn runtimes(&self, client: &Client) -> Api<DynamicObject> {
        let gvk =
            GroupVersionKind::gvk("extensions.gardener.cloud", "v1alpha1", "ContainerRuntime");
        let resource = ApiResource::from_gvk(&gvk);
        match self {
            Self::All => Api::all_with(client.clone(), &resource),
            Self::Namespace(name) => Api::namespaced_with(client.clone(), name, &resource),
        }
    }

    /// Where, as the end of a message.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::All => "in any namespace".to_owned(),
            Self::Namespace(name) => format!("in namespace {name}"),
        }
    }
}

/// All ContainerRuntimes of a scope.
pub(crate) async fn list(client: &Client, scope: &Scope) -> Result<Vec<DynamicObject>, Error> {
    let runtimes = scope.runtimes(client);
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let refused = |error| Error::of_request(listing(scope), error);
        let page = in_time(runtimes.list(&params), || listing(scope)).await?.map_err(refused)?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(found),
        }
    }
}

/// What listing a scope is called in messages.
pub(crate) fn listing(scope: &Scope) -> String {
    format!("list ContainerRuntimes {}", scope.in_words())
}

/// One ContainerRuntime of a namespace.
pub(crate) async fn get(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<DynamicObject, Error> {
    let runtimes = Scope::Namespace(namespace.to_owned()).runtimes(client);
    let doing = || format!("read ContainerRuntime {namespace}/{name}");
    let answer = in_time(runtimes.get(name), doing).await?;
    answer.map_err(|error| of_one(error, namespace, name, doing()))
}

/// Asks something of a rollout: one annotation, and nothing else.
pub(crate) async fn annotate(
    client: &Client,
    namespace: &str,
    name: &str,
    verb: &str,
    dry_run: bool,
) -> Result<(), Error> {
    let runtimes = Scope::Namespace(namespace.to_owned()).runtimes(client);
    let doing = || format!("annotate ContainerRuntime {namespace}/{name} with {ROLLOUT}={verb}");
    let patch = Patch::Merge(json!({"metadata": {"annotations": {(ROLLOUT): verb}}}));
    let params = PatchParams { dry_run, ..PatchParams::apply("rootstock") };
    let answer = in_time(runtimes.patch(name, &params, &patch), doing).await?;
    answer.map(drop).map_err(|error| of_one(error, namespace, name, doing()))
}

async fn in_time<T>(
    request: impl Future<Output = T>,
    doing: impl Fn() -> String,
) -> Result<T, Error> {
    let silent = |_| Error::Silent { doing: doing(), seconds: PATIENCE.as_secs() };
    tokio::time::timeout(PATIENCE, request).await.map_err(silent)
}

/// A server names the object that is not there, and names none where it does
/// not know the kind.
fn of_one(error: kube::Error, namespace: &str, name: &str, doing: String) -> Error {
    if let kube::Error::Api(status) = &error
        && status.code == 404
        && status.details.as_ref().is_some_and(|about| !about.name.is_empty())
    {
        return Error::NotFound { namespace: namespace.to_owned(), name: name.to_owned() };
    }
    Error::of_request(doing, error)
}
