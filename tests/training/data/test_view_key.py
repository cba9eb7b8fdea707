"""The key of stored views: what they depend on, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from ctxner.schema import Example, Sentence
from ctxner.training.data.view_key import views_key
from ctxner.views.builder import ViewBuilder
from tests.training.data.conftest import example_of, open_of, views_of


def test_the_key_tells_marked_views_and_other_runs_from_each_other(tokenizer):
    plain = ViewBuilder(tokenizer, max_pieces=24, mark_entries=False)
    marked = ViewBuilder(tokenizer, max_pieces=24)
    examples = [example_of(["Paris", "is"], ("Paris", None, *named)) for named in ((), ((0, 1),), ((1, 2),))]
    assert len({views_key([example], marked, "context") for example in examples}) == 3
    assert views_key(examples, marked, "context") != views_key(examples, plain, "context")
    assert views_key(examples, marked, "plain") == views_key(examples, plain, "plain")


BASE = example_of(["Paris", "sings"], ("A city.", None), ("A star.", None), id="s1")


def _with_passages(*passages) -> Example:
    return example_of(BASE.sentence.words, *passages, id="s1")


@pytest.mark.parametrize(
    "other",
    [
        [],
        [BASE, BASE],
        [replace(BASE, sentence=replace(BASE.sentence, id="s2"))],
        [replace(BASE, sentence=Sentence("s1", ("Parissings",)))],
        [replace(BASE, sentence=Sentence("s1", ("Pari", "ssings")))],
        [replace(BASE, sentence=Sentence("s1P", ("aris", "sings")))],
        [replace(BASE, sentence=Sentence("s1", ("Paris", "sings", "A city.")), passages=BASE.passages[1:])],
        [_with_passages(("A star.", None), ("A city.", None))],
        [_with_passages(("A city.", None), ("A star.", "near_duplicate"))],
        [_with_passages(("A city.", None))],
        [_with_passages(("A city.A", None), (" star.", None))],
    ],
)
def test_the_key_changes_with_the_examples(builder, other):
    assert views_key(other, builder, "context") != views_key([BASE], builder, "context")


def test_a_plain_key_depends_on_no_passage(builder, tokenizer):
    key = views_key([BASE], builder, "plain")
    assert key != views_key([BASE], builder, "context")
    assert key == views_key([_with_passages()], builder, "plain")
    assert key == views_key([BASE], ViewBuilder(tokenizer, max_pieces=24, max_passages=1), "plain")


def test_the_key_changes_with_the_limits_the_libraries_and_the_code(builder, tokenizer, monkeypatch, tmp_path):
    keys = [views_key([BASE], ViewBuilder(tokenizer, max_pieces=24, max_passages=n), "context") for n in (6, 5)]
    keys.append(views_key([BASE], ViewBuilder(tokenizer, max_pieces=25), "context"))
    code = tmp_path / "views.py"
    code.write_text("another")
    for owner, name, value in (
        ("ctxner.views.builder", "MAX_WORD_CHARS", 999),
        ("ctxner.views.builder", "MAX_WORD_PIECES", 31),
        ("ctxner.views.builder", "MAX_PASSAGE_CHARS", 19_999),
        *((f"ctxner.views.{name}", "__file__", str(code)) for name in ("builder", "shown", "view")),
        ("ctxner.training.data.view_key", "VERSION", 9),
        ("ctxner.training.data.view_key", "version", lambda name: "0" if name == "tokenizers" else "1"),
        ("ctxner.training.data.view_key", "version", lambda name: "1" if name == "tokenizers" else "0"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"{owner}.{name}", value)
            keys.append(views_key([BASE], builder, "context"))
    assert len({*keys}) == len(keys) == 12
    assert views_key([BASE], builder, "context") == keys[0]


def test_the_key_changes_with_the_tokenizer_but_not_with_its_last_call(minilm, builder):
    key, other = views_key([BASE], builder, "context"), AutoTokenizer.from_pretrained(minilm)
    assert views_key([BASE], ViewBuilder(other, max_pieces=24), "context") == key
    other("a b", truncation=True, max_length=4, padding="max_length")
    assert views_key([BASE], ViewBuilder(other, max_pieces=24), "context") == key
    other.sep_token = "[MASK]"
    assert views_key([BASE], ViewBuilder(other, max_pieces=24), "context") != key
    more = AutoTokenizer.from_pretrained(minilm)
    more.add_tokens(["Paris Hilton"])
    assert views_key([BASE], ViewBuilder(more, max_pieces=24), "context") != key


def test_a_tokenizer_in_python_has_a_key_of_its_files(minilm, builder, tmp_path):
    vocabulary = (Path(minilm) / "vocab.txt").read_text().splitlines()
    keys = []
    for name, words in (("a", vocabulary), ("b", vocabulary), ("c", [*vocabulary[:-1], "another"])):
        (tmp_path / name).write_text("\n".join(words))
        own = ViewBuilder(BertTokenizerLegacy(str(tmp_path / name)), max_pieces=24)
        keys.append(views_key([BASE], own, "context"))
        assert list(open_of(tmp_path / "cache", [BASE], own)) == views_of([BASE], own, "context")
    assert keys[0] == keys[1] != keys[2]
    assert views_key([BASE], builder, "context") not in keys
