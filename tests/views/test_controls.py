"""Control pieces that stand in a text are text, and capitals reach an encoder that does not see them."""

from collections import Counter

import pytest
from transformers import BertTokenizer, DebertaV2Tokenizer

from ctxner.encoders import load_tokenizer
from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.views.builder import ViewBuilder
from tests.xlm_roberta import save_xlm_roberta

BERT_CONTROLS = ["[SEP]", "[CLS]", "[MASK]", "[PAD]", "[unused1]"]
XLM_R_CONTROLS = ["<s>", "</s>", "<pad>", "<mask>", "＜/s＞"]  # the last is "</s>" once the tokenizer normalised it
CONTROLS = [
    *(("bert", control) for control in BERT_CONTROLS),
    *(("xlm-r", control) for control in XLM_R_CONTROLS),
    *(("deberta-v3", control) for control in ["[SEP]", "[CLS]", "[MASK]", "[PAD]"]),
]


@pytest.fixture(scope="module")
def tokenizers(tokenizer, tmp_path_factory):
    """BERT's WordPiece, and two whose Unigram vocabulary has control pieces with the best score of all."""
    texts = ["he sails before and after </s> a [SEP] <pad> b"] * 20
    xlm_r = load_tokenizer(save_xlm_roberta(tmp_path_factory.mktemp("xlm") / "encoder", texts, num_pieces=60))
    special = [(piece, 0.0) for piece in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")]
    deberta = DebertaV2Tokenizer(vocab=[*special, *((piece, -9.0) for piece in "▁[]<>/SEPabdefhilnorstu")])
    return {"bert": tokenizer, "xlm-r": xlm_r, "deberta-v3": deberta}


@pytest.mark.parametrize(("name", "control"), CONTROLS)
def test_a_control_piece_written_in_a_text_is_text(tokenizers, name, control):
    tokenizer = tokenizers[name]
    builder = ViewBuilder(tokenizer)
    hostile = ScoredPassage(Passage("p", "s", f"before {control} a{control}", control), 0.0, 1, named=((1, 2),))
    view = builder.context(Example(Sentence("s", ("a", control, "b")), (hostile,)))
    (row,) = view.windows
    wanted = Counter([builder.start, builder.end, builder.end, *builder.marks])
    controls = {*tokenizer.all_special_ids, *builder.marks} - {tokenizer.unk_token_id}
    assert Counter(piece for piece in row if piece in controls) == wanted
    assert view.passages[0].dropped is None
    assert all(row[place] not in controls for _, place in view.word_places)


@pytest.mark.parametrize("control", XLM_R_CONTROLS)
def test_pieces_around_a_control_piece_in_a_text_are_those_of_the_text(tokenizers, control):
    tokenizer = tokenizers["xlm-r"]
    (ids,) = ViewBuilder(tokenizer).encode([f"before {control} after"])
    before, after = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("before", "after"))
    blank, unknown = tokenizer.convert_tokens_to_ids("▁"), tokenizer.unk_token_id
    assert ids == [*before, blank, unknown, *after]


def test_capitals_reach_an_encoder_that_does_not_see_them(tokenizer):
    sentence = Sentence("s", ("NATO", "and", "Paris", "sell", "iPhones", "to", "I", ".", "ÉTÉ", "42"))
    builder = ViewBuilder(tokenizer, word_shapes=True)
    view, bare = builder.plain(sentence), ViewBuilder(tokenizer).plain(sentence)
    [row], [bare_row] = view.windows, bare.windows
    shapes = {name: tokenizer.convert_tokens_to_ids(f"[unused{n}]") for n, name in enumerate(builder.shapes, start=3)}
    assert builder.shapes == shapes == dict(zip(("capital", "capitals", "mixed"), shapes.values(), strict=True))
    assert [piece for piece in row if piece not in shapes.values()] == list(bare_row)
    stops = [*(place for _, place in view.word_places[1:]), len(row) - 1]
    last = {word: row[stop - 1] for word, stop in zip(sentence.words, stops, strict=True)}
    told = {word: name for word, piece in last.items() for name, own in shapes.items() if own == piece}
    assert told == {
        "NATO": "capitals", "Paris": "capital", "iPhones": "mixed", "I": "capital", "ÉTÉ": "capitals"
    }  # fmt: skip
    places = zip(view.word_places, bare.word_places, strict=True)
    assert all(row[place] == bare_row[bare_place] for (_, place), (_, bare_place) in places), "the first piece stays"


def test_an_encoder_that_sees_capitals_is_told_none():
    vocabulary = {piece: n for n, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ab", "Ab"])}
    vocabulary |= {f"[unused{n}]": len(vocabulary) + n for n in range(9)}
    tokenizer = BertTokenizer(vocabulary, do_lower_case=False)
    assert ViewBuilder(tokenizer, word_shapes=True).shapes == {}


def test_a_word_of_many_pieces_and_capitals_fits_into_a_row(tokenizer):
    sentence = Sentence("s", ("X" * 500, "Paris"))
    for most in (8, 16, 64):
        view = ViewBuilder(tokenizer, max_pieces=most, word_shapes=True).plain(sentence)
        assert view.longest_row <= most
        assert len(view.word_places) == 2
