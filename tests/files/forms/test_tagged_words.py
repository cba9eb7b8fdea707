"""Words with tags or with spans of words: Hugging Face's `tokens` and `ner_tags`, GLiNER's `tokenized_text`.

Written after https://huggingface.co/docs/transformers/tasks/token_classification (tokens and ner_tags, in WNUT-17),
https://huggingface.co/docs/datasets/process#save (save_to_disk), and https://urchade.github.io/GLiNER/training.html.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from ctxner.files.columns import ColumnFormat
from ctxner.files.documents import iter_documents
from ctxner.files.lines import ReadCounts
from ctxner.files.sentences import iter_sentences, read_sentences

IOB2 = ColumnFormat()
NAMES = ["O", "B-PER", "I-PER", "B-LOC"]
TOKENS = [["Ann", "Lee", "in", "Rome"], ["Hi"]]
NUMBERS = [[1, 2, 0, 3], [0]]
STRINGS = [[NAMES[number] for number in row] for row in NUMBERS]
TAGS = [("B-PER", "E-PER", "O", "S-LOC"), ("O",)]  # BIOES, as they are inside
FEATURES = {
    "tokens": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"},
    "ner_tags": {"feature": {"names": NAMES, "_type": "ClassLabel"}, "_type": "Sequence"},
}


def lines(tmp_path: Path, *records: object) -> Path:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path / "a.jsonl"


def rows(tags: list, key: str = "ner_tags") -> list[dict]:
    return [{"tokens": words, key: own} for words, own in zip(TOKENS, tags, strict=True)]


def table(tags: list, features: object = None) -> pa.Table:
    made = pa.table({"id": ["0", "1"], "tokens": TOKENS, "ner_tags": tags, "pos_tags": [[1] * 4, [1]]})
    return (
        made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        if features
        else made
    )


def check(path: Path, recognised: str, format: ColumnFormat = IOB2) -> None:
    counts = ReadCounts()
    sentences = list(iter_sentences(path, format, counts=counts))
    assert [(list(own.words), own.tags) for own in sentences] == list(zip(TOKENS, TAGS, strict=True))
    assert counts.recognised[str(path)].removesuffix(", IOB2") == recognised
    assert [own.words for own in iter_documents(path)] == [tuple(words) for words in TOKENS]


@pytest.mark.parametrize("key", ["ner_tags", "tags", "ner", "labels"])
def test_tags_as_strings_are_read(tmp_path, key):
    check(lines(tmp_path, *rows(STRINGS, key)), "Hugging Face tokens and ner_tags (JSON lines)")


@pytest.mark.parametrize(
    "features",
    [
        FEATURES,
        {"ner_tags": [{"names": NAMES, "_type": "ClassLabel"}]},
        {"ner_tags": {"feature": {"names": NAMES}, "_type": "List"}},
    ],
)
def test_numbers_have_the_names_in_the_file_itself_or_beside_it(tmp_path, features):
    pq.write_table(table(NUMBERS, features), tmp_path / "a.parquet")
    check(tmp_path / "a.parquet", "Hugging Face tokens and ner_tags (Parquet)")
    path = lines(tmp_path, *rows(NUMBERS))
    (tmp_path / "dataset_info.json").write_text(json.dumps({"features": features}))
    check(path, "Hugging Face tokens and ner_tags (JSON lines)")
    pq.write_table(table(NUMBERS), tmp_path / "a.parquet")
    check(tmp_path / "a.parquet", "Hugging Face tokens and ner_tags (Parquet)")


CARD = """---
license: mit
dataset_info:
{before}  features:
  - name: tokens
    sequence: string
  - name: ner_tags
    {kind}:
      class_label:
        names:
          '0': O
          '1': B-PER
          '2': I-PER
          '3': B-LOC
