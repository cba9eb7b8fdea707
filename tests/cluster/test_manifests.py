"""The manifests are what Kubernetes and KubeRay know, render in every overlay, and name one version."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.manifests import FILES, KUBERAY, OVERLAYS, RAY_KINDS, ROOT, faults, in_file, in_overlay, ray_version


@pytest.mark.parametrize("path", sorted((ROOT / "cluster").rglob("*.yaml")), ids=lambda path: path.as_posix()[-40:])
def test_every_yaml_file_can_be_read(path):
    assert all(isinstance(tree, dict) for tree in yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_only_what_the_schemas_know(name):
    for tree in in_file(name):
        assert faults(tree) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_renders_to_what_the_schemas_know(overlay):
    trees = in_overlay(overlay)
    assert trees
    for tree in trees:
        assert faults(tree) == [], f"{tree['kind']} {tree['metadata']['name']}"
        assert tree["metadata"].get("namespace", "ctxner") == "ctxner"


def test_there_is_an_overlay_for_cpus_gpus_and_a_desk_each_with_service_and_jobs():
    assert [
        f"overlays/{name}{part}" for name in ("cpu", "dev", "gpu") for part in ("", "/jobs", "/service")
    ] == OVERLAYS


def cluster_with(path: Sequence[str | int], value: object) -> dict[str, Any]:
    """The Ray cluster's manifest with one value changed, or added at the end of the path."""
    (tree,) = in_file("base/cluster/raycluster.yaml")
    part = changed = copy.deepcopy(tree)
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("spec", "enableInTreeAutoscalling"), "enableInTreeAutoscalling"),
        (("spec", "authOptions", "mod"), "mod"),
        (("spec", "headGroupSpec", "template", "spec", "container"), "container"),
        (("spec", "workerGroupSpecs", 1, "template", "spec", "containers", 0, "resources", "limit"), "limit"),
        (("spec", "workerGroupSpecs", 0, "template", "spec", "securityContext", "runAsNonRot"), "runAsNonRot"),
    ],
)
def test_a_misspelt_key_is_a_fault(path, message):
    assert [fault for fault in faults(cluster_with(path, {})) if message in fault]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "rayVersion"), 2.6),
        (("spec", "authOptions", "mode"), "tokens"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),  # KubeRay wants strings
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), "6379"),
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "resources", "limits", "memory"), "8 GB"),
    ],
)
def test_a_value_of_another_type_is_a_fault(path, value):
    assert faults(cluster_with(path, value))


def test_a_missing_required_key_is_a_fault():
    (tree,) = in_file("base/cluster/raycluster.yaml")
    for key in ("groupName", "minReplicas", "template"):
        broken = copy.deepcopy(tree)
        del broken["spec"]["workerGroupSpecs"][0][key]
        assert faults(broken)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_image_is_ctxners_with_rays_version_as_its_tag(overlay):
    build = "cuda" if "/gpu" in overlay else "cpu"
    images = re.findall(r"(?m)^\s*(?:- )?image: (\S+)$", yaml.safe_dump_all(in_overlay(overlay)))
    assert images
    for image in images:
        assert image.split("/")[-1] == f"ctxner:{ray_version()}-{build}"


def test_every_version_of_ray_in_the_cluster_folder_is_that_of_the_constraints():
    for path in filter(Path.is_file, (ROOT / "cluster").rglob("*")):
        for version in re.findall(r"(?:rayVersion: |newTag: |ctxner:)['\"]?([0-9]+\.[\w.]*)", path.read_text()):
            assert version == ray_version(), path
    for name in ("base/cluster/raycluster.yaml", "base/service/rayservice.yaml"):
        (tree,) = in_file(name)
        cluster = tree["spec"].get("rayClusterConfig", tree["spec"])
        assert cluster["rayVersion"] == ray_version()


@pytest.mark.parametrize("overlay", ["overlays/cpu", "overlays/gpu"])
def test_the_dashboard_is_the_file_of_serving(overlay):
    (dashboard,) = (tree for tree in in_overlay(overlay) if tree["kind"] == "ConfigMap")
    assert json.loads(dashboard["data"]["ctxner.json"]) == json.loads((ROOT / "serving" / "grafana.json").read_text())
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize("overlay", ["overlays/cpu", "overlays/gpu", "overlays/cpu/service", "overlays/gpu/service"])
def test_a_cluster_grows_within_bounds_and_only_gpu_clusters_have_a_gpu_group(overlay):
    for tree in in_overlay(overlay):
        if tree["kind"] not in RAY_KINDS:
            continue
        cluster = tree["spec"].get("rayClusterConfig", tree["spec"])
        assert cluster["enableInTreeAutoscaling"]
        assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] > 0
        groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
        assert set(groups) == ({"cpu", "gpu"} if "gpu" in overlay else {"cpu"})
        for name, group in groups.items():
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
            (container,) = group["template"]["spec"]["containers"]
            assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (name == "gpu")


def test_the_gpu_group_of_the_base_is_empty_until_something_asks_for_gpus():
    for name in ("base/cluster/raycluster.yaml", "base/service/rayservice.yaml"):
        (tree,) = in_file(name)
        cluster = tree["spec"].get("rayClusterConfig", tree["spec"])
        assert [group["minReplicas"] for group in cluster["workerGroupSpecs"] if group["groupName"] == "gpu"] == [0]


def test_disruption_budgets_use_what_a_custom_resource_allows():
    """Without a scale sub-resource Kubernetes takes only a whole number for minAvailable."""
    budgets = in_file("base/platform/disruption.yaml")
    assert len(budgets) == 3
    for budget in budgets:
        assert isinstance(budget["spec"]["minAvailable"], int)
        assert "maxUnavailable" not in budget["spec"]


def test_every_file_of_the_folder_is_used():
    named = {
        (path.parent / name).resolve()
        for path in KUBERAY.rglob("kustomization.yaml")
        for name in re.findall(r"[\w/-]+\.yaml", path.read_text())
    }
    assert {path.resolve() for path in KUBERAY.rglob("*.yaml") if path.name != "kustomization.yaml"} <= named


def test_cluster_and_service_have_names_of_their_own():
    """KubeRay makes a Service NAME-head-svc for each: of the same name one would take the other's place."""
    names = [
        in_file(f"base/{name}.yaml")[0]["metadata"]["name"] for name in ("cluster/raycluster", "service/rayservice")
    ]
    assert len(set(names)) == 2
