"""Contexts files: what is written comes back, and a file that does not belong to the data is refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctxner.files.columns import ColumnFormat
from ctxner.files.contexts import Context, join_contexts, load_examples, read_contexts, unlabelled_examples
from ctxner.schema import Passage, ScoredPassage, Sentence, context_schema
from tests.contexts_files import write_contexts


def _passage(number: int, **changes) -> ScoredPassage:
    own = Passage(f"p{number}", "wiki", f"Text {number} \U0001f600\r\n日本", "Title" if number else "")
    return ScoredPassage(own, 2.5 + number, number + 1, **changes)


CONTEXTS = {
    "s-1": Context(("Paris", "é\ufe0f", ""), "paris^2.0", (_passage(0, rerank_score=0.5), _passage(1))),
    "s-0": Context(("a",), "", (), error="RuntimeError: no searcher"),
    "日-2": Context(("b", "c"), "b", (_passage(2, dropped="near_duplicate"),)),
}


def test_contexts_come_back_as_written(tmp_path):
    write_contexts(CONTEXTS, tmp_path / "new" / "train.parquet")
    found = read_contexts(tmp_path / "new" / "train.parquet")
    assert found == CONTEXTS
    assert list(found) == list(CONTEXTS)


def test_no_contexts_at_all_come_back_too(tmp_path):
    write_contexts({}, tmp_path / "none.parquet")
    assert read_contexts(tmp_path / "none.parquet") == {}


def test_a_folder_is_read_as_the_union_of_its_files_and_hidden_ones_are_left_out(tmp_path):
    write_contexts({"s-1": CONTEXTS["s-1"]}, tmp_path / "a.parquet")
    write_contexts({"s-0": CONTEXTS["s-0"]}, tmp_path / "b.parquet")
    (tmp_path / ".c.parquet.123").write_bytes(b"PAR1 half")
    (tmp_path / "_SUCCESS").touch()
    assert read_contexts(tmp_path) == {name: CONTEXTS[name] for name in ("s-1", "s-0")}


def test_a_sentence_id_in_two_files_is_refused(tmp_path):
    for name in ("a", "b"):
        write_contexts({"s-1": CONTEXTS["s-1"]}, tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match="'s-1' occurs twice"):
        read_contexts(tmp_path)


def test_passages_are_joined_by_id_not_by_position():
    contexts = {**CONTEXTS, "s-0": Context(("a",), "", ())}
    sentences = [Sentence(name, contexts[name].words) for name in ("日-2", "s-1", "s-0")]
    examples = join_contexts(sentences, contexts)
    assert [example.sentence.id for example in examples] == ["日-2", "s-1", "s-0"]
    assert all(example.passages == CONTEXTS[example.sentence.id].passages for example in examples)


def test_contexts_of_other_sentences_are_ignored_and_counted(caplog):
    caplog.set_level("INFO", "ctxner")
    (example,) = join_contexts([Sentence("s-1", CONTEXTS["s-1"].words)], CONTEXTS, where="dev.parquet")
    assert example.passages == CONTEXTS["s-1"].passages
    assert caplog.messages == ["dev.parquet: 2 of 3 rows are for sentences that the data lacks; ignored"]


def test_sentences_without_contexts_are_refused_with_their_number():
    sentences = [Sentence(name, ("a",)) for name in ("s-0", "s-9", "s-8")]
    with pytest.raises(
        ValueError, match=r"d\.parquet: no row for 2 of 3 sentences, first 's-9'; run `ctxner retrieve`"
    ):
        join_contexts(sentences, CONTEXTS, where="d.parquet")


def test_contexts_of_other_words_under_the_same_id_are_refused():
    with pytest.raises(ValueError, match=r"'s-0' was retrieved for 'a', but the data has 'A'"):
        join_contexts([Sentence("s-0", ("A",))], {"s-0": CONTEXTS["s-0"]})


def numbered(*texts: str) -> list[Sentence]:
    return [Sentence(f"train-{n}", tuple(text.split())) for n, text in enumerate(texts)]


def test_contexts_stay_valid_for_the_sentences_that_are_unchanged_when_one_is_deleted(caplog):
    """Ids count sentences: the third sentence was train-2 and is train-1 once the second one is gone."""
    caplog.set_level("INFO", "ctxner")
    before = numbered("Ann sings", "a bad one", "Bo sings", "Cy sings")
    contexts = {own.id: Context(own.words, "q", (_passage(n),)) for n, own in enumerate(before)}
    examples = join_contexts(numbered("Ann sings", "Bo sings", "Cy sings"), contexts, where="t.parquet")
    assert [example.passages[0].passage.id for example in examples] == ["p0", "p2", "p3"]
    assert caplog.messages == [
        "t.parquet: 2 of 3 sentences have another id now; found by their words",
        "t.parquet: 1 of 4 rows are for sentences that the data lacks; ignored",
    ]


def test_of_two_rows_with_the_same_words_the_one_with_the_id_is_taken():
    contexts = {own.id: Context(own.words, "q", (_passage(n),)) for n, own in enumerate(numbered("Go", "Go", "Go"))}
    examples = join_contexts(list(reversed(numbered("Go", "Go", "Go"))), contexts)
    assert [example.passages[0].passage.id for example in examples] == ["p2", "p1", "p0"]


def test_a_changed_sentence_is_refused_though_the_others_have_only_moved():
    contexts = {own.id: Context(own.words, "q", ()) for own in numbered("x", "Ann sings", "Bo sings")}
    with pytest.raises(ValueError, match=r"1 of 2 sentences, as 'train-1' was .*'Ann sings', .* has 'Bo hums'"):
        join_contexts(numbered("Ann sings", "Bo hums"), contexts)


def failing(num_failed: int, num_sentences: int = 20) -> dict[str, Context]:
    return {
        f"s-{n}": Context(("a",), "a", () if n < num_failed else (_passage(1),), "no disk" if n < num_failed else None)
        for n in range(num_sentences)
    }


def test_a_few_sentences_whose_retrieval_failed_are_logged_with_the_first_error(tmp_path, caplog):
    sentences = [Sentence(f"s-{n}", ("a",)) for n in range(20)]
    examples = join_contexts(sentences, failing(2), where="dev.parquet")
    assert [len(example.passages) for example in examples] == [0, 0, *[1] * 18]
    write_contexts(failing(2), tmp_path / "u.parquet")
    assert len(unlabelled_examples(tmp_path / "u.parquet")) == 18
    told = "retrieval failed for 2 of 20 sentences, first for 's-0': no disk; these have no passages"
    assert [record.getMessage() for record in caplog.records] == [
        f"dev.parquet: {told}",
        f"{tmp_path / 'u.parquet'}: {told}",
    ]


def test_contexts_of_which_more_than_a_tenth_failed_are_refused(tmp_path):
    """Training, evaluation and the retrieval report would measure the plain view under the context view's name."""
    data, contexts = tmp_path / "s.conll", tmp_path / "s.parquet"
    data.write_text("a O\n\n" * 20)
    write_contexts(failing(3), contexts)
    message = r"s\.parquet: retrieval failed for 3 of 20 sentences, first for 's-0': no disk; more than 10% is too many"
    with pytest.raises(ValueError, match=message):
        load_examples(data, ColumnFormat(), contexts=contexts)
    with pytest.raises(ValueError, match=message):
        unlabelled_examples(contexts)


