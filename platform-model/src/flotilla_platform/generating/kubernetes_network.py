"""Who may talk to whom on Kubernetes: nobody, except what is here.

    ingress controller ─▶ web-bff        everybody ─▶ DNS, NATS        who keeps or reads ─▶ PostgreSQL
    Prometheus ─▶ every admin port

Services never call each other directly, only over the broker: what a policy allows there is in the
broker's configuration. A server outside of the cluster is reached at its `networks`.
"""

from collections.abc import Sequence

from flotilla_platform.generating.kubernetes import NAME, PART_OF, PLATFORM, Spec, kind
from flotilla_platform.generating.running import Runs
from flotilla_platform.model import Layout, Resource

NAMESPACE = "kubernetes.io/metadata.name"
CLUSTER_DNS = {NAMESPACE: "kube-system"}


def platform_policies() -> dict[str, Spec]:
    """Return what holds for every pod of the namespace: nothing is allowed but to ask for names."""
    ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    dns = {
        "to": [
            {
                "namespaceSelector": {"matchLabels": CLUSTER_DNS},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": ports,
    }
    both = ["Ingress", "Egress"]
    everybody: Spec = {"podSelector": {}}
    named = {"podSelector": {"matchLabels": {PART_OF: PLATFORM}}}
    return {
        "deny-all": _policy("deny-all", everybody | {"policyTypes": both}),
        "allow-dns": _policy("allow-dns", named | {"policyTypes": ["Egress"], "egress": [dns]}),
    }


def deployable_policy(layout: Layout, one: Runs) -> Spec:
    """Return what a deployable may: to be scraped, to be asked if it listens, its servers."""
    cluster = layout.topology.cluster
    prometheus = _namespace(cluster.monitoring_namespace)
    ingress = [_rule("from", [prometheus], one.deployable.admin_port)]
    if one.deployable.http_port:
        controller = _namespace(cluster.ingress_namespace)
        ingress.insert(0, _rule("from", [controller], one.deployable.http_port))
    store, bus = layout.resources
    egress = [_to(bus)] + ([_to(store)] if one.uses_store else [])
    spec = {
        "podSelector": {"matchLabels": {NAME: one.name}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": egress,
    }
    return kind("networking.k8s.io/v1", "NetworkPolicy", one.name, spec=spec)


def server_policy(resource: Resource, clients: Sequence[str]) -> Spec:
    """Return who may connect to a server: the components named, on its port."""
    peers = [{"podSelector": {"matchLabels": {NAME: name}}} for name in clients]
    spec = {
        "podSelector": {"matchLabels": {NAME: resource.name}},
        "policyTypes": ["Ingress"],
        "ingress": [_rule("from", peers, port_of(resource))],
    }
    return kind("networking.k8s.io/v1", "NetworkPolicy", resource.name, spec=spec)


def client_policy(name: str, resource: Resource) -> Spec:
    """Return that a component may connect to a server, and nowhere else."""
    spec = {
        "podSelector": {"matchLabels": {NAME: name}},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [_to(resource)],
    }
    return kind("networking.k8s.io/v1", "NetworkPolicy", name, spec=spec)


def port_of(resource: Resource) -> int:
    """Return where a server listens; its engine's own port when the model does not say."""
    return resource.port or {"postgres": 5432, "nats": 4222}[resource.engine]


def _policy(name: str, spec: Spec) -> Spec:
    return kind("networking.k8s.io/v1", "NetworkPolicy", name, spec=spec)


def _to(resource: Resource) -> Spec:
    peers: list[Spec] = [{"podSelector": {"matchLabels": {NAME: resource.name}}}]
    if resource.server == "external":
        peers = [{"ipBlock": {"cidr": network}} for network in resource.networks]
    return _rule("to", peers, port_of(resource))


def _namespace(name: str) -> Spec:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE: name}}}


def _rule(direction: str, peers: Sequence[Spec], port: int) -> Spec:
    return {direction: list(peers), "ports": [{"protocol": "TCP", "port": port}]}
