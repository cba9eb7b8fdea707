"""What README and docs say can be done can be done: commands, options, settings, links, paths and Python blocks."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from ctxner.config import Config
from jobs.cli import app
from serving.cli import app as serving_app

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "cluster" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
OTHERS = {"chmod", "curl", "docker", "export", "head", "helm", "kubectl", "pip"}  # commands that are not ours
OTHERS |= {"printf", "python", "ray", "scp", "serve", "ssh", "tail"}
COMMANDS = typer.main.get_command(app)
SERVING = typer.main.get_command(serving_app)  # the command finds it by an entry point
COMMANDS.commands |= SERVING.commands if hasattr(SERVING, "commands") else {SERVING.name: SERVING}
SECTIONS = "|".join(Config.model_fields)


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """First line and text of each fenced block of a language."""
    lines = page.read_text().split("\n")
    starts = [number for number, line in enumerate(lines) if line.strip() == f"```{language}"]
    for start in starts:
        end = next(number for number in range(start + 1, len(lines)) if lines[number].strip() == "```")
        yield start + 2, "\n".join(line.strip() for line in lines[start + 1 : end])


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Place and words of each command of the shell blocks and of the tables and texts that begin with `ctxner`."""
    for number, text in blocks(page, "bash"):
        for line in text.replace("\\\n", " ").split("\n"):
            if words := shlex.split(line, comments=True):
                yield f"{page.name}:{number}", words
    for span in re.findall(r"`(ctxner [^`]*)`", page.read_text()):
        yield page.name, shlex.split(span.replace("\n", " "))


def command_at(words: list[str]) -> tuple[object, list[str]]:
    """The click command that the words name, and the words after its name."""
    command, rest = COMMANDS, list(words)
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    return command, rest


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page):
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    for place, words in commands(page):
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words[0] == "make":
            assert words[1] in targets, f"{place}: make {words[1]}"
        elif words[0] == "ctxner":
            command, rest = command_at(words[1:])
            assert command is not COMMANDS or not rest, f"{place}: ctxner {' '.join(rest[:1])}"
            known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            for word in until(rest, {"|", "&&", "..."}):
                if re.match(r"--?[a-z]", word):
                    assert word.split("=")[0] in {*known, "--help"}, f"{place}: {' '.join(words)}: no option {word}"
        else:
            assert words[0].split("/")[-1] in OTHERS or words[0].startswith("-"), f"{place}: {' '.join(words)}"


def until(words: list[str], ends: set[str]) -> Iterator[str]:
    for word in words:
        if word in ends:
            return
        yield word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_is_one_of_the_configs(page):
    for section, key in re.findall(rf"(?:`|--set )({SECTIONS})\.([a-z_0-9]+)", page.read_text()):
        fields = Config.model_fields[section].annotation.model_fields
        assert key in fields, f"{page.name}: {section}.{key}; there are {', '.join(fields)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_path_leads_to_a_file(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
    for path in re.findall(
        r"`((?:cluster|ctxner|jobs|serving|tests|docs)/[\w/.-]+\.(?:py|md|yaml|json|jsonl|txt|svg))`", text
    ):
        assert (ROOT / path).is_file(), f"{page.name}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_are_python_and_import_what_there_is(page):
    for number, text in blocks(page, "python"):
        tree = ast.parse("\n".join(_dedent(page, number)))
        assert text
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ctxner":
                code = f"from {node.module} import {', '.join(alias.name for alias in node.names)}"
                subprocess.run([sys.executable, "-c", code], check=True)


def _dedent(page: Path, number: int) -> list[str]:
    lines = page.read_text().split("\n")[number - 1 :]
    return lines[: next(place for place, line in enumerate(lines) if line.strip() == "```")]


def test_the_front_door_is_short_and_says_how_to_begin():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.slow
@pytest.mark.ray
def test_what_the_front_door_shows_is_what_the_demo_gives(tmp_path):
    """Runs the demo, then the README's Python, and compares what it prints but for the confidences' last digits."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    demo = [sys.executable, "-m", "jobs", "demo", "--json"]
    subprocess.run(demo, cwd=tmp_path, env=environment, check=True, capture_output=True)
    (number, _), *_ = blocks(ROOT / "README.md", "python")
    lines = _dedent(ROOT / "README.md", number)
    code = "\n".join(f"print({line})" if line.startswith("tagger.tag") else line for line in lines)
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    shown = [line.removeprefix("# ") for line in lines if line.startswith("# [")]
    assert [re.sub(r"\.\d+", "", line) for line in told] == [
        re.sub(r"\.\d+", "", line.replace("...", "")) for line in shown
    ]
