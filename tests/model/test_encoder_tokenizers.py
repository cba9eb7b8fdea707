"""Tokenizers of the encoders' families: each word must begin as it does inside a sentence."""

import json
from pathlib import Path

import pytest
import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertweetTokenizer,
    DebertaV2Tokenizer,
    PreTrainedTokenizerBase,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from ctxner.encoders import load_tokenizer
from ctxner.model.tagger import load_tagger
from ctxner.schema import Sentence
from ctxner.views.builder import ViewBuilder
from tests.closeness import assert_close
from tests.model.tiny_encoders import ENCODERS, forward, make_tagger, save_encoder

pytestmark = pytest.mark.numeric

TEXTS = ["Paris Hilton sings in London", "don't go to Zürich, Müller!", "日本 is far away"] * 5


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
    save_encoder(ENCODERS[config][0], path)
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
    model = make_tagger(str(path)).eval()
    model.save_pretrained(tmp_path / "tagger")
    tokenizer.save_pretrained(tmp_path / "tagger")
    again = load_tokenizer(str(tmp_path / "tagger"))
    assert ViewBuilder(again, max_pieces=64).plain(Sentence("s", words)) == view
    batch = ViewBuilder(again).collate([view])
    assert_close(forward(load_tagger(tmp_path / "tagger"), batch)[1], forward(model, batch)[1])


def test_an_encoder_that_has_only_a_sentencepiece_model_splits_words_as_that_does(tmp_path):
    """As XLM-R was first published; needs sentencepiece and protobuf."""
    save_encoder(ENCODERS["xlm-r"][0], tmp_path)
    prefix = tmp_path / "sentencepiece.bpe"
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(prefix), vocab_size=90, hard_vocab_limit=False, minloglevel=2
    )
    pieces = SentencePieceProcessor(model_file=f"{prefix}.model")
    tokenizer = load_tokenizer(str(tmp_path))
    for word in ("Paris", "Hilton", "go"):
        assert tokenizer.tokenize(word) == pieces.encode(word, out_type=str)