---
# A data set
"""


@pytest.mark.parametrize("kind", ["sequence", "list"])
@pytest.mark.parametrize("file", ["README.md", "data/README.md"])
def test_numbers_have_the_names_in_the_card_of_a_data_set_of_the_hub(tmp_path, kind, file):
    """The card as the hub writes it: https://huggingface.co/docs/hub/datasets-cards."""
    (tmp_path / "data").mkdir()
    (tmp_path / file).write_text(CARD.format(kind=kind, before=""))
    pq.write_table(table(NUMBERS), tmp_path / "data" / "a.parquet")
    check(tmp_path / "data" / "a.parquet", "Hugging Face tokens and ner_tags (Parquet)")
    check(lines(tmp_path / "data", *rows(NUMBERS)), "Hugging Face tokens and ner_tags (JSON lines)")


@pytest.mark.parametrize("card", ["# no YAML", "---\na: [\n---\n", "---\ndataset_info: 3\n---\n", "---\n- a\n---\n"])
def test_a_card_without_names_is_none(tmp_path, card):
    (tmp_path / "README.md").write_text(card)
    with pytest.raises(ValueError, match=r"data\.labels"):
        read_sentences(lines(tmp_path, *rows(NUMBERS)))


def test_configurations_that_disagree_name_nothing(tmp_path):
    one, other = (CARD.format(kind="sequence", before=f"- config_name: {name}\n") for name in "ab")
    body = other.replace("B-LOC", "B-ORG").partition("dataset_info:\n")[2].partition("---\n")[0]
    (tmp_path / "README.md").write_text(one.replace("---\n# A", f"{body}---\n# A"))
    with pytest.raises(ValueError, match=r"data\.labels"):
        read_sentences(lines(tmp_path, *rows(NUMBERS)))


