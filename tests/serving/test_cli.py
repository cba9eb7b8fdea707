"""`ctxner serve --dry-run`, `--write` and `ctxner api-key`: what is deployed, and what is refused before Ray starts."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from serving.cli import _tree, app
from serving.settings import hashed


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
    assert re.fullmatch(rf"{weights[:12]}\.[0-9a-f]{{6}}-no-index", own["args"]["release"])
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
    first, second, _ = both.split("-", 2)
    assert release == f"{first}-no-index"
    assert planned("--model", str(other))["applications"][0]["args"]["release"] == f"{second}-no-index" != release


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
            _tree(path, None, None, None, None, ())