def test_lone_surrogates_survive_as_question_marks_and_still_join(tmp_path):
    sentence = Sentence("s-0", ("a\ud800b", "\udfff", "ok"))
    write_contexts({"s-0": Context(sentence.words, "ok", ())}, tmp_path / "x.parquet")
    found = read_contexts(tmp_path / "x.parquet")
    assert found["s-0"].words == ("a?b", "?", "ok")
    assert join_contexts([sentence], found)[0].sentence is sentence


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(ValueError, match=r"no contexts file; make it with `ctxner retrieve`"):
        read_contexts(tmp_path / "absent.parquet")


@pytest.mark.parametrize("content", [b"", b"{}", b"PAR1 half a file", b"\x00" * 100])
def test_a_file_that_is_no_parquet_is_refused(tmp_path, content):
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a Parquet file of contexts"):
        read_contexts(path)


def test_a_truncated_contexts_file_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    write_contexts(CONTEXTS, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="not a Parquet file of contexts"):
        read_contexts(path)


def test_another_table_is_refused_by_its_missing_columns(tmp_path):
    pq.write_table(pa.table({"sentence_id": ["a"], "words": [["a"]]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"lacks the columns \['error', 'passages', 'query'\]"):
        read_contexts(tmp_path / "x.parquet")


def test_a_table_with_the_names_but_other_types_is_refused(tmp_path):
    table = pa.table({name: ["a"] for name in context_schema().names})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="columns have other types"):
        read_contexts(tmp_path / "x.parquet")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ctxner retrieve"):
        read_contexts(tmp_path)


def test_a_data_file_loads_with_and_without_its_contexts(tmp_path):
    data, contexts = tmp_path / "dev.conll", tmp_path / "dev.parquet"
    data.write_text("Paris B-LOC\nsleeps O\n\nIt O\nrains O\n")
    alone = load_examples(data, ColumnFormat())
    assert [example.passages for example in alone] == [(), ()]
    own = {alone[1].sentence.id: (_passage(1),), alone[0].sentence.id: ()}
    write_contexts(
        {ex.sentence.id: Context(ex.sentence.words, "q", own[ex.sentence.id]) for ex in reversed(alone)}, contexts
    )
    assert [example.passages for example in load_examples(data, ColumnFormat(), contexts=contexts)] == [
        (),
        (_passage(1),),
    ]