def test_numbers_have_the_names_that_the_user_gives(tmp_path):
    given = ColumnFormat(labels=("O", "B-x", "I-x", "B-y"))
    path = lines(tmp_path, *rows(NUMBERS))
    (tmp_path / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    assert read_sentences(path, given).sentences[0].tags == ("B-x", "E-x", "O", "S-y")
    words = lines(tmp_path, {"words": ["a", "b"], "tags": [3, 0]})
    assert read_sentences(words, given).sentences[0].tags == ("S-y", "O")


def test_numbers_without_names_are_refused_with_the_way_out(tmp_path):
    message = r"a\.jsonl:1: 'ner_tags' holds numbers, .* --set 'data\.labels=\[O,B-PER,I-PER\]', or put .* dataset_info"
    with pytest.raises(ValueError, match=message):
        read_sentences(lines(tmp_path, *rows(NUMBERS)), IOB2)


def test_wikiann_repeats_its_tags_as_spans(tmp_path):
    counts = ReadCounts()
    record = {**rows(STRINGS)[0], "langs": ["en"] * 4, "spans": ["PER: Ann Lee", "LOC: Rome"]}
    (sentence,) = iter_sentences(lines(tmp_path, record), IOB2, counts=counts)
    assert (sentence.tags, counts.remarks["'spans' beside 'ner_tags' are not read"].count) == (TAGS[0], 1)


def arrow(path: Path, content: pa.Table, *, stream: bool = True) -> None:
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, new(file, content.schema) as writer:
        writer.write_table(content)


@pytest.mark.parametrize("stream", [True, False])
def test_an_arrow_file_is_read_as_stream_or_file(tmp_path, stream):
    arrow(tmp_path / "a.arrow", table(NUMBERS, FEATURES), stream=stream)
    check(tmp_path / "a.arrow", "Hugging Face tokens and ner_tags (Arrow)")


def saved(folder: Path, names: list[str]) -> Path:
    """A folder as `save_to_disk` writes it, its rows one per file."""
    folder.mkdir()
    for number, name in enumerate(names):
        arrow(folder / name, table(NUMBERS).slice(number, 1))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    return folder


def test_the_files_of_a_saved_folder_are_read_in_their_order(tmp_path):
    folder = saved(tmp_path / "train", ["b.arrow", "a.arrow"])
    arrow(folder / "stale.arrow", table(NUMBERS))
    check(folder, "Hugging Face tokens and ner_tags (folder of datasets.save_to_disk)")
    saved(tmp_path / "more", ["a.arrow", "b.arrow"])
    result = [own.words[0] for own in iter_sentences(tmp_path, IOB2)]
    assert result == ["Ann", "Hi"] * 2  # a folder of saved folders is all of them


def test_what_datasets_saves_is_read(tmp_path):
    """The library itself as an oracle."""
    datasets = pytest.importorskip("datasets", reason="comes with the extra 'bench'")
    sequence = getattr(datasets, "List", None) or datasets.Sequence
    features = datasets.Features(
        tokens=sequence(datasets.Value("string")), ner_tags=sequence(datasets.ClassLabel(names=NAMES))
    )
    dataset = datasets.Dataset.from_dict({"tokens": TOKENS, "ner_tags": NUMBERS}, features=features)
    dataset.save_to_disk(str(tmp_path / "one"), num_shards=2)
    check(tmp_path / "one", "Hugging Face tokens and ner_tags (folder of datasets.save_to_disk)")
    dataset.to_parquet(str(tmp_path / "a.parquet"))
    check(tmp_path / "a.parquet", "Hugging Face tokens and ner_tags (Parquet)")
    datasets.DatasetDict(train=dataset, test=dataset).save_to_disk(str(tmp_path / "all"))
    check(tmp_path / "all" / "train", "Hugging Face tokens and ner_tags (folder of datasets.save_to_disk)")
    with pytest.raises(ValueError, match=r"all: it holds the splits train, test; give one of them, e\.g\. .*all/train"):
        read_sentences(tmp_path / "all")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state.json", "{", r"state\.json: wanted '_data_files' as datasets\.save_to_disk writes it"),
        ("state.json", "[" * 100_000, r"state\.json: wanted '_data_files'"),
        ("state.json", '{"_data_files": [{"filename": "../x.arrow"}]}', r"wanted names of files in this folder"),
        ("state.json", '{"_data_files": []}', r"'_data_files' are \[\]; wanted names"),
        ("dataset_info.json", "{", r"dataset_info\.json: not JSON"),
        ("a.arrow", "not Arrow at all", r"a\.arrow: not readable as Arrow"),
        ("a.arrow", "", r"a\.arrow: not readable as Arrow"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_file(tmp_path, name, content, message):
    folder = saved(tmp_path / "train", ["a.arrow"])
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_sentences(folder)


def test_a_cut_arrow_file_is_refused_with_its_row(tmp_path):
    arrow(tmp_path / "a.arrow", pa.concat_tables([table(NUMBERS, FEATURES)] * 3))
    content = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ValueError, match=r"a\.arrow: .*not readable as Arrow"):
        list(iter_sentences(tmp_path / "a.arrow", IOB2))


def test_offsets_out_of_range_in_arrow_are_refused_not_followed(tmp_path):
    offsets = pa.py_buffer(b"".join(number.to_bytes(4, "little") for number in (0, 1 << 30, 4)))
    words = pa.ListArray.from_buffers(pa.list_(pa.string()), 2, [None, offsets], children=[pa.array(TOKENS[0])])
    arrow(tmp_path / "a.arrow", pa.Table.from_arrays([words], names=["tokens"]))
    with pytest.raises(ValueError, match=r"a\.arrow: row 1: not readable as Arrow"):
        list(iter_sentences(tmp_path / "a.arrow"))


def test_gliner_counts_words_and_its_ends_are_inclusive(tmp_path):
    """The two examples of GLiNER's documentation."""
    records = [
        {
            "tokenized_text": ["Apple", "Inc.", "is", "headquartered", "in", "Cupertino"],
            "ner": [[0, 1, "organization"], [5, 5, "location"], [5, 5, "location"]],
        },
        {"tokenized_text": ["Steve", "Jobs", "founded", "Apple"], "ner": [[3, 3, "organization"], [0, 1, "person"]]},
        {"tokenized_text": ["None"], "ner": [], "ner_labels": ["person"], "ner_negatives": ["x"]},
        {"tokenized_text": ["Plain"]},
    ]
    (tmp_path / "a.json").write_text(json.dumps(records))
    counts = ReadCounts()
    sentences = list(iter_sentences(tmp_path / "a.json", IOB2, counts=counts))
    assert [own.tags for own in sentences] == [
        ("B-organization", "E-organization", "O", "O", "O", "S-location"),
        ("B-person", "E-person", "O", "S-organization"),
        ("O",),
        None,
    ]
    assert counts.recognised == {str(tmp_path / "a.json"): "GLiNER (JSON)"}
    assert [own.words for own in iter_documents(tmp_path / "a.json")] == [
        tuple(own["tokenized_text"]) for own in records
    ]


def test_of_nested_mentions_of_gliner_the_longest_are_tags_and_the_others_counted(tmp_path):
    words = ["University", "of", "New", "York", ",", "York"]
    ner = [[2, 3, "place"], [0, 3, "school"], [0, 3, "school"], [5, 5, "place"]]
    path = lines(tmp_path, {"tokenized_text": words, "ner": ner})
    counts = ReadCounts()
    (sentence,) = iter_sentences(path, IOB2, counts=counts)
    assert sentence.tags == ("B-school", "I-school", "I-school", "E-school", "O", "S-place")
    assert [(own.start, own.end, own.type, own.text) for own in sentence.beyond_tags] == [(14, 22, "place", "New York")]
    assert {what: remark.count for what, remark in counts.remarks.items()} == {
        "mentions that overlap a longer one": 1,
        "mentions given twice": 1,
    }
    with pytest.raises(ValueError, match=r"a\.jsonl:1: .* overlap, .*data\.overlaps=longest"):
        read_sentences(path, ColumnFormat(overlaps="refuse"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"tokens": ["a"], "ner_tags": [4]}, "'ner_tags' has 4; wanted 0 to 3: O, B-PER, I-PER, B-LOC"),
        ({"tokens": ["a"], "ner_tags": [-1]}, "'ner_tags' has -1; wanted 0 to 3"),
        ({"tokens": ["a", "b"], "ner_tags": [0, "O"]}, "'ner_tags' has 'O'; wanted 0 to 3"),
        ({"tokens": ["a"], "ner_tags": [True]}, "'ner_tags' is .True.; wanted a list of strings, or of numbers"),
        ({"tokens": ["a"], "ner_tags": "O"}, "'ner_tags' is 'O'; wanted a list"),
        ({"tokens": ["a"], "ner_tags": [0, 0]}, "2 tags for 1 words"),
        ({"tokens": ["a"], "ner_tags": ["PER"]}, "word 0: 'PER' is not a tag"),
        ({"tokens": [5], "ner_tags": [0]}, "wanted 'words' and 'tags' to be lists of strings"),
        ({"tokens": ["a"], "ner_tags": [0], "tags": ["O"]}, "'tags' beside 'tokens', 'ner_tags': which is meant"),
        ({"tokens": ["a"], "ner_tags": [0], "labels": ["O"]}, "'labels': looks like annotations and is not read"),
        ({"tokens": ["a"], "words": ["a"], "ner_tags": [0]}, "'words' beside 'tokens', 'ner_tags': which is meant"),
        (
            {"tokenized_text": ["a"], "ner": [[0, 1, "x"]]},
            r"mention \[0, 1, 'x'\] in 'ner'; wanted 0 <= first <= last < 1",
        ),
        (
            {"tokenized_text": ["a"], "ner": [[0, "x"]]},
            r"mention \[0, 'x'\] in 'ner'; wanted \[first word, last word, type",
        ),
        ({"tokenized_text": "a", "ner": []}, "wanted 'tokenized_text' and 'ner' to be lists"),
        ({"tokenized_text": ["a"], "ner": 3}, "'ner' is 3"),
        ({"tokenized_text": [["a"]], "ner": []}, "a list of strings, none of them blank"),
        ({"tokenized_text": ["a", " "], "ner": []}, "a list of strings, none of them blank"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(tmp_path, record, message):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    path = lines(tmp_path, {"tokens": ["fine"]}, record)
    with pytest.raises(ValueError, match=rf"a\.jsonl:2: .*{message}"):
        read_sentences(path, IOB2)
