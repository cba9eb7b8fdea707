"""What the jobs run is a command that exists, and what the service deploys is serving/serve.yaml."""

from __future__ import annotations

import copy
import shlex
from typing import Any

import pytest
import typer
import yaml
from ray.serve.schema import ServeDeploySchema

from ctxner.config import load_config
from jobs.cli import app
from serving.addresses import is_loopback, refuse_public
from serving.deployments import Router
from serving.edge import variables
from serving.settings import ServeSettings
from tests.cluster.manifests import KUBERAY, ROOT, in_file, in_overlay

JOBS = ("experiment", "index", "retrieve", "tag", "train")
COMMANDS = typer.main.get_command(app)
SERVICES = ("base/service/rayservice.yaml", "components/gpu/service.yaml")


def entrypoints(name: str) -> list[str]:
    """What a job runs in the base and, where the overlay for GPUs changes it, there."""
    files = [KUBERAY / "base" / "jobs" / f"{name}.yaml", KUBERAY / "components" / "gpu" / f"{name}.yaml"]
    return [yaml.safe_load(path.read_text())["spec"]["entrypoint"] for path in files if path.is_file()]


def parsed(entrypoint: str) -> tuple[list[str], dict[str, Any]]:
    """The command's name and the values of its parameters, read by Click itself; nothing runs.

    Raises:
        UsageError: There is no such command, option or argument.
    """
    program, *words = shlex.split(entrypoint)
    assert program == "ctxner"
    command, context, names = COMMANDS, COMMANDS.make_context("ctxner", words), []
    while rest := [*getattr(context, "_protected_args", []), *context.args]:
        name, command, words = command.resolve_command(context, rest)
        names.append(name)
        context = command.make_context(name, words, parent=context)
    return names, context.params


def test_there_is_a_job_per_command():
    assert sorted(path.stem for path in (KUBERAY / "base" / "jobs").glob("*.yaml")) == sorted(
        (*JOBS, "kustomization", "submitter")
    )


@pytest.mark.parametrize("name", JOBS)
def test_every_job_runs_a_command_with_options_and_settings_that_exist(name):
    for entrypoint in entrypoints(name):
        names, parameters = parsed(entrypoint)
        assert names[0] == name
        if name != "experiment":
            load_config(None, parameters["overrides"])  # refuses settings that do not exist, or of a wrong type


@pytest.mark.parametrize(
    ("entrypoint", "fault"),
    [
        ("ctxner trian --config c.yaml", "UsageError"),
        ("ctxner train --confg c.yaml", "NoSuchOption"),
        ("ctxner tag /files/documents --model m", "MissingParameter"),
        ("ctxner experiment run --store s", "MissingParameter"),
        ("ctxner index --shards many", "BadParameter"),
    ],
)
def test_a_command_that_does_not_exist_is_refused(entrypoint, fault):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of the Click inside Typer, which is private
        parsed(entrypoint)
    assert type(caught.value).__name__ == fault


@pytest.mark.parametrize("name", JOBS)
def test_every_job_writes_below_the_shared_folder(name):
    for entrypoint in entrypoints(name):
        paths = [word.split("=")[-1] for word in shlex.split(entrypoint) if "/" in word]
        assert paths
        assert all(path.startswith("/files/") for path in paths), paths


def test_overlays_change_jobs_only_where_gpus_are_asked_for():
    jobs = {
        overlay: {
            tree["metadata"]["name"]: tree["spec"]["entrypoint"] for tree in in_overlay(f"overlays/{overlay}/jobs")
        }
        for overlay in ("cpu", "gpu", "dev")
    }
    assert jobs["cpu"] == jobs["dev"]
    assert {name for name in jobs["cpu"] if jobs["cpu"][name] != jobs["gpu"][name]} == {"ctxner-train"}
    assert "run.gpus=1" in jobs["gpu"]["ctxner-train"]


