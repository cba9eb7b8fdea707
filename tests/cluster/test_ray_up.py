"""The files for `ray up` are what Ray takes, ask for a token, and open nothing to the world."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.manifests import ROOT, ray_version

FILES = sorted((ROOT / "cluster" / "ray").glob("*.yaml"))
CLOUDS = [path for path in FILES if path.stem != "local"]


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_ray_takes_the_file(path):
    validate_config(prepare_config(read(path)))


def test_a_misspelt_key_is_a_fault():
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config({**read(FILES[0]), "max_worker": 3}))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_node_has_the_token_and_the_image_of_the_constraints(path):
    tree = read(path)
    assert tree["file_mounts"] == {"/home/ctxner/.ray/auth_token": "~/.ray/auth_token"}
    assert "--env RAY_AUTH_MODE=token" in tree["docker"]["run_options"]
    assert tree["docker"]["image"].endswith(f"/ctxner:{ray_version()}-cpu")
    for node_type in tree.get("available_node_types", {}).values():
        if "docker" in node_type:
            assert node_type["docker"]["worker_image"].endswith(f"/ctxner:{ray_version()}-cuda")
            assert node_type["docker"]["worker_run_options"] == tree["docker"]["run_options"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_is_open_to_the_world(path):
    assert not re.search(r"0\.0\.0\.0|::/0", path.read_text())
    (start,) = (line for line in read(path)["head_start_ray_commands"] if "--head" in line)
    assert "--dashboard-host=127.0.0.1" in start


def test_aws_uses_a_security_group_that_exists():
    """Else Ray makes one with port 22 open to everybody."""
    for node_type in read(ROOT / "cluster" / "ray" / "aws.yaml")["available_node_types"].values():
        assert node_type["node_config"]["SecurityGroupIds"]
        assert node_type["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


def test_google_nodes_have_no_address_outside_and_the_firewalls_tag():
    tree = read(ROOT / "cluster" / "ray" / "gcp.yaml")
    assert tree["provider"]["use_internal_ips"]
    for node_type in tree["available_node_types"].values():
        (interface,) = node_type["node_config"]["networkInterfaces"]
        assert "accessConfigs" not in interface
        assert node_type["node_config"]["tags"] == {"items": ["ctxner"]}


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_clouds_have_groups_for_cpus_and_gpus_that_grow_within_bounds(path):
    tree = read(path)
    assert set(tree["available_node_types"]) == {"head", "cpu", "gpu"}
    for name in ("cpu", "gpu"):
        group = tree["available_node_types"][name]
        assert 0 <= group["min_workers"] < group["max_workers"] <= tree["max_workers"]
    assert tree["available_node_types"]["gpu"]["min_workers"] == 0
