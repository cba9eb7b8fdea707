"""The tagger around every kind of encoder, and its folder: config.json and model.safetensors, nothing else to run."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    BertConfig,
    BertweetTokenizer,
    DebertaV2Config,
    DebertaV2Tokenizer,
    LukeConfig,
    MPNetConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaTokenizer,
    XLMRobertaConfig,
    XLMRobertaTokenizer,
)
from transformers import AutoModel as AutoEncoder

from ctxner.config import parse_config
from ctxner.encoders import EncoderDropout, load_encoder, load_tokenizer, packaged_encoder, position_limit
from ctxner.labels import LabelSet
from ctxner.model.tagger import EncoderCRF, load_tagger
from ctxner.schema import Sentence
from ctxner.schemes import tags_to_spans
from ctxner.training.build import build_model
from ctxner.views.builder import ViewBuilder
from ctxner.views.view import ViewBatch
from tests.closeness import assert_close

pytestmark = pytest.mark.numeric

# R rows, P pieces, B sentences, T words, H hidden width, L tags

LABELS = LabelSet(("person", "place"))
TINY = {
    "vocab_size": 300,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
# Each with the limit that its published checkpoints have: the position table less what padding takes.
ENCODERS: dict[str, tuple[PreTrainedConfig, int]] = {
    "bert": (BertConfig(**TINY, max_position_embeddings=512), 512),
    "xlm-r": (XLMRobertaConfig(**TINY, max_position_embeddings=514, type_vocab_size=1), 512),
    "roberta": (RobertaConfig(**TINY, max_position_embeddings=514, type_vocab_size=1), 512),
    "bertweet": (RobertaConfig(**TINY, max_position_embeddings=130, type_vocab_size=1), 128),
    "luke": (LukeConfig(**TINY, max_position_embeddings=514, entity_vocab_size=5, entity_emb_size=8), 512),
    "mpnet": (MPNetConfig(**TINY, max_position_embeddings=514), 512),
    "deberta-v2": (
        DebertaV2Config(
            **TINY, max_position_embeddings=512, relative_attention=True, pos_att_type=["p2c", "c2p"],
            position_biased_input=True, conv_kernel_size=3, type_vocab_size=0,
        ),
        512,
    ),
    "deberta-v3": (
        DebertaV2Config(
            **TINY, max_position_embeddings=512, relative_attention=True, pos_att_type=["p2c", "c2p"],
            position_biased_input=False, position_buckets=256, norm_rel_ebd="layer_norm", share_att_key=True,
            type_vocab_size=0,
        ),
        512,
    ),
}  # fmt: skip
TEXTS = ["Paris Hilton sings in London", "don't go to Zürich, Müller!", "日本 is far away"] * 5


def _encoder_folder(config: PreTrainedConfig, path: Path) -> str:
    torch.manual_seed(0)
    AutoEncoder.from_config(config).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    """Folder of a tiny random BERT."""
    return _encoder_folder(ENCODERS["bert"][0], tmp_path_factory.mktemp("bert"))


def _tagger(path: str, **settings) -> EncoderCRF:
    torch.manual_seed(1)
    return EncoderCRF.on_encoder(load_encoder(path), LABELS, **settings)


def _batch(num_words: int = 6) -> ViewBatch:
    """Two rows of three-piece words, the second shorter."""
    torch.manual_seed(2)
    input_ids_RP = torch.randint(5, 300, (2, 3 * num_words + 2))
    attention_RP = torch.ones_like(input_ids_RP)
    attention_RP[1, -6:] = 0
    input_ids_RP[1, -6:] = 1
    places_T = 1 + 3 * torch.arange(num_words)
    mask_BT = torch.ones(2, num_words, dtype=torch.bool)
    mask_BT[1, -2:] = False
    return ViewBatch(
        input_ids_RP, attention_RP, torch.stack([places_T, places_T + 3 * num_words + 2]) * mask_BT, mask_BT
    )


def _forward(model: EncoderCRF, batch: ViewBatch) -> tuple[torch.Tensor, torch.Tensor]:
    return model(batch.input_ids_RP, batch.attention_RP, batch.word_index_BT)


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_any_encoder_loads_saves_and_loads_again_with_the_same_emissions(name, tmp_path):
    config, limit = ENCODERS[name]
    path = _encoder_folder(config, tmp_path / "encoder")
    model = _tagger(path, max_pieces=600, max_passages=3, word_dropout=0.2).eval()
    assert (model.config.max_pieces, position_limit(model.encoder)) == (limit, limit)
    batch = _batch()
    word_BTH, emissions_BTL = _forward(model, batch)
    plain_RPH = AutoEncoder.from_pretrained(path).eval()(batch.input_ids_RP, batch.attention_RP).last_hidden_state
    for row, length in ((0, 6), (1, 4)):
        assert_close(word_BTH[row, :length], plain_RPH[row, 1 : 1 + 3 * length : 3])
    model.save_pretrained(tmp_path / "tagger")
    again = load_tagger(tmp_path / "tagger")
    assert_close(_forward(again, batch)[1], emissions_BTL)
    assert (again.labels, again.config.max_pieces, again.config.max_passages) == (LABELS, limit, 3)
    assert again.config.word_dropout == 0.2
    assert not again.training


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_any_encoder_takes_a_row_of_its_full_limit(name, tmp_path):
    config, limit = ENCODERS[name]
    model = _tagger(_encoder_folder(config, tmp_path)).eval()
    input_ids_RP = torch.full((1, model.config.max_pieces), 7)
    word_BTH, _ = model(input_ids_RP, torch.ones_like(input_ids_RP), torch.arange(limit).unsqueeze(0))
    assert word_BTH.isfinite().all()


@pytest.mark.parametrize("name", ["bert", "xlm-r", "roberta", "bertweet", "luke", "mpnet"])
@torch.no_grad()
def test_the_position_limit_is_where_the_encoder_itself_stops(name, tmp_path):
    config, limit = ENCODERS[name]
    encoder = load_encoder(_encoder_folder(config, tmp_path)).eval()
    with pytest.raises((IndexError, RuntimeError)):
        encoder(torch.full((1, limit + 1), 7))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["bert", "camembert", "electra", "roberta", "xlm-roberta", "luke"])
def test_word_vectors_are_the_encoders_own_and_so_are_their_gradients(name, checkpointing, tmp_path):
    """What the last layer makes of the other pieces is left out, and missed by nobody."""
    extra = {"entity_vocab_size": 5, "entity_emb_size": 8} if name == "luke" else {}
    config = AutoConfig.for_model(name, **TINY, max_position_embeddings=130, **extra)
    model = EncoderCRF.on_encoder(
        load_encoder(_encoder_folder(config, tmp_path), dropout=EncoderDropout(0.0, 0.0)), LABELS
    ).train()
    if checkpointing:
        model.encoder.gradient_checkpointing_enable({"use_reentrant": False})
    batch, grads = _batch(), []
    for narrowed in (True, False):
        model.zero_grad()
        if narrowed:
            word_BTH = model.word_vectors(batch.input_ids_RP, batch.attention_RP, batch.word_index_BT)
        else:
            hidden_RPH = model.encoder(batch.input_ids_RP, attention_mask=batch.attention_RP).last_hidden_state
            expected_BTH = word_BTH.detach()
            word_BTH = hidden_RPH.flatten(0, 1)[batch.word_index_BT]
            assert_close(word_BTH, expected_BTH)
        (word_BTH * torch.linspace(-1, 1, word_BTH.shape[-1])).square().sum().backward()
        grads.append([own.grad for own in model.encoder.parameters()])
    assert any(own is not None and own.abs().max() > 0 for own in grads[0])
    assert_close(*grads)


@torch.no_grad()
def test_an_encoder_of_two_taggers_a_copy_and_a_pickle_give_the_same_word_vectors(bert):
    model, batch = _tagger(bert).eval(), _batch()
    word_BTH, _ = _forward(model, batch)
    again = EncoderCRF.on_encoder(model.encoder, LABELS).eval()
    for other in (again, model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_close(_forward(other, batch)[0], word_BTH)


@torch.no_grad()
def test_what_stands_on_padding_changes_no_emission(bert):
    model, batch = _tagger(bert).eval(), _batch()
    _, emissions_BTL = _forward(model, batch)
    batch.input_ids_RP[1, -6:] = 77
    assert_close(_forward(model, batch)[1][batch.mask_BT], emissions_BTL[batch.mask_BT])
    shorter = model(batch.input_ids_RP[1:, :-6], batch.attention_RP[1:, :-6], 1 + 3 * torch.arange(4).unsqueeze(0))[1]
    assert_close(shorter[0], emissions_BTL[1, :4])


def test_word_dropout_zeroes_whole_words_in_training_only(bert):
    model = _tagger(bert, dropout=0.0, word_dropout=0.3)
    word_BTH = torch.ones(40, 50, 16)
    with torch.no_grad():
        kept_BTL = model.train().emissions(word_BTH)
        whole_BTL = model.eval().emissions(word_BTH)
    dropped_BT = (kept_BTL == model.head.bias).all(-1)
    assert 0.25 < dropped_BT.float().mean() < 0.35
    assert_close(kept_BTL[~dropped_BT], whole_BTL[~dropped_BT])
    assert not (whole_BTL == model.head.bias).all(-1).any()


def test_without_dropout_training_and_evaluation_agree(bert):
    model = _tagger(bert, dropout=0.0)
    word_BTH = torch.randn(2, 3, 16)
    assert torch.equal(model.train().emissions(word_BTH), model.eval().emissions(word_BTH))


def test_emissions_are_float32_for_bfloat16_vectors(bert):
    model = _tagger(bert).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.emissions(torch.randn(2, 3, 16)).dtype == torch.float32


def test_a_saved_tagger_is_json_and_safetensors_only(bert, tmp_path):
    model = _tagger(bert)
    model.config.provenance = {"scores": {"plain": 0.5}}
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    assert json.loads((tmp_path / "config.json").read_text())["types"] == ["person", "place"]
    assert bert not in (tmp_path / "config.json").read_text()
    assert set(load_file(tmp_path / "model.safetensors")) == set(model.state_dict())
    assert load_tagger(tmp_path).config.provenance == {"scores": {"plain": 0.5}}


def test_a_loaded_tagger_keeps_the_constraints_of_its_crf(bert, tmp_path):
    model = _tagger(bert)
    model.save_pretrained(tmp_path)
    again = load_tagger(tmp_path)
    assert torch.equal(again.crf.penalties, model.crf.penalties)
    torch.manual_seed(0)
    best_BT, _ = again.crf.viterbi(torch.randn(50, 9, len(LABELS)) * 5, torch.ones(50, 9, dtype=torch.bool))
    spans = [tags_to_spans(LABELS.decode(row)) for row in best_BT.tolist()]  # raises on an illegal tag sequence
    assert sum(len(own) for own in spans) > 50


def test_a_tagger_without_constraints_stays_without_them(bert, tmp_path):
    _tagger(bert, legal_transitions=False).save_pretrained(tmp_path)
    assert load_tagger(tmp_path).crf.penalties is None


def test_a_half_precision_encoder_becomes_float32(bert, tmp_path):
    AutoEncoder.from_pretrained(bert).half().save_pretrained(tmp_path / "half")
    model = _tagger(str(tmp_path / "half"))
    model.save_pretrained(tmp_path / "tagger")
    for own in (model, load_tagger(tmp_path / "tagger")):
        assert {parameter.dtype for parameter in own.parameters()} == {torch.float32}


def test_the_limit_of_pieces_is_lowered_never_raised(bert):
    assert _tagger(bert, max_pieces=100).config.max_pieces == 100
    assert _tagger(bert, max_pieces=4096).config.max_pieces == 512


@pytest.mark.parametrize("frozen", [{}, {"freeze_embeddings": True}, {"freeze_embeddings": True, "freeze_layers": 1}])
def test_frozen_parts_get_no_gradient_and_all_else_does(bert, frozen):
    model = build_model(parse_config({"model": {"encoder": bert, **frozen}}), LABELS)
    batch = _batch()
    _, emissions_BTL = _forward(model, batch)
    model.crf.nll(emissions_BTL, torch.zeros(2, 6, dtype=torch.long), batch.mask_BT).sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    parts = {"freeze_embeddings": "encoder.embeddings.", "freeze_layers": "encoder.encoder.layer.0."}
    frozen_parts = tuple(parts[setting] for setting in frozen)
    assert without == {name for name, _ in model.named_parameters() if frozen_parts and name.startswith(frozen_parts)}


def test_more_frozen_layers_than_there_are_is_refused(bert):
    with pytest.raises(ValueError, match=r"model\.freeze_layers=99, but the encoder has \d layers"):
        build_model(parse_config({"model": {"encoder": bert, "freeze_layers": 99}}), LABELS)


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
        _tagger(bert).save_pretrained(path)
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
        _tagger(str(folder)).save_pretrained(tmp_path / "tagger")
        load_tagger(tmp_path / "tagger")
        assert "evil" not in (tmp_path / "tagger" / "config.json").read_text()
    else:
        with pytest.raises(ValueError, match="encoder"):
            load_encoder(str(folder))
    assert not ran.exists()


# Tokenizers of the families: each word must begin as it does inside a sentence.


def _unigram() -> list[tuple[str, float]]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    return [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]


def _byte_level() -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=295, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def _bertweet(path: Path) -> BertweetTokenizer:
    path.mkdir()
    merges = ["P a", "Pa r", "Par i", "Pari s</w>", "i n</w>", "g o</w>"]
    pieces = ["Paris</w>", "Par", "in", "go", *"abcdefghijklmnopqrstuvwxyzPH,.!'"]
    pieces += [f"{piece}@@" for piece in pieces]
    (path / "vocab.txt").write_text("".join(f"{piece.replace('</w>', '')} 1\n" for piece in dict.fromkeys(pieces)))
    (path / "bpe.codes").write_text("".join(f"{merge} 1\n" for merge in merges))
    return BertweetTokenizer(str(path / "vocab.txt"), str(path / "bpe.codes"))


def _tokenizer(name: str, path: Path) -> PreTrainedTokenizerBase:
    if name == "xlm-r":
        return XLMRobertaTokenizer(vocab=_unigram())
    if name == "deberta-v3":
        return DebertaV2Tokenizer(
            vocab=[("[PAD]", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[UNK]", 0.0), *_unigram()[4:]]
        )
    if name == "bertweet":
        return _bertweet(path / "raw")
    vocab, merges = _byte_level()
    return RobertaTokenizer(vocab=vocab, merges=merges)


@pytest.mark.parametrize(
    ("name", "config", "marker"),
    [
        ("xlm-r", "xlm-r", "▁"),
        ("deberta-v3", "deberta-v3", "▁"),
        ("roberta", "roberta", "Ġ"),
        ("bertweet", "bertweet", ""),
    ],
)
@torch.no_grad()
def test_every_word_begins_as_behind_a_space_and_the_folder_loads_whole(name, config, marker, tmp_path):
    path = tmp_path / "encoder"
    _encoder_folder(ENCODERS[config][0], path)
    _tokenizer(name, tmp_path).save_pretrained(path)
    tokenizer = load_tokenizer(str(path))
    words = ("Paris", "Hilton", "go", "in", "\ufe0f", "in")
    view = ViewBuilder(tokenizer, max_pieces=64).plain(Sentence("s", words))
    row = view.windows[0]
    assert (row[0], row[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    firsts = tokenizer.convert_ids_to_tokens([row[place] for _, place in view.word_places])
    for word, first in list(zip(words, firsts, strict=True))[:4]:
        assert first.startswith(marker)
        assert word.startswith(first.removeprefix(marker).removesuffix("@@"))
    assert firsts[3] == firsts[5]
    model = _tagger(str(path)).eval()
    model.save_pretrained(tmp_path / "tagger")
    tokenizer.save_pretrained(tmp_path / "tagger")
    again = load_tokenizer(str(tmp_path / "tagger"))
    assert ViewBuilder(again, max_pieces=64).plain(Sentence("s", words)) == view
    batch = ViewBuilder(again).collate([view])
    assert_close(_forward(load_tagger(tmp_path / "tagger"), batch)[1], _forward(model, batch)[1])


def test_an_encoder_that_has_only_a_sentencepiece_model_splits_words_as_that_does(tmp_path):
    """As XLM-R was first published; needs sentencepiece and protobuf."""
    _encoder_folder(ENCODERS["xlm-r"][0], tmp_path)
    prefix = tmp_path / "sentencepiece.bpe"
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(prefix), vocab_size=90, hard_vocab_limit=False, minloglevel=2
    )
    pieces = SentencePieceProcessor(model_file=f"{prefix}.model")
    tokenizer = load_tokenizer(str(tmp_path))
    for word in ("Paris", "Hilton", "go"):
        assert tokenizer.tokenize(word) == pieces.encode(word, out_type=str)