def test_a_job_on_gpus_asks_for_what_nodes_of_the_gpu_group_have():
    (cluster,) = in_file("base/cluster/raycluster.yaml")
    (group,) = (group for group in cluster["spec"]["workerGroupSpecs"] if group["groupName"] == "gpu")
    offered = yaml.safe_load(group["rayStartParams"]["resources"].strip('"').replace("\\", ""))
    (job,) = in_file("components/gpu/train.yaml")
    assert set(yaml.safe_load(job["spec"]["entrypointResources"])) <= set(offered)


def served(name: str) -> dict[str, Any]:
    (tree,) = in_file(name)
    return yaml.safe_load(tree["spec"]["serveConfigV2"])


def test_the_service_deploys_what_serve_yaml_does_but_for_host_model_and_index():
    ours, theirs = served(SERVICES[0]), yaml.safe_load((ROOT / "serving" / "serve.yaml").read_text())
    for tree in (ours, theirs):
        del tree["http_options"]["host"]
        (application,) = tree["applications"]
        del application["args"]["model"], application["args"]["index"]
    assert ours == theirs


def test_on_gpus_it_differs_from_that_only_in_devices():
    without, with_gpus = served(SERVICES[0]), copy.deepcopy(served(SERVICES[1]))
    (application,) = with_gpus["applications"]
    assert application["args"].pop("device") == "cuda"
    for deployment in application["deployments"]:
        assert deployment.pop("ray_actor_options") == {"num_cpus": 0.5, "num_gpus": 0.25}
    assert with_gpus == without


@pytest.mark.parametrize("name", SERVICES)
def test_ray_serve_and_the_application_take_it(name):
    tree = served(name)
    ServeDeploySchema.model_validate(tree)
    (application,) = tree["applications"]
    settings = ServeSettings.model_validate(application["args"])
    assert settings.index is not None
    for path in (settings.model, str(settings.index)):
        assert path.startswith("/files/")


@pytest.mark.parametrize("name", SERVICES)
def test_its_address_is_public_within_the_pod_so_that_keys_are_required(name):
    host = served(name)["http_options"]["host"]
    assert not is_loopback(host)
    with pytest.raises(ValueError, match="there is no key"):
        refuse_public(host)  # what the application does without keys


def test_no_pod_of_the_service_starts_without_the_secret_of_keys():
    (tree,) = in_file(SERVICES[0])
    cluster = tree["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        (keys,) = (each for each in container["env"] if each["name"] == "CTXNER_API_KEYS")
        assert keys["valueFrom"]["secretKeyRef"] == {"name": "ctxner-api-keys", "key": "CTXNER_API_KEYS"}
        assert "value" not in keys  # no key in a file


def test_its_proxies_bound_connections_as_those_of_ctxner_serve_do():
    (tree,) = in_file(SERVICES[0])
    cluster = tree["spec"]["rayClusterConfig"]
    name, value = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "serving.front:middlewares"
    assert variables(ServeSettings(model="m").limits)[name] == value
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": name, "value": value} in container["env"]


def test_the_smallest_cluster_has_room_for_the_smallest_number_of_replicas():
    for overlay in ("cpu", "gpu", "dev"):
        (tree,) = in_overlay(f"overlays/{overlay}/service")
        room: dict[str, float] = {"cpu": 0, "nvidia.com/gpu": 0}
        for group in tree["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
            (container,) = group["template"]["spec"]["containers"]
            for unit in room:
                room[unit] += group["minReplicas"] * float(container["resources"]["limits"].get(unit, 0))
        (application,) = yaml.safe_load(tree["spec"]["serveConfigV2"])["applications"]
        num_replicas = sum(each["autoscaling_config"]["min_replicas"] for each in application["deployments"])
        asked = application["deployments"][0].get("ray_actor_options", {"num_cpus": 0.5})
        assert num_replicas * asked["num_cpus"] + Router.ray_actor_options["num_cpus"] <= room["cpu"]
        assert num_replicas * asked.get("num_gpus", 0) <= room["nvidia.com/gpu"]
