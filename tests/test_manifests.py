"""What is imported is declared, what is declared is pinned, and what is no Python file is packaged."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
UNPINNED = {"mlflow-skinny"}  # wants an older cachetools than what the pinned fastmcp brings: install it without -c


@pytest.mark.parametrize(
    "arguments",
    [
        ["."],  # the packages: nothing of an extra for developers either
        # Peers of benchmarks and Locust run in environments of their own.
        ["tests", "--exclude", ".*(peer_.*|locustfile)", "--ignore", "DEP002,DEP004"],
    ],
    ids=["packages", "tests"],
)
def test_what_is_imported_is_declared_and_what_is_declared_is_imported(arguments):
    command = [sys.executable, "-m", "deptry", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_every_requirement_of_every_extra_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {_name(line) for line in lines if "==" in line and not line.startswith("#")}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = {_name(line) for lines in (PROJECT["project"]["dependencies"], *extras) for line in lines}
    assert wanted - pinned == UNPINNED


def test_every_file_of_the_packages_is_installed_with_them():
    packages = PROJECT["tool"]["setuptools"]["package-data"]
    for package in ("ctxner", "jobs", "serving"):
        folder = ROOT / package
        others = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]
        assert others
        for path in others:
            name = path.relative_to(folder).as_posix()
            assert any(fnmatch.fnmatch(name, pattern) for pattern in packages[package]), f"{path} is not packaged"
        assert all((path.parent / "__init__.py").is_file() for path in folder.rglob("*.py"))


@pytest.mark.slow
def test_the_demo_runs_from_a_wheel_outside_the_clone(tmp_path):
    """In an environment that has the packages of this one, but not the clone."""
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("ctxner-*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    command = [str(tmp_path / "venv" / "bin" / "ctxner"), "demo", "--mode", "plain", "--json"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (tmp_path / "runs" / "demo" / "report.html").is_file()
    code = "import ctxner; print(ctxner.__file__)"
    where = subprocess.run([str(python), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert str(site) in where


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return re.sub(r"[-_.]+", "-", match[0]).lower()
