"""A tagger's folder from somebody else: nothing is fetched, and no size is used before the weights vouch for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ctxner.encoders import encoder_config
from ctxner.model.folder import check_folder
from ctxner.model.tagger import load_tagger, saved_types


@pytest.fixture(scope="module")
def saved(tagger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tagger.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "model")
    return tmp_path / "model"


def change(path: Path, name: str, value: Any) -> None:
    tree = json.loads(path.read_text())
    part = tree
    *sections, last = name.split(".")
    for section in sections:
        part = part[section]
    part[last] = value
    path.write_text(json.dumps(tree))


def test_what_was_saved_passes(folder: Path) -> None:
    check_folder(folder)
    assert load_tagger(folder).labels.types == saved_types(folder) == ("person", "place")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("auto_map", {"AutoModel": "code.Model"}),
        ("encoder.auto_map", {"AutoConfig": "somebody/repository--code.Config"}),
        ("attn_implementation", "somebody/kernels"),
        ("_attn_implementation", "somebody/kernels@v1:layer"),
        ("encoder.attn_implementation", "flash_attention_3"),  # fetched where the package `kernels` is installed
        ("attn_implementation", {"": "sdpa", "part": "somebody/kernels"}),
        ("attn_implementation", ["sdpa"]),
        ("quantization_config", {"quant_method": "awq"}),
        ("encoder.use_kernels", True),
        ("encoder.parts", [{"auto_map": {"AutoModel": "code.Model"}}]),
    ],
)
def test_configs_that_name_code_or_kernels_to_fetch_are_refused(folder: Path, name: str, value: Any) -> None:
    change(folder / "config.json", name, value)
    for use in (load_tagger, saved_types):
        with pytest.raises(ValueError, match=r"config\.json: .* (to fetch|fetched from a hub)"):
            use(folder)


def test_tokenizers_and_adapters_that_name_something_to_fetch_are_refused(folder: Path) -> None:
    change(folder / "tokenizer_config.json", "auto_map", {"AutoTokenizer": ["code.Tokenizer", None]})
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: auto_map names code"):
        load_tagger(folder)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/model"}')
    with pytest.raises(ValueError, match=r"adapter_config\.json: adapters name a model to fetch"):
        load_tagger(folder)


def test_an_encoder_of_its_own_is_refused_with_kernels_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "attn_implementation": "somebody/kernels"}')
    with pytest.raises(ValueError, match="may be fetched from a hub"):
        encoder_config(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("types", ["person", "place", "extra"], "3 entity types have 13 tags, but .* has scores of 9"),
        ("encoder.vocab_size", 10**12, "encoder.vocab_size is 1e"),
        ("encoder.num_hidden_layers", 10**6, "encoder.num_hidden_layers is 1e"),
        ("encoder.max_position_embeddings", 10**12, "encoder.max_position_embeddings is 1e"),
        ("encoder.layer_norm_eps", float("nan"), "encoder.layer_norm_eps is nan"),
        ("encoder.hidden_act", "[/none]", "encoder: KeyError"),
        ("max_pieces", 10**12, "max_pieces is 1000000000000, wanted"),
        ("dropout", "much", "dropout is 'much', wanted"),
    ],
)
def test_numbers_of_a_config_are_bounded_by_the_weights(folder: Path, name: str, value: Any, message: str) -> None:
    change(folder / "config.json", name, value)
    with pytest.raises(ValueError, match=message) as refused:
        load_tagger(folder)
    assert f"{folder}/config.json" in str(refused.value)
