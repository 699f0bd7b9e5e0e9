//! The way from a shoot's nodes to the controller: through the seed's Istio.
//!
//! ```text
//!  node ─▶ load balancer ─▶ ingress gateway ─by the handshake's server name─▶ the controller's Service
//!                             └ Gateway, VirtualService: in each shoot's namespace
//! ```
//!
//! TLS passes through unbroken, so the controller sees the agent's certificate
//! and nobody between the two can read or speak. How the gateway treats these
//! connections is a DestinationRule beside the Service, in the chart: Istio
//! looks for it where the client and the Service are and nowhere else.

use std::collections::BTreeMap;

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};

/// The name of the objects: one of each in a shoot's namespace.
pub(crate) const NAME: &str = "rootstock-agent";
/// Gardener's Gateway for the shoot's API server: it knows which of the seed's
/// ingress gateways is the shoot's.
pub(super) const API_SERVER: &str = "kube-apiserver";
const GROUP: &str = "networking.istio.io";
/// The version that Gardener uses.
const VERSION: &str = "v1beta1";
/// The port at which ingress gateways let TLS through.
const PORT: u16 = 443;

/// Where routes lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    host: String,
    port: u16,
}

impl Backend {
    /// A port of a Service.
    pub(crate) fn new(service: &str, namespace: &str, port: u16) -> Self {
        Self { host: format!("{service}.{namespace}.svc.cluster.local"), port }
    }
}

/// One of Istio's kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What an ingress gateway lets in.
    Gateway,
    /// And where it goes.
    VirtualService,
}

impl Kind {
    /// All that a route is made of.
    pub(super) const ALL: [Self; 2] = [Self::Gateway, Self::VirtualService];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "Gateway",
            Self::VirtualService => "VirtualService",
        }
    }

    pub(super) fn resource(self) -> ApiResource {
        let plural = match self {
            Self::Gateway => "gateways",
            Self::VirtualService => "virtualservices",
        };
        let kind = GroupVersionKind::gvk(GROUP, VERSION, self.name());
        ApiResource::from_gvk_with_plural(&kind, plural)
    }

    /// What the object of this kind says for a shoot's host.
    pub(super) fn spec(
        self,
        host: &str,
        selector: &BTreeMap<String, String>,
        backend: &Backend,
    ) -> Value {
        match self {
            Self::Gateway => json!({
                "selector": selector,
                "servers": [{
                    "hosts": [host],
                    "port": {"name": "tls", "number": PORT, "protocol": "TLS"},
                    "tls": {"mode": "PASSTHROUGH"},
                }],
            }),
            Self::VirtualService => json!({
                // The gateway is in another namespace, and nothing is shown to
                // others by default.
                "exportTo": ["*"],
                "gateways": [NAME],
                "hosts": [host],
                "tls": [{
                    "match": [{"port": PORT, "sniHosts": [host]}],
                    "route": [{"destination": {
                        "host": backend.host, "port": {"number": backend.port},
                    }}],
                }],
            }),
        }
    }
}

/// The Pods of the ingress gateway that is the shoot's: those that serve its
/// API server, else the seed's own.
pub(super) fn selector(api_server: Option<&DynamicObject>) -> BTreeMap<String, String> {
    let theirs = api_server.and_then(|gateway| gateway.data.pointer("/spec/selector"));
    let theirs = theirs.and_then(|labels| serde_json::from_value(labels.clone()).ok());
    theirs.filter(|labels: &BTreeMap<_, _>| !labels.is_empty()).unwrap_or_else(|| {
        let own = [("app", "istio-ingressgateway"), ("istio", "ingressgateway")];
        own.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    })
}

/// By what people find the objects.
pub(super) fn labels() -> BTreeMap<String, String> {
    let labels = [("app.kubernetes.io/name", NAME), ("app.kubernetes.io/part-of", "rootstock")];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(selector: Value) -> DynamicObject {
        let mut gateway = DynamicObject::new(API_SERVER, &Kind::Gateway.resource());
        gateway.data = json!({"spec": {"selector": selector}});
        gateway
    }

    #[test]
    fn the_gateway_is_the_one_of_the_shoots_api_server() {
        let own = json!({"app": "istio-ingressgateway", "istio": "ingressgateway"});
        let zonal = json!({"app": "istio-ingressgateway", "istio": "ingressgateway--zone--a"});
        let table = [
            (None, &own),
            (Some(zonal.clone()), &zonal),
            (Some(json!({})), &own),
            (Some(json!(null)), &own),
            (Some(json!({"istio": 1})), &own),
        ];
        for (there, want) in table {
            let gateway = there.clone().map(gateway);
            assert_eq!(json!(selector(gateway.as_ref())), *want, "{there:?}");
        }
    }

    #[test]
    fn tls_passes_through_to_the_controllers_service() {
        let backend = Backend::new("rootstock-controller", "extension-rootstock-x", 8443);
        let host = "rs-garden--one.ingress.seed.example";
        let spec = |kind: Kind| kind.spec(host, &selector(None), &backend);
        assert_eq!(
            spec(Kind::Gateway),
            json!({
                "selector": {"app": "istio-ingressgateway", "istio": "ingressgateway"},
                "servers": [{
                    "hosts": ["rs-garden--one.ingress.seed.example"],
                    "port": {"number": 443, "name": "tls", "protocol": "TLS"},
                    "tls": {"mode": "PASSTHROUGH"},
                }],
            })
        );
        assert_eq!(
            spec(Kind::VirtualService),
            json!({
                "exportTo": ["*"],
                "hosts": ["rs-garden--one.ingress.seed.example"],
                "gateways": ["rootstock-agent"],
                "tls": [{
                    "match": [{"port": 443, "sniHosts": ["rs-garden--one.ingress.seed.example"]}],
                    "route": [{"destination": {
                        "host": "rootstock-controller.extension-rootstock-x.svc.cluster.local",
                        "port": {"number": 8443},
                    }}],
                }],
            })
        );
    }

    #[test]
    fn the_paths_are_istios() {
        let urls = Kind::ALL.map(|kind| kind.resource());
        let urls = urls.map(|kind| format!("{}/{}/{}", kind.api_version, kind.plural, kind.kind));
        let want = ["gateways/Gateway", "virtualservices/VirtualService"];
        assert_eq!(urls, want.map(|path| format!("networking.istio.io/v1beta1/{path}")));
    }
}
