"""A tagger's folder and an encoder's: config.json and model.safetensors, nothing else to run; others are refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel as AutoEncoder

from ctxner.encoders import load_encoder, load_tokenizer, packaged_encoder
from ctxner.model.tagger import EncoderCRF, load_tagger
from ctxner.schemes import tags_to_spans
from tests.model.tiny_encoders import LABELS, make_tagger

pytestmark = pytest.mark.numeric


def test_a_saved_tagger_is_json_and_safetensors_only(bert, tmp_path):
    model = make_tagger(bert)
    model.config.provenance = {"scores": {"plain": 0.5}}
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    assert json.loads((tmp_path / "config.json").read_text())["types"] == ["person", "place"]
    assert bert not in (tmp_path / "config.json").read_text()
    assert set(load_file(tmp_path / "model.safetensors")) == set(model.state_dict())
    assert load_tagger(tmp_path).config.provenance == {"scores": {"plain": 0.5}}


def test_a_loaded_tagger_keeps_the_constraints_of_its_crf(bert, tmp_path):
    model = make_tagger(bert)
    model.save_pretrained(tmp_path)
    again = load_tagger(tmp_path)
    assert torch.equal(again.crf.penalties, model.crf.penalties)
    torch.manual_seed(0)
    best_BT, _ = again.crf.viterbi(torch.randn(50, 9, len(LABELS)) * 5, torch.ones(50, 9, dtype=torch.bool))
    spans = [tags_to_spans(LABELS.decode(row)) for row in best_BT.tolist()]  # raises on an illegal tag sequence
    assert sum(len(own) for own in spans) > 50


def test_a_tagger_without_constraints_stays_without_them(bert, tmp_path):
    make_tagger(bert, legal_transitions=False).save_pretrained(tmp_path)
    assert load_tagger(tmp_path).crf.penalties is None


def test_a_half_precision_encoder_becomes_float32(bert, tmp_path):
    AutoEncoder.from_pretrained(bert).half().save_pretrained(tmp_path / "half")
    model = make_tagger(str(tmp_path / "half"))
    model.save_pretrained(tmp_path / "tagger")
    for own in (model, load_tagger(tmp_path / "tagger")):
        assert {parameter.dtype for parameter in own.parameters()} == {torch.float32}


@pytest.mark.parametrize("make", ["absent", "empty", "no weights", "broken weights", "broken config", "pickle"])
def test_a_wrong_encoder_path_is_refused_by_name(bert, tmp_path, make):
    path = tmp_path / "encoder"
    if make != "absent":
        path.mkdir()
    if make in ("no weights", "broken weights", "pickle"):
        (path / "config.json").write_bytes((Path(bert) / "config.json").read_bytes())
    if make == "broken weights":
        (path / "model.safetensors").write_bytes((Path(bert) / "model.safetensors").read_bytes()[:2000])
    if make == "broken config":
        (path / "config.json").write_text("{")
    if make == "pickle":
        torch.save(load_file(Path(bert) / "model.safetensors"), path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"encoder .*config\.json and model\.safetensors") as caught:
        load_encoder(str(path))
    assert str(path) in str(caught.value)


def test_an_encoder_whose_weights_lack_a_part_is_refused(bert, tmp_path):
    weights = load_file(Path(bert) / "model.safetensors")
    (tmp_path / "config.json").write_bytes((Path(bert) / "config.json").read_bytes())
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"no weights for .*encoder\.layer\.1\.output\.dense\.weight"):
        load_encoder(str(tmp_path))


def test_a_saved_tagger_reads_views_as_it_was_trained(bert, tmp_path):
    for marks, shapes in ((False, True), (True, False)):
        model = EncoderCRF.on_encoder(load_encoder(bert), LABELS, mark_entries=marks, word_shapes=shapes)
        model.save_pretrained(tmp_path / str(marks))
        views = load_tagger(tmp_path / str(marks)).view_builder(load_tokenizer(packaged_encoder()))
        assert (views.marks is not None, bool(views.shapes)) == (marks, shapes)


def test_an_encoder_saved_without_its_pooler_is_fine(bert, tmp_path):
    weights = load_file(Path(bert) / "model.safetensors")
    (tmp_path / "config.json").write_bytes((Path(bert) / "config.json").read_bytes())
    kept = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    load_encoder(str(tmp_path))


@pytest.mark.parametrize("make", ["absent", "empty", "an encoder", "broken weights", "lacks the head"])
def test_a_folder_that_is_no_tagger_is_refused_by_name(bert, tmp_path, make):
    path = Path(bert) if make == "an encoder" else tmp_path / "tagger"
    if make in ("broken weights", "lacks the head"):
        make_tagger(bert).save_pretrained(path)
        file = path / "model.safetensors"
        weights = load_file(file)
        if make == "broken weights":
            file.write_bytes(file.read_bytes()[:3000])
        else:
            save_file({k: v for k, v in weights.items() if "head" not in k}, file, metadata={"format": "pt"})
    elif make == "empty":
        path.mkdir()
    with pytest.raises(ValueError, match="ctxner") as caught:
        load_tagger(path)
    assert str(path) in str(caught.value)


def test_a_folder_without_a_tokenizer_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer .*not loadable"):
        load_tokenizer(str(tmp_path / "absent"))


@pytest.mark.parametrize("known", [True, False])
def test_code_that_comes_with_a_model_is_never_run(bert, tmp_path, known):
    ran = tmp_path / "ran"
    folder = tmp_path / "encoder"
    AutoEncoder.from_pretrained(bert).save_pretrained(folder)
    tree = json.loads((folder / "config.json").read_text())
    tree["auto_map"] = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"}
    tree["model_type"] = "bert" if known else "evil"
    (folder / "config.json").write_text(json.dumps(tree))
    (folder / "evil.py").write_text(f"import pathlib; pathlib.Path({str(ran)!r}).touch()\n")
    if known:
        make_tagger(str(folder)).save_pretrained(tmp_path / "tagger")
        load_tagger(tmp_path / "tagger")
        assert "evil" not in (tmp_path / "tagger" / "config.json").read_text()
    else:
        with pytest.raises(ValueError, match="encoder"):
            load_encoder(str(folder))
    assert not ran.exists()
