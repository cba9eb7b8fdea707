"""`ctxner serve --dry-run`, `--write` and `ctxner api-key`: what is deployed, and what is refused before Ray starts."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from serving.cli import app
from serving.plan import Options, plan
from serving.settings import ApiKey, hashed, keys_from

SERVE = Path(__file__).parents[2] / "serving" / "serve.yaml"


@pytest.fixture(scope="module")
def model(tagger, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("served")
    tagger.save_pretrained(folder)
    return str(folder)


def planned(*options: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["serve", "--dry-run", *options], catch_exceptions=False)
    assert done.exit_code == 0
    return yaml.safe_load(done.stdout)


def test_the_plan_has_the_options_and_a_release_that_names_the_weights(model):
    tree = planned("--model", model, "--port", "8123", "--set", "limits.texts=7", "--set", "threshold=0.3")
    (own,) = tree["applications"]
    assert own["args"]["limits"]["texts"] == 7
    assert own["args"]["threshold"] == 0.3
    weights = hashlib.sha256((Path(model) / "model.safetensors").read_bytes()).hexdigest()
    assert re.fullmatch(rf"{weights[:12]}\.[0-9a-f]{{6}}", own["args"]["release"])
    assert tree["http_options"]["port"] == 8123
    assert {one["name"] for one in own["deployments"]} == {"PlainTagger", "ContextTagger"}


def test_what_is_written_can_be_served_again(model, tmp_path: Path):
    path = tmp_path / "serve.yaml"
    done = CliRunner().invoke(app, ["serve", "--model", model, "--write", str(path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert planned("--config", str(path)) == planned("--model", model)
    assert [own.name for own in tmp_path.iterdir()] == ["serve.yaml"]


def test_a_plain_view_of_its_own_and_other_weights_are_another_release(model, tagger, tmp_path: Path):
    other = tmp_path / "other"
    tagger.save_pretrained(other)
    release = planned("--model", str(other))["applications"][0]["args"]["release"]
    weights = load_file(other / "model.safetensors")
    save_file({name: own + 1e-3 for name, own in weights.items()}, other / "model.safetensors")
    both = planned("--model", model, "--set", f"plain_model={other}")["applications"][0]["args"]["release"]
    first, second = both.split("-")
    assert release == first
    assert planned("--model", str(other))["applications"][0]["args"]["release"] == second != release


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "there is no key"),
        (["--set", "limits.text=1"], "unknown key 'text'; valid here: .*texts"),
        (["--set", "keys=[{name: a, sha: b}]"], "unknown key 'sha'; valid here: name, sha256"),
        (["--set", "threads"], "wanted key=value"),
        (["--index", "/nowhere"], "no such index"),
        (["--model", "/nowhere"], "no folder that ctxner saved"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_reason(model, options, message):
    given = options if "--model" in options else ["--model", model, *options]
    with pytest.raises((ValueError, OSError), match=message):
        CliRunner().invoke(app, ["serve", "--dry-run", *given], catch_exceptions=False)


def test_a_key_lets_other_machines_in_and_only_its_hash_is_kept(model, monkeypatch):
    made = json.loads(CliRunner().invoke(app, ["api-key", "me"]).stdout)
    assert made["keys"] == [{"name": "me", "sha256": hashed(made["key"])}]
    monkeypatch.setenv("CTXNER_API_KEYS", f"me:{made['key']}")
    tree = planned("--model", model, "--host", "0.0.0.0")
    assert made["key"] not in json.dumps(tree)
    assert tree["applications"][0]["args"]["keys"] == made["keys"]


def test_files_that_are_no_serve_config_are_refused(tmp_path: Path):
    path = tmp_path / "a.yaml"
    for text, message in (("[1]", "found list"), ("a: [", "not a readable YAML"), ("a: 1", "wanted one application")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            plan(Options(str(path)))


@pytest.mark.parametrize("written", ["{}", "{port: 8123}", "{host: null}", "null"])
def test_a_file_without_an_address_is_served_on_loopback_and_says_so(model, tmp_path: Path, written: str):
    path = tmp_path / "serve.yaml"
    tree = yaml.safe_load(SERVE.read_text())
    tree["http_options"] = yaml.safe_load(written)
    path.write_text(yaml.safe_dump(tree))
    assert planned("--config", str(path), "--model", model)["http_options"]["host"] == "127.0.0.1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "*", "192.0.2.7", "some.host", "0"])
def test_an_address_that_others_reach_wants_a_key_wherever_it_is_written(model, tmp_path: Path, host: str):
    path = tmp_path / "serve.yaml"
    tree = yaml.safe_load(SERVE.read_text())
    tree["http_options"]["host"] = host
    path.write_text(yaml.safe_dump(tree))
    for options in (["--config", str(path)], ["--host", host]):
        with pytest.raises(ValueError, match="there is no key"):
            CliRunner().invoke(app, ["serve", "--dry-run", "--model", model, *options], catch_exceptions=False)


def test_what_serve_deploy_reads_names_the_address_and_only_its_owner_may_read_it(model, tmp_path: Path):
    path = tmp_path / "written.yaml"
    path.write_text("old")
    path.chmod(0o644)
    CliRunner().invoke(app, ["serve", "--model", model, "--write", str(path)], catch_exceptions=False)
    assert ServeDeploySchema.model_validate(yaml.safe_load(path.read_text())).http_options.host == "127.0.0.1"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_port_in_use_is_said_within_a_second_before_the_model_is_read():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        started = time.process_time()
        with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            CliRunner().invoke(app, ["serve", "--model", "/nowhere", "--port", port], catch_exceptions=False)
        assert time.process_time() - started < 5


SECRET = "this-is-the-key-itself"


@pytest.mark.parametrize(
    "keys",
    [
        f"[{{name: a, sha256: {SECRET}}}]",
        f"[{{name: a, sha256: [{SECRET}]}}]",
        f"[{{name: a, {SECRET}: 1}}]",
        f"[{SECRET}]",
        f"{{a: {SECRET}}}",
        SECRET,
        f"[{{name: a, sha256: {hashed(SECRET)}}}, {{name: a, sha256: {hashed(SECRET)}}}, {{name: {SECRET} x}}]",
        f"[{SECRET}: {{",
    ],
)
def test_what_stands_in_a_keys_place_is_never_shown(model, tmp_path: Path, keys: str):
    path = tmp_path / "serve.yaml"
    path.write_text(SERVE.read_text().replace("    args:\n", f"    args:\n      keys: {keys}\n"))
    ways = (["--set", f"keys={keys}"], ["--config", str(path)])
    for options in ways:
        with pytest.raises(ValueError, match=r"\w") as refused:
            CliRunner().invoke(app, ["serve", "--dry-run", "--model", model, *options], catch_exceptions=False)
        assert SECRET not in str(refused.value)


@pytest.mark.parametrize("key", ["", "\n", " ", "x", "ab", "ab\n", "none", "CHANGEME", "$CTXNER_API_KEYS"])
def test_the_hash_of_an_empty_or_short_key_is_refused(key: str):
    with pytest.raises(ValueError, match="hash of an empty or very short key"):
        ApiKey(name="a", sha256=hashlib.sha256(key.encode()).hexdigest())


@pytest.mark.parametrize("name", ["", "a b", "a\n", "\na", "a/../b", "x" * 65, "[red]"])
def test_a_name_is_matched_whole(name: str):
    with pytest.raises(ValueError, match="name"):
        ApiKey(name=name, sha256=hashed(SECRET))


@pytest.mark.parametrize("entry", ["a b:" + SECRET, ":" + SECRET, "a/../b:" + SECRET, "a", "a:", "a:short"])
def test_an_entry_of_the_environment_that_is_no_name_and_key_is_refused_without_showing_it(entry: str):
    with pytest.raises(ValueError, match="entry 1 is not name:key") as refused:
        keys_from({"CTXNER_API_KEYS": entry})
    assert SECRET not in str(refused.value)


def test_brackets_in_a_name_are_printed_as_they_are(tmp_path: Path):
    (tmp_path / "[red]").mkdir()
    command = [sys.executable, "-m", "serving.cli", "serve", "--dry-run", "--model", str(tmp_path / "[red]" / "[/x]")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert f"{tmp_path}/[red]/[/x]" in ended.stderr
