"""Marks around the words that name an entry; passages left out of a view with their marks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.views.builder import ViewBuilder, mark_pieces
from ctxner.views.view import keep_passages
from tests.views.conftest import WORDS


def _entry(number, title, *named, text="It is known.", **fields) -> ScoredPassage:
    return ScoredPassage(
        Passage(f"e{number}", "s", text, title, **fields), 0.0, number + 1, named=named, link_score=0.9
    )


ENTRIES = (
    _entry(0, "lactic acid", (1, 3), (6, 7)),
    _entry(1, "acid house", (1, 3)),  # the same words: one pair of marks
    _entry(2, "york", (4, 5), type="city"),
    ScoredPassage(Passage("t", "s", "A text about York."), 1.0, 4),
)
NAMING = Sentence("s", ("Some", "lactic", "acid", "in", "York", "unaffiliated", "acids"))


def test_marks_stand_around_the_words_that_name_an_entry_and_word_places_stay_true(tokenizer):
    builder = ViewBuilder(tokenizer)
    view = builder.context(Example(NAMING, ENTRIES))
    pieces = tokenizer.convert_ids_to_tokens(view.windows[0])
    end = pieces.index("[SEP]")
    wanted = (
        "[CLS] some [unused1] lac ##tic acid [unused2] in [unused1] york [unused2] city una ##ffi ##lia ##ted "
        "[unused1] acids"
    )
    assert " ".join(pieces[:end]) == f"{wanted} [unused2]"
    words = [pieces[place] for _, place in view.word_places]
    assert words == ["some", "lac", "acid", "in", "york", "una", "acids"]
    assert [(pieces[position], used) for position, used in view.marks] == [
        *(("[unused1]", 0), ("[unused2]", 0), ("[unused1]", 2), ("[unused2]", 2), ("city", 2)),
        *(("[unused1]", 0), ("[unused2]", 0)),
    ]
    shown = tokenizer.decode(view.windows[0][end + 1 : -1])
    assert (
        shown == "lactic acid : it is known. acid house : it is known. york ( city ) : it is known. a text about york."
    )


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("mark_entries", [True, False])
def test_keeping_passages_gives_the_view_of_those_passages(tokenizer, number, mark_entries):
    builder = ViewBuilder(tokenizer, mark_entries=mark_entries)
    view = builder.context(Example(NAMING, ENTRIES))
    sizes = [scored.num_pieces for scored in view.passages]
    kept = keep_passages(view, sizes, number)
    wanted = builder.context(Example(NAMING, ENTRIES[:number]))
    assert (kept.windows, kept.word_places) == (wanted.windows, wanted.word_places)


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=12),
    runs=st.lists(st.tuples(st.integers(0, 11), st.integers(1, 3)), max_size=5),
    max_pieces=st.integers(8, 60),
    number=st.integers(0, 6),
)
def test_marks_never_move_a_word_or_exceed_the_limit(tokenizer, words, runs, max_pieces, number):
    spans = [(start, min(len(words), start + length)) for start, length in runs if start < len(words)]
    disjoint = [run for n, run in enumerate(spans) if all(run[1] <= old[0] or old[1] <= run[0] for old in spans[:n])]
    example = Example(Sentence("s", tuple(words)), tuple(_entry(n, "x", run) for n, run in enumerate(disjoint)))
    builder = ViewBuilder(tokenizer, max_pieces=max_pieces)
    plain, view = builder.plain(example.sentence), builder.context(example)
    assert view.longest_row <= max_pieces
    used = [scored.num_pieces for scored in view.passages if scored.num_pieces is not None]
    for shown in (view, keep_passages(view, used, number)):
        pieces = [shown.windows[window][place] for window, place in shown.word_places]
        assert pieces == [plain.windows[window][place] for window, place in plain.word_places]
    assert len(view.marks) == 2 * len(used)
    left = [piece for piece in view.windows[0] if piece not in builder.marks]
    assert left[: len(plain.windows[0])] == list(plain.windows[0])


@pytest.mark.parametrize("max_pieces", range(12, 60))
def test_marks_and_types_count_towards_the_limit(tokenizer, max_pieces):
    builder = ViewBuilder(tokenizer, max_pieces=max_pieces)
    assert builder.context(Example(NAMING, ENTRIES)).longest_row <= max_pieces


def test_a_tokenizer_without_unused_pieces_marks_by_its_mask_and_one_without_any_not_at_all(tokenizer):
    class Bare:
        mask_token_id = 7

        def get_vocab(self):
            return {"a": 0}

    bare = Bare()
    assert mark_pieces(bare) == (7, 7)
    bare.mask_token_id = None
    assert mark_pieces(bare) is None
