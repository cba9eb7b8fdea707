"""Nothing runs as root or without limits, a token is asked for everywhere, and three ports are closed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.manifests import FILES, OVERLAYS, RAY_KINDS, in_file, in_overlay, pods

TREES = [*(name for name in FILES if name.startswith(("base/cluster", "base/service"))), *OVERLAYS]
PRIVATE_PORTS = (6379, 8265, 10001)  # whoever reaches them can run code
NODE = {"cluster": {"app.kubernetes.io/component": "cluster"}, "service": {"app.kubernetes.io/component": "service"}}
OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}


def trees(source: str) -> list[dict[str, Any]]:
    return in_file(source) if source in FILES else in_overlay(source)


@pytest.mark.parametrize("source", TREES)
def test_no_container_runs_as_root_or_may_become_it(source):
    for tree in trees(source):
        for path, pod in pods(tree):
            spec = pod["spec"]
            assert spec["securityContext"]["runAsNonRoot"], path
            assert spec["securityContext"]["runAsUser"] >= 1000, path
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, path
            assert not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")), path
            for container in spec["containers"] + spec.get("initContainers", []):
                check_locked(container["securityContext"], path)
    for options in autoscalers(source):
        check_locked(options["securityContext"], "autoscaler")


def check_locked(context: dict[str, Any], path: str) -> None:
    assert context["runAsNonRoot"], path
    assert context["allowPrivilegeEscalation"] is False, path
    assert context["capabilities"] == {"drop": ["ALL"]}, path
    assert context["readOnlyRootFilesystem"], path
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}, path


def autoscalers(source: str) -> list[dict[str, Any]]:
    specs = [tree["spec"].get("rayClusterConfig", tree["spec"]) for tree in trees(source) if tree["kind"] in RAY_KINDS]
    return [spec["autoscalerOptions"] for spec in specs if "autoscalerOptions" in spec]


@pytest.mark.parametrize("source", TREES)
def test_a_read_only_container_can_write_where_ray_and_java_do(source):
    for tree in trees(source):
        for path, pod in pods(tree):
            volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
            for container in pod["spec"]["containers"]:
                mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
                assert "emptyDir" in volumes[mounts["/tmp"]], path
                assert "emptyDir" in volumes[mounts["/home/ctxner"]], path
                assert set(mounts.values()) <= set(volumes), path


@pytest.mark.parametrize("source", TREES)
def test_every_container_has_requests_and_limits(source):
    resources = [options["resources"] for options in autoscalers(source)]
    for tree in trees(source):
        resources += [container["resources"] for _, pod in pods(tree) for container in pod["spec"]["containers"]]
    for each in resources:
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(each[kind])
        assert each["requests"].get("nvidia.com/gpu") == each["limits"].get("nvidia.com/gpu")


@pytest.mark.parametrize("source", [name for name in TREES if "jobs" not in name])
def test_every_cluster_asks_for_a_token_and_is_reached_from_inside_only(source):
    clusters = [tree["spec"] for tree in trees(source) if tree["kind"] in ("RayCluster", "RayService")]
    assert clusters
    for spec in clusters:
        cluster = spec.get("rayClusterConfig", spec)
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
        assert not cluster["headGroupSpec"].get("enableIngress")


def test_jobs_run_on_the_cluster_that_has_the_token():
    (cluster,) = in_file("base/cluster/raycluster.yaml")
    for tree in in_overlay("overlays/cpu/jobs"):
        assert tree["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
        assert "rayClusterSpec" not in tree["spec"]  # a cluster of its own would have a token of its own


def allowed(
    to: dict[str, str], port: int, *, namespace: str = "ctxner", labels: dict[str, str], others: bool = False
) -> bool:
    """Whether the policies let a pod with these labels in this namespace reach a port of a pod with the labels `to`.

    Kubernetes' rules: policies that select a pod close everything that none of them opens.

    Args:
        to: Labels of the pod that is asked.
        port: Port.
        namespace: Namespace of the pod that asks.
        labels: Labels of the pod that asks.
        others: Whether the namespace has the label that lets its pods ask the server.
    """
    of_namespace = {"kubernetes.io/metadata.name": namespace} | ({"ctxner/may-ask": "yes"} if others else {})
    policies = [
        tree["spec"] for tree in in_file("base/platform/network.yaml") if selects(tree["spec"]["podSelector"], to)
    ]
    assert policies, "no policy selects the pod: everything is open"
    return any(
        any(_is_peer(peer, namespace, of_namespace, labels) for peer in rule.get("from", [{}]))
        and ("ports" not in rule or any(each["port"] == port for each in rule["ports"]))
        for policy in policies
        for rule in policy.get("ingress", [])
    )


def _is_peer(peer: dict[str, Any], namespace: str, of_namespace: dict[str, str], labels: dict[str, str]) -> bool:
    if not peer or "ipBlock" in peer:
        return True  # everybody, or somebody outside
    inside = selects(peer["namespaceSelector"], of_namespace) if "namespaceSelector" in peer else namespace == "ctxner"
    return inside and selects(peer.get("podSelector", {}), labels)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for term in selector.get("matchExpressions", []):
        assert term["operator"] == "In"
        if labels.get(term["key"]) not in term["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


@pytest.mark.parametrize("port", PRIVATE_PORTS)
@pytest.mark.parametrize("node", NODE)
@pytest.mark.parametrize(
    "asker",
    [
        {"labels": {}},  # a pod in the same namespace
        {"labels": {"app": "notebook"}, "namespace": "default"},
        {"labels": {"app.kubernetes.io/name": "prometheus"}, "namespace": "monitoring"},
        {"labels": {"app": "website"}, "namespace": "web", "others": True},
        {"labels": NODE["cluster"], "namespace": "default"},  # our labels, another namespace
        {"labels": OPERATOR, "namespace": "default"},
        {"labels": {"app": "other"}, "namespace": "kuberay-system"},
    ],
    ids=[
        "same-namespace",
        "other-namespace",
        "prometheus",
        "caller",
        "same-labels",
        "false-operator",
        "beside-operator",
    ],
)
def test_the_ports_that_run_code_are_closed_to_everything_else(node, port, asker):
    assert not allowed(NODE[node], port, **asker)


@pytest.mark.parametrize("port", PRIVATE_PORTS)
def test_a_clusters_pods_reach_each_other_but_not_those_of_the_other_cluster(port):
    for node, other in (("cluster", "service"), ("service", "cluster")):
        assert allowed(NODE[node], port, labels=NODE[node])
        assert not allowed(NODE[node], port, labels=NODE[other])


def test_what_has_to_come_through_does():
    submitter = {"app.kubernetes.io/component": "submitter"}
    assert allowed(NODE["cluster"], 8265, labels=submitter)
    assert not allowed(NODE["cluster"], 6379, labels=submitter)
    assert not allowed(NODE["service"], 8265, labels=submitter)
    for node in NODE.values():
        assert allowed(node, 8265, namespace="kuberay-system", labels=OPERATOR)
        assert not allowed(node, 10001, namespace="kuberay-system", labels=OPERATOR)
        assert allowed(node, 8080, namespace="monitoring", labels={})
        assert not allowed(node, 8080, namespace="default", labels={})
    assert allowed(NODE["service"], 8000, namespace="web", labels={}, others=True)
    assert not allowed(NODE["service"], 8000, namespace="web", labels={})
    assert not allowed(NODE["cluster"], 8000, namespace="web", labels={}, others=True)


@pytest.mark.parametrize("source", TREES)
def test_every_pod_has_the_label_that_the_policies_select_by(source):
    for tree in trees(source):
        for path, pod in pods(tree):
            wanted = {"RayCluster": "cluster", "RayService": "service", "RayJob": "submitter"}[tree["kind"]]
            assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == wanted, path
