"""The tagger around every kind of encoder: its emissions, their gradients, dropout and frozen parts."""

import copy
import pickle

import pytest
import torch
from transformers import AutoConfig
from transformers import AutoModel as AutoEncoder

from ctxner.config import parse_config
from ctxner.encoders import EncoderDropout, load_encoder, position_limit
from ctxner.model.tagger import EncoderCRF, load_tagger
from ctxner.training.build import build_model
from tests.closeness import assert_close
from tests.model.tiny_encoders import ENCODERS, LABELS, TINY, forward, make_batch, make_tagger, save_encoder

pytestmark = pytest.mark.numeric

# R rows, P pieces, B sentences, T words, H hidden width, L tags


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_any_encoder_loads_saves_and_loads_again_with_the_same_emissions(name, tmp_path):
    config, limit = ENCODERS[name]
    path = save_encoder(config, tmp_path / "encoder")
    model = make_tagger(path, max_pieces=600, max_passages=3, word_dropout=0.2).eval()
    assert (model.config.max_pieces, position_limit(model.encoder)) == (limit, limit)
    batch = make_batch()
    word_BTH, emissions_BTL = forward(model, batch)
    plain_RPH = AutoEncoder.from_pretrained(path).eval()(batch.input_ids_RP, batch.attention_RP).last_hidden_state
    for row, length in ((0, 6), (1, 4)):
        assert_close(word_BTH[row, :length], plain_RPH[row, 1 : 1 + 3 * length : 3])
    model.save_pretrained(tmp_path / "tagger")
    again = load_tagger(tmp_path / "tagger")
    assert_close(forward(again, batch)[1], emissions_BTL)
    assert (again.labels, again.config.max_pieces, again.config.max_passages) == (LABELS, limit, 3)
    assert again.config.word_dropout == 0.2
    assert not again.training


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_any_encoder_takes_a_row_of_its_full_limit(name, tmp_path):
    config, limit = ENCODERS[name]
    model = make_tagger(save_encoder(config, tmp_path)).eval()
    input_ids_RP = torch.full((1, model.config.max_pieces), 7)
    word_BTH, _ = model(input_ids_RP, torch.ones_like(input_ids_RP), torch.arange(limit).unsqueeze(0))
    assert word_BTH.isfinite().all()


@pytest.mark.parametrize("name", ["bert", "xlm-r", "roberta", "bertweet", "luke", "mpnet"])
@torch.no_grad()
def test_the_position_limit_is_where_the_encoder_itself_stops(name, tmp_path):
    config, limit = ENCODERS[name]
    encoder = load_encoder(save_encoder(config, tmp_path)).eval()
    with pytest.raises((IndexError, RuntimeError)):
        encoder(torch.full((1, limit + 1), 7))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["bert", "camembert", "electra", "roberta", "xlm-roberta", "luke"])
def test_word_vectors_are_the_encoders_own_and_so_are_their_gradients(name, checkpointing, tmp_path):
    """What the last layer makes of the other pieces is left out, and missed by nobody."""
    extra = {"entity_vocab_size": 5, "entity_emb_size": 8} if name == "luke" else {}
    config = AutoConfig.for_model(name, **TINY, max_position_embeddings=130, **extra)
    model = EncoderCRF.on_encoder(
        load_encoder(save_encoder(config, tmp_path), dropout=EncoderDropout(0.0, 0.0)), LABELS
    ).train()
    if checkpointing:
        model.encoder.gradient_checkpointing_enable({"use_reentrant": False})
    batch, grads = make_batch(), []
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
    model, batch = make_tagger(bert).eval(), make_batch()
    word_BTH, _ = forward(model, batch)
    again = EncoderCRF.on_encoder(model.encoder, LABELS).eval()
    for other in (again, model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_close(forward(other, batch)[0], word_BTH)


@torch.no_grad()
def test_what_stands_on_padding_changes_no_emission(bert):
    model, batch = make_tagger(bert).eval(), make_batch()
    _, emissions_BTL = forward(model, batch)
    batch.input_ids_RP[1, -6:] = 77
    assert_close(forward(model, batch)[1][batch.mask_BT], emissions_BTL[batch.mask_BT])
    shorter = model(batch.input_ids_RP[1:, :-6], batch.attention_RP[1:, :-6], 1 + 3 * torch.arange(4).unsqueeze(0))[1]
    assert_close(shorter[0], emissions_BTL[1, :4])


def test_word_dropout_zeroes_whole_words_in_training_only(bert):
    model = make_tagger(bert, dropout=0.0, word_dropout=0.3)
    word_BTH = torch.ones(40, 50, 16)
    with torch.no_grad():
        kept_BTL = model.train().emissions(word_BTH)
        whole_BTL = model.eval().emissions(word_BTH)
    dropped_BT = (kept_BTL == model.head.bias).all(-1)
    assert 0.25 < dropped_BT.float().mean() < 0.35
    assert_close(kept_BTL[~dropped_BT], whole_BTL[~dropped_BT])
    assert not (whole_BTL == model.head.bias).all(-1).any()


def test_without_dropout_training_and_evaluation_agree(bert):
    model = make_tagger(bert, dropout=0.0)
    word_BTH = torch.randn(2, 3, 16)
    assert torch.equal(model.train().emissions(word_BTH), model.eval().emissions(word_BTH))


def test_emissions_are_float32_for_bfloat16_vectors(bert):
    model = make_tagger(bert).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.emissions(torch.randn(2, 3, 16)).dtype == torch.float32


def test_the_limit_of_pieces_is_lowered_never_raised(bert):
    assert make_tagger(bert, max_pieces=100).config.max_pieces == 100
    assert make_tagger(bert, max_pieces=4096).config.max_pieces == 512


@pytest.mark.parametrize("frozen", [{}, {"freeze_embeddings": True}, {"freeze_embeddings": True, "freeze_layers": 1}])
def test_frozen_parts_get_no_gradient_and_all_else_does(bert, frozen):
    model = build_model(parse_config({"model": {"encoder": bert, **frozen}}), LABELS)
    batch = make_batch()
    _, emissions_BTL = forward(model, batch)
    model.crf.nll(emissions_BTL, torch.zeros(2, 6, dtype=torch.long), batch.mask_BT).sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    parts = {"freeze_embeddings": "encoder.embeddings.", "freeze_layers": "encoder.encoder.layer.0."}
    frozen_parts = tuple(parts[setting] for setting in frozen)
    assert without == {name for name, _ in model.named_parameters() if frozen_parts and name.startswith(frozen_parts)}


def test_more_frozen_layers_than_there_are_is_refused(bert):
    with pytest.raises(ValueError, match=r"model\.freeze_layers=99, but the encoder has \d layers"):
        build_model(parse_config({"model": {"encoder": bert, "freeze_layers": 99}}), LABELS)
