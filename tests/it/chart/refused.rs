//! Values that are refused, with a message that names them.

use super::support::Helm;

/// Flags of `helm template`, and words of the message.
const REFUSED: &[(&str, &[&str])] = &[
    ("controler.types={kata}", &["controler", "not allowed"]),
    ("controller.maxConcurrentReconcile=3", &["/controller", "maxConcurrentReconcile"]),
    ("controller.maxConcurrentReconciles=0", &["/controller/maxConcurrentReconciles", "minimum"]),
    ("controller.maxConcurrentReconciles=many", &["/controller/maxConcurrentReconciles", "string"]),
    ("controller.deletionTimeout=soon", &["/controller/deletionTimeout", "soon"]),
    ("controller.providerConfig=lenient", &["/controller/providerConfig", "'strict', 'warn'"]),
    ("controller.types={*,kata}", &["/controller/types"]),
    ("controller.classes={shot}", &["/controller/classes/0", "'shoot'"]),
    ("controller.binaryRoots={opt}", &["/controller/binaryRoots/0", "opt"]),
    ("cluster=plain", &["/cluster", "'seed', 'local'"]),
    ("replicas=9", &["/replicas", "maximum"]),
    ("controller.leaseDuration=2s", &["/controller/leaseDuration", "2s"]),
    ("image.repository=r.example/a:1", &["/image/repository", "r.example/a:1"]),
    ("ports.agents=443", &["/ports/agents", "minimum"]),
    ("ports.admin=8443", &["ports.agents and ports.admin", "8443"]),
    ("service.type=Loadbalancer", &["/service/type", "'LoadBalancer'"]),
    ("endpoint.ingress=nginx", &["/endpoint/ingress", "'istio', 'none'"]),
    ("agentProxy.url=https://proxy.example", &["/agentProxy/url", "proxy.example"]),
    ("agentProxy.except={a b}", &["/agentProxy/except/0"]),
    ("log.format=yaml", &["/log/format"]),
    ("vpa.updateMode=Sometimes", &["/vpa/updateMode"]),
    ("config.registry=x", &["/config", "registry"]),
    ("config.budgets.seed=fast", &["/config/budgets/seed", "fast"]),
    ("config.registries[0].name=main", &["/config/registries/0", "url"]),
    ("config.runtimes[0].type=gvisor", &["/config/runtimes/0", "bundle"]),
    ("config.runtimes[0].type=kata,config.runtimes[0].bundle=main/x", &["/runtimes/0/bundle"]),
    (
        "config.runtimes[0].type=kata,config.runtimes[0].bundle=main/x:1",
        &["the bundle of \"kata\" names the registry \"main\""],
    ),
    ("cluster=local,gardener.version=v1", &["cluster: local", "Gardener"]),
];

#[test]
fn a_plain_cluster_is_not_in_the_namespace_of_a_shoot() {
    let Some(helm) = Helm::find() else { return };
    let said = helm.template(&["--set=cluster=local", "--namespace=shoot--a"]).unwrap_err();
    assert!(said.contains("\"shoot--a\" begins as those of shoots do"), "{said}");
    helm.template(&["--namespace=shoot--a"]).unwrap();
}

#[test]
fn a_wrong_value_is_refused_by_name() {
    let Some(helm) = Helm::find() else { return };
    for (values, words) in REFUSED {
        let said = helm.template(&["--set", values]).expect_err(values);
        for word in *words {
            assert!(said.contains(word), "{values}: {word:?} is not in: {said}");
        }
    }
}
