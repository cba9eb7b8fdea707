"""Reads the manifests of `cluster/kuberay`: the files themselves, and each overlay as kustomize renders it.

A test that takes the files needs no kubectl, one that takes overlays is skipped without it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "cluster" / "kuberay"
OVERLAYS = sorted(
    path.parent.relative_to(KUBERAY).as_posix() for path in KUBERAY.glob("overlays/**/kustomization.yaml")
)
FILES = sorted(
    path.relative_to(KUBERAY).as_posix()
    for path in KUBERAY.glob("**/*.yaml")
    # Patches are not whole, kustomizations are kustomize's own.
    if path.name not in ("kustomization.yaml", "submitter.yaml") and path.parent.name != "gpu"
)
RAY_KINDS = ("RayCluster", "RayJob", "RayService")
_SCHEMA_FILES = ("kubernetes", "kuberay", "prometheus")
_BUILT_IN = ("ConfigMap", "Namespace", "NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget")
_TYPES = {kind: kind for kind in (*RAY_KINDS, "PodMonitor")} | {kind: f"V1{kind}" for kind in _BUILT_IN}


def in_file(name: str) -> list[dict[str, Any]]:
    """The manifests of a file below `cluster/kuberay`."""
    return [tree for tree in yaml.safe_load_all((KUBERAY / name).read_text()) if tree]


@cache
def _rendered(overlay: str) -> str:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed: kustomize's overlays are not rendered")
    command = ["kubectl", "kustomize", str(KUBERAY / overlay)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def in_overlay(overlay: str) -> list[dict[str, Any]]:
    """The manifests that `kubectl apply -k` would send."""
    return list(yaml.safe_load_all(_rendered(overlay)))


@cache
def _types() -> dict[str, Any]:
    types: dict[str, Any] = {}
    for name in _SCHEMA_FILES:
        types |= json.loads((Path(__file__).parent / "schemas" / f"{name}.json").read_text())["$defs"]
    return types


def faults(tree: dict[str, Any]) -> list[str]:
    """What the schemas of Kubernetes, KubeRay and the Prometheus operator say against a manifest, with the paths."""
    validator = jsonschema.Draft202012Validator({"$ref": f"#/$defs/{_TYPES[tree['kind']]}", "$defs": _types()})
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(tree)]


def pods(tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and content of each pod template inside a manifest."""
    yield from _pods(tree, tree["kind"])


def _pods(tree: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key in ("template", "submitterPodTemplate"):
                yield f"{path}.{key}", value
            else:
                yield from _pods(value, f"{path}.{key}")
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            yield from _pods(value, f"{path}[{place}]")


def ray_version() -> str:
    """Ray's version in constraints.txt: the one place where it is chosen."""
    (version,) = (
        line.removeprefix("ray==").strip()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("ray==")
    )
    return version
