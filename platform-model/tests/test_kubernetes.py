"""What is deployed on Kubernetes: valid to the letter, complete in itself, and what the model says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from flotilla_platform.generating.kustomize import KUSTOMIZE, NOT_RELEASED
from flotilla_platform.model import Layout, Platform
from flotilla_platform.reading import find_model, read_platform
from flotilla_platform.testing.kustomizing import containers, pod_of, render

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = "1.34"
ENVIRONMENTS = ("dev", "production", "staging")
PLATFORM = read_platform(find_model())

type Object = dict[str, Any]


@pytest.fixture(params=ENVIRONMENTS)
def environment(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rendered(environment: str) -> list[Object]:
    return render(DEPLOY / "k3s/overlays" / environment)


@pytest.fixture
def layout(environment: str) -> Layout:
    return {place.name: layout for place, layout in PLATFORM.deployments()}[environment]


def of_kind(rendered: list[Object], *kinds: str) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in rendered if one["kind"] in kinds}


def pods(rendered: list[Object]) -> Iterator[tuple[str, dict[str, str], Object]]:
    for one in rendered:
        if pod := pod_of(one):
            yield one["metadata"]["name"], one["spec"]["template"]["metadata"]["labels"], pod


def templates() -> dict[str, set[str]]:
    files = (DEPLOY / "secrets/templates").glob("*.yaml")
    read = [YAML(typ="safe", pure=True).load(file) for file in files]
    return {f"flotilla-{one['name']}": set(one["secrets"]) for one in read}


def test_every_environment_of_the_model_is_rendered_and_no_other() -> None:
    assert tuple(PLATFORM.environments) == ENVIRONMENTS
    for folder in ("k3s/overlays", "flux"):
        assert sorted(one.name for one in (DEPLOY / folder).iterdir()) == sorted(ENVIRONMENTS)


def test_every_object_is_what_the_schemas_of_kubernetes_say(rendered: list[Object]) -> None:
    for one in rendered:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_an_object_with_a_key_that_kubernetes_does_not_know_is_found(
    rendered: list[Object],
) -> None:
    one = of_kind(rendered, "Deployment")["web-bff"]
    one["spec"]["template"]["spec"]["terminationGracePeriod"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_no_two_objects_have_one_name_and_all_are_in_the_namespace(
    rendered: list[Object], environment: str
) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered]
    assert len(set(names)) == len(names)
    space = PLATFORM.environments[environment].namespace_name
    placed = {one["metadata"].get("namespace") for one in rendered if one["kind"] != "Namespace"}
    assert placed == {space}
    (namespace,) = of_kind(rendered, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_deployments_are_the_deployables_of_the_model(
    rendered: list[Object], layout: Layout
) -> None:
    found = of_kind(rendered, "Deployment")
    assert {name: one["spec"]["replicas"] for name, one in found.items()} == {
        placed.name: placed.replicas for placed in layout.deployables
    }
    for placed in layout.deployables:
        spec = found[placed.name]["spec"]
        (container,) = containers(found[placed.name])
        given = placed.deployable.resources
        assert container["resources"]["limits"]["memory"] == f"{given.memory_limit_mib}Mi"
        grace_s = spec["template"]["spec"]["terminationGracePeriodSeconds"]
        drain_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert grace_s > placed.deployable.stop_timeout_s + drain_s
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_images_are_those_that_are_built_and_each_is_pinned_as_its_environment_says(
    rendered: list[Object], environment: str, layout: Layout
) -> None:
    place = PLATFORM.environments[environment]
    built = (DEPLOY / "docker/Dockerfile").read_text("utf-8")
    servers = {one.image for one in layout.resources}
    for name, _, pod in pods(rendered):
        (container,) = pod["containers"]
        image = container["image"]
        assert not image.endswith(":latest")
        if image in servers:
            continue
        assert f" AS {name}\n" in built, f"no image {name} is built"
        repository = f"{place.registry}/flotilla/{name}" if place.registry else f"flotilla/{name}"
        tags = {"digest": f"@{NOT_RELEASED}"}
        assert image == repository + tags.get(place.image_tag, f":{place.release}")


def test_every_container_may_nothing_that_it_does_not_need(rendered: list[Object]) -> None:
    for name, _, pod in pods(rendered):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            claimed = {"data"} & mounted
            assert mounted - claimed == {volume["name"] for volume in pod["volumes"]}, name


def test_whoever_runs_images_of_ours_is_who_they_are_built_for(rendered: list[Object]) -> None:
    built = (DEPLOY / "docker/Dockerfile").read_text("utf-8")
    for one in of_kind(rendered, "Deployment").values():
        security = one["spec"]["template"]["spec"]["securityContext"]
        assert f"USER {security['runAsUser']}:{security['runAsGroup']}\n" in built


def test_config_maps_secrets_keys_and_accounts_that_are_named_exist(rendered: list[Object]) -> None:
    maps, accounts = of_kind(rendered, "ConfigMap"), of_kind(rendered, "ServiceAccount")
    secrets, used = templates(), set[str]()
    for name, _, pod in pods(rendered):
        assert pod["serviceAccountName"] in accounts, name
        for container in pod["containers"]:
            for source in container.get("envFrom", ()):
                used.add(source["configMapRef"]["name"])
        for volume in pod["volumes"]:
            if "configMap" in volume:
                used.add(volume["configMap"]["name"])
            if secret := volume.get("secret"):
                asked = {item["key"] for item in secret["items"]}
                assert asked == secrets[secret["secretName"]], name
    assert used == set(maps)


def test_probes_services_and_the_ingress_ask_at_ports_that_are_there(
    rendered: list[Object], environment: str
) -> None:
    for name, _, pod in pods(rendered):
        ports = {port["name"] for one in pod["containers"] for port in one.get("ports", ())}
        for container in pod["containers"]:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container.get(probe, {}).get("httpGet")
                assert asked is None or asked["port"] in ports, (name, probe)
    services = of_kind(rendered, "Service")
    for name, service in services.items():
        matching = [
            pod
            for _, labels, pod in pods(rendered)
            if service["spec"]["selector"].items() <= labels.items()
        ]
        (pod,) = matching
        ports = {port["name"] for port in pod["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, name
    (ingress,) = of_kind(rendered, "Ingress").values()
    (rule,) = ingress["spec"]["rules"]
    assert rule["host"] == PLATFORM.environments[environment].host
    backend = rule["http"]["paths"][0]["backend"]["service"]
    offered = {port["name"] for port in services[backend["name"]]["spec"]["ports"]}
    assert backend["port"]["name"] in offered


def test_readiness_and_liveness_are_asked_of_every_deployable(rendered: list[Object]) -> None:
    for one in of_kind(rendered, "Deployment").values():
        (container,) = containers(one)
        asked = {
            name: container[name]["httpGet"]["path"]
            for name in ("startupProbe", "livenessProbe", "readinessProbe")
        }
        assert asked == {
            "startupProbe": "/healthz",
            "livenessProbe": "/healthz",
            "readinessProbe": "/readyz",
        }


def may_reach(rendered: list[Object], client: dict[str, str], server: dict[str, str]) -> set[int]:
    """Return the ports at which a pod may reach another: both must allow it."""

    def allowed(labels: dict[str, str], peer: dict[str, str], way: str, ends: str) -> set[int]:
        return {
            port["port"]
            for policy in of_kind(rendered, "NetworkPolicy").values()
            if policy["spec"]["podSelector"].get("matchLabels", {}).items() <= labels.items()
            for rule in policy["spec"].get(way, ())
            for one in rule[ends]
            if "namespaceSelector" not in one
            and one["podSelector"]["matchLabels"].items() <= peer.items()
            for port in rule["ports"]
        }

    out = allowed(client, server, "egress", "to")
    return out & allowed(server, client, "ingress", "from")


def test_pods_reach_the_servers_that_their_services_need_and_nobody_else(
    rendered: list[Object], layout: Layout
) -> None:
    labels = {name: labels for name, labels, _ in pods(rendered)}
    store, bus = layout.resources
    needs = {
        placed.name: {need for name in placed.services for need in PLATFORM.services[name].needs}
        for placed in layout.deployables
    }
    expected = {(name, bus.name): {bus.port} for name in needs}
    expected |= {
        (name, store.name): {store.port}
        for name, asked in needs.items()
        if asked & {"store", "views", "logs"}
    }
    expected[f"{store.name}-roles", store.name] = {store.port}
    reached = {
        (client, server): ports
        for client in labels
        for server in labels
        if (ports := may_reach(rendered, labels[client], labels[server]))
    }
    assert reached == expected
    denied = of_kind(rendered, "NetworkPolicy")["deny-all"]["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_every_network_policy_and_disruption_budget_is_about_pods_that_exist(
    rendered: list[Object],
) -> None:
    labels = [labels for _, labels, _ in pods(rendered)]
    for one in of_kind(rendered, "NetworkPolicy", "PodDisruptionBudget").values():
        spec = one["spec"]
        selector = (
            spec.get("podSelector", spec.get("selector"))["matchLabels"]
            if spec.get("podSelector", spec.get("selector"))
            else {}
        )
        assert any(selector.items() <= known.items() for known in labels), one["metadata"]["name"]


def flux(environment: str) -> list[Object]:
    files = sorted((DEPLOY / "flux" / environment).iterdir())
    return [YAML(typ="safe", pure=True).load(file) for file in files]


def test_what_flux_is_told_is_what_its_schemas_say(environment: str) -> None:
    for one in flux(environment):
        schema = json.loads(
            (Path(__file__).parent / "flux_schemas" / f"{one['kind']}.json").read_text("utf-8")
        )
        jsonschema.Draft202012Validator(schema).validate(one)
        one["spec"]["intervall"] = "1m"
        with pytest.raises(jsonschema.ValidationError, match="intervall"):
            jsonschema.Draft202012Validator(schema).validate(one)


def test_flux_applies_every_component_once_in_an_order_without_a_circle(
    environment: str, rendered: list[Object]
) -> None:
    found = {one["metadata"]["name"]: one for one in flux(environment)}
    kustomizations = {n: o["spec"] for n, o in found.items() if o["kind"] == "Kustomization"}
    sources = {n for n, o in found.items() if o["kind"] == "GitRepository"}
    paths = [spec["path"] for spec in kustomizations.values()]
    components = [path for path in paths if "/k3s/" in path]
    assert sorted(components) == sorted(
        f"./deploy/k3s/overlays/{environment}/{one.name}"
        for one in (DEPLOY / "k3s/overlays" / environment).iterdir()
        if one.is_dir()
    )
    together = [one for path in components for one in render(ROOT / path)]
    assert sorted(map(str, together)) == sorted(map(str, rendered))
    done: set[str] = set()
    while ready := {
        name
        for name, spec in kustomizations.items()
        if name not in done and {one["name"] for one in spec.get("dependsOn", ())} <= done
    }:
        done |= ready
    assert done == set(kustomizations)
    there = {(one["kind"], one["metadata"]["name"]) for one in rendered}
    for name, spec in kustomizations.items():
        assert spec["sourceRef"]["name"] in sources, name
        checked = {(one["kind"], one["name"]) for one in spec.get("healthChecks", ())}
        assert checked <= there, name
        assert checked or spec["wait"], f"{name} is ready when nobody knows"


def test_an_environment_that_is_changed_changes_its_overlay_alone() -> None:
    before = KUSTOMIZE.generate(PLATFORM)
    place = PLATFORM.environments["dev"].model_copy(update={"host": "other.example"})
    changed = Platform(
        **{name: getattr(PLATFORM, name) for name in Platform.__dataclass_fields__}
        | {"environments": {**PLATFORM.environments, "dev": place}}
    )
    after = KUSTOMIZE.generate(changed)
    assert {path for path in {**before, **after} if before.get(path) != after.get(path)} == {
        "k3s/overlays/dev/web-bff/ingress.yaml"
    }
