"""Texts with spans as annotation tools export them: recognised, and each mention at its place in the text.

Written after the tools' documentation:
doccano: https://doccano.github.io/doccano/tutorial/ and https://github.com/doccano/doccano (examples/);
Prodigy: https://prodi.gy/docs/api-interfaces#ner_manual;
Label Studio: https://labelstud.io/guide/task_format and https://labelstud.io/guide/export#JSON_MIN;
spaCy's training pairs: https://v2.spacy.io/usage/training#training-simple-style;
NER Annotator: https://github.com/tecoholic/ner-annotator.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path

import pytest

from ctxner.files.columns import ColumnFormat
from ctxner.files.documents import iter_documents
from ctxner.files.forms.form import Reading, counted_once
from ctxner.files.jsonl import jsonl_records
from ctxner.files.lines import ReadCounts, Remark
from ctxner.files.sentences import iter_sentences, read_sentences
from ctxner.schema import Mention
from ctxner.schemes import tags_to_spans

ANN = "Ann Lee works for Acme in São Paulo."
ENTITIES = [(0, 7, "PER"), (18, 22, "ORG"), (26, 35, "LOC")]
LABEL_STUDIO = {
    "id": 7,
    "data": {"text": ANN, "source_id": 12},
    "annotations": [
        {
            "id": 1001,
            "completed_by": 1,
            "was_cancelled": False,
            "ground_truth": False,
            "lead_time": 4.2,
            "result": [
                {
                    "value": {"start": start, "end": end, "text": ANN[start:end], "labels": [type]},
                    "id": f"r{start}",
                    "from_name": "label",
                    "to_name": "text",
                    "type": "labels",
                    "origin": "manual",
                }
                for start, end, type in ENTITIES
            ],
        }
    ],
    "predictions": [],
    "created_at": "2021-03-09T21:52:49.513742Z",
    "updated_at": "2021-03-09T22:16:08.746926Z",
    "project": 83,
}
MINIMAL = {
    "id": 7,
    "text": ANN,
    "label": [{"start": a, "end": b, "text": ANN[a:b], "labels": [type]} for a, b, type in ENTITIES],
    "annotator": 1,
    "annotation_id": 1001,
    "created_at": "2021-03-09T22:16:08.728353Z",
    "updated_at": "2021-03-09T22:16:08.728378Z",
    "lead_time": 4.288,
}
PRODIGY = {
    "text": ANN,
    "_input_hash": 1886699658,
    "_task_hash": -1952856502,
    "tokens": [{"text": "Ann", "start": 0, "end": 3, "id": 0, "ws": True}],
    "spans": [{"start": a, "end": b, "token_start": 0, "token_end": 0, "label": type} for a, b, type in ENTITIES],
    "_view_id": "ner_manual",
    "answer": "accept",
}
DOCCANO = {"id": 3, "text": ANN, "label": [list(own) for own in ENTITIES], "Comments": []}
OFFSETS = [{"id": n, "label": t, "start_offset": a, "end_offset": b} for n, (a, b, t) in enumerate(ENTITIES)]
RELATIONS = [{"id": 0, "from_id": 0, "to_id": 1, "type": "works for"}]
PAIR = [ANN, {"entities": [list(own) for own in ENTITIES]}]

FILES = {
    "doccano (JSON lines)": ("a.jsonl", [DOCCANO]),
    "doccano, labels": ("a.jsonl", [{"text": ANN, "labels": DOCCANO["label"]}]),
    "doccano, relations": ("a.jsonl", [{"id": 1, "text": ANN, "relations": RELATIONS, "entities": OFFSETS}]),
    "Prodigy (JSON lines)": ("a.jsonl", [PRODIGY]),
    "Prodigy (JSON)": ("a.json", [PRODIGY]),
    "Prodigy, spans only": ("a.jsonl", [{"text": ANN, "spans": PRODIGY["spans"]}]),
    "Label Studio (JSON)": ("a.json", [LABEL_STUDIO]),
    "Label Studio JSON-MIN (JSON)": ("a.json", [MINIMAL]),
    "spaCy training pairs (JSON)": ("a.json", [PAIR]),
    "spaCy training pairs (JSON lines)": ("a.jsonl", [PAIR]),
    "text and entities (JSON)": ("a.json", [{"text": ANN, "entities": [list(own) for own in ENTITIES]}]),
}


def write(tmp_path: Path, name: str, records: list) -> Path:
    lines = "\n".join(json.dumps(record) for record in records)
    (tmp_path / name).write_text(json.dumps(records) if name.endswith(".json") else lines)
    return tmp_path / name


def read(path: Path, format: ColumnFormat | None = None) -> tuple[list, ReadCounts]:
    counts = ReadCounts()
    return list(iter_sentences(path, format, counts=counts)), counts


def mentions(sentence) -> list[tuple[int, int, str]]:
    """The mentions as characters, from tags and offsets."""
    return [
        (sentence.offsets[span.start][0], sentence.offsets[span.end - 1][1], span.type)
        for span in tags_to_spans(sentence.tags)
    ]


@pytest.mark.parametrize(("name", "records"), FILES.values(), ids=FILES)
def test_each_form_is_recognised_and_its_mentions_stand_where_they_were_annotated(tmp_path, name, records, request):
    path = write(tmp_path, name, [*records, *records] if "id" not in records[0] else records)
    sentences, counts = read(path)
    assert [mentions(own) for own in sentences] == [ENTITIES] * len(sentences)
    assert len(sentences) == (1 if "id" in records[0] else 2)
    form, _, container = request.node.callspec.id.partition(" (")
    recognised = counts.recognised[str(path)]
    assert recognised.startswith(form.partition(",")[0])
    assert not container or recognised.endswith(f"({container}")


@pytest.mark.parametrize(("name", "records"), FILES.values(), ids=FILES)
def test_the_same_files_are_documents_to_tag(tmp_path, name, records):
    assert [own.text for own in iter_documents(write(tmp_path, name, records))] == [ANN]


def test_what_is_recognised_is_said_once(tmp_path, caplog):
    path = write(tmp_path, "a.jsonl", [PRODIGY] * 3)
    with caplog.at_level(logging.INFO):
        read_sentences(path)
    assert [record.getMessage() for record in caplog.records] == [f"{path}: read as Prodigy (JSON lines)"]


def test_only_accepted_answers_are_read_and_the_others_counted(tmp_path):
    answers = ["accept", "reject", "ignore", "reject", "accept"]
    path = write(tmp_path, "a.jsonl", [{**PRODIGY, "answer": answer} for answer in answers])
    sentences, counts = read(path)
    assert [own.id for own in sentences] == ["a-0", "a-4"]
    remarks = {what: (own.count, own.places[0]) for what, own in counts.remarks.items()}
    assert remarks == {"answered 'reject', not read": (2, f"{path}:2"), "answered 'ignore', not read": (1, f"{path}:3")}
    assert [own.id for own in iter_documents(path)] == [f"a-{number}" for number in range(5)]  # all can be tagged


def test_a_file_that_is_read_again_is_counted_once(tmp_path):
    path = write(tmp_path, "a.jsonl", [PRODIGY, {**PRODIGY, "answer": "reject"}, {**PRODIGY, "answer": "reject"}])
    reading = Reading()
    records = counted_once(partial(jsonl_records, path, "a"), reading)
    next(records())
    assert [len(list(records())) for _ in range(3)] == [1] * 3
    assert reading.counts == ReadCounts(
        recognised={str(path): "Prodigy (JSON lines)"},
        remarks={"answered 'reject', not read": Remark(2, [f"{path}:2", f"{path}:3"])},
    )


def test_accepted_without_spans_means_no_mention_and_unanswered_means_unlabelled(tmp_path):
    bare = {"text": "Hi", "_input_hash": 1, "_task_hash": 2}
    sentences, _ = read(write(tmp_path, "a.jsonl", [{**bare, "answer": "accept"}, {**bare, "spans": []}, bare]))
    assert [own.tags for own in sentences] == [("O",), ("O",), None]


def test_binary_answers_of_prodigy_are_remarked(tmp_path):
    _, counts = read(write(tmp_path, "a.jsonl", [{**PRODIGY, "_view_id": "ner"}]))
    assert [own.count for what, own in counts.remarks.items() if "view 'ner'" in what] == [1]


def test_of_a_label_studio_task_the_ground_truth_or_the_first_annotation_is_read(tmp_path):
    (annotation,) = LABEL_STUDIO["annotations"]
    none, skipped, truth = {"result": []}, {"was_cancelled": True, "result": []}, {**annotation, "ground_truth": True}
    tasks = [[annotation, none], [none, truth], [skipped, annotation], [skipped], []]
    path = write(tmp_path, "a.json", [{**LABEL_STUDIO, "id": n, "annotations": own} for n, own in enumerate(tasks)])
    sentences, counts = read(path)
    assert [(own.id, own.tags and mentions(own)) for own in sentences] == [
        *((str(number), ENTITIES) for number in range(3)),
        ("4", None),
    ]
    assert {what: own.count for what, own in counts.remarks.items()} == {
        "task annotated more than once: the ground truth or else the first is read": 2,
        "task skipped by its annotator, not read": 1,
    }


def test_what_is_not_a_mention_in_label_studio_is_counted(tmp_path):
    (annotation,) = LABEL_STUDIO["annotations"]
    others = [
        {"type": "relation", "from_id": "r0", "to_id": "r18", "direction": "right"},
        {"type": "choices", "from_name": "mood", "to_name": "text", "value": {"choices": ["good"]}},
        {"type": "labels", "value": {"start": 0, "end": 3, "text": "Ann", "labels": []}},
    ]
    task = {**LABEL_STUDIO, "annotations": [{**annotation, "result": annotation["result"] + others}]}
    sentences, counts = read(write(tmp_path, "a.json", [{**task, "predictions": [{"result": []}]}]))
    assert mentions(sentences[0]) == ENTITIES
    assert set(counts.remarks) == {
        "results of type 'relation' are not read",
        "results of type 'choices' are not read",
        "region without a label, not read",
        "Label Studio's predictions are not read",
    }


def test_the_text_of_a_task_may_have_any_name_and_its_regions_too(tmp_path):
    renamed = {**LABEL_STUDIO, "data": {"post": ANN}}
    minimal = {("post" if key == "text" else "ner" if key == "label" else key): own for key, own in MINIMAL.items()}
    for record in (renamed, minimal):
        sentences, _ = read(write(tmp_path, "a.json", [record]))
        assert mentions(sentences[0]) == ENTITIES
    without = {key: own for key, own in MINIMAL.items() if key != "label"}
    assert set(read(write(tmp_path, "a.json", [without]))[0][0].tags) == {"O"}  # annotated, and nothing was there


def test_offsets_that_count_emojis_twice_are_converted(tmp_path):
    """https://github.com/HumanSignal/label-studio/issues/1347: the export said 13 to 23 for the characters 12 to 22."""
    text = "\U0001f4a9This is an annotation."
    region = {"start": 13, "end": 23, "text": "annotation", "labels": ["X"]}
    path = write(tmp_path, "a.json", [{**MINIMAL, "text": text, "label": [region]}])
    sentences, counts = read(path)
    assert mentions(sentences[0]) == [(12, 22, "X")]
    assert counts.remarks["offsets in UTF-16 units, converted to characters"].places == [f"{path}:1: record 1"]


def test_line_breaks_in_the_copy_of_a_region_may_be_escaped(tmp_path):
    region = {"start": 0, "end": 7, "text": "Ann\\nLee", "labels": ["PER"]}
    sentences, _ = read(write(tmp_path, "a.json", [{**MINIMAL, "text": "Ann\nLee", "label": [region]}]))
    assert sentences[0].beyond_tags == (Mention(0, 7, "PER", "Ann\nLee"),)  # a line break ends a sentence


def test_relations_of_doccano_are_counted(tmp_path):
    _, counts = read(write(tmp_path, "a.jsonl", FILES["doccano, relations"][1]))
    assert counts.remarks["relations are not read"].count == 1


def test_the_export_of_ner_annotator_is_its_pairs(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"classes": ["PER", "ORG"], "annotations": [PAIR, None, PAIR]}))
    sentences, counts = read(path)
    assert [mentions(own) for own in sentences] == [ENTITIES] * 2
    assert counts.recognised == {str(path): "spaCy training pairs (JSON)"}


def test_a_record_of_another_form_is_read_and_remarked(tmp_path):
    path = write(tmp_path, "a.jsonl", [{"text": "Hi"}, PRODIGY, {"text": "Hi"}, DOCCANO])
    sentences, counts = read(path)
    assert [own.tags and mentions(own) for own in sentences] == [None, ENTITIES, None, ENTITIES]
    assert counts.recognised == {str(path): "Prodigy (JSON lines)"}
    assert {what: own.places for what, own in counts.remarks.items()} == {
        "record of the form 'doccano' in a file of the form 'Prodigy'": [f"{path}:4"]
    }


REGION = MINIMAL["label"][0]
BAD = [
    ({**PRODIGY, "answer": "maybe"}, "'answer' is 'maybe'; wanted 'accept', 'reject' or 'ignore'"),
    ({**PRODIGY, "spans": 3}, "'spans' is 3; wanted a list of objects"),
    ({**PRODIGY, "spans": [{"start": 0, "end": 3}]}, "entity .*; wanted {'start': int"),
    ({**PRODIGY, "label": "PER"}, "'label': looks like annotations and is not read"),
    ({**PRODIGY, "entities": []}, "'entities' beside 'spans', 'tokens', 'answer': which is meant"),
    ({**PRODIGY, "text": 4}, "'text' is 4; wanted a string"),
    ({**LABEL_STUDIO, "annotations": {"result": []}}, "'annotations' is .*; wanted a list of objects"),
    ({**LABEL_STUDIO, "data": {"a": "x", "b": "y"}}, "Label Studio task with 'a', 'b' as data; wanted one text"),
    ({**LABEL_STUDIO, "data": {"image": 5}}, "Label Studio task with no string as data"),
    (
        {**LABEL_STUDIO, "annotations": [{"result": [{"type": "hypertextlabels", "value": {}}]}]},
        "a result of type 'hypertextlabels' with {}; only 'labels' on plain text are read",
    ),
    ({**MINIMAL, "label": [{**REGION, "text": "Bob"}]}, "from 0 to 7 is 'Ann Lee', but 'Bob' was annotated there"),
    ({**MINIMAL, "label": [{**REGION, "end": 99}]}, "'Ann Lee works .* but 'Ann Lee' was annotated there"),
    ({**MINIMAL, "label": [{**REGION, "start": "0"}]}, "entity .* wanted 0 <= start < end <= 36"),
    ({**MINIMAL, "label": [{**REGION, "labels": "PER"}]}, "'labels' of a region is 'PER'; wanted a list of strings"),
    ({**MINIMAL, "label": [{**REGION, "labels": [5]}]}, "entity .*; wanted {'start': int"),
    ([ANN, {"entities": [[0, 3]]}], "entity .0, 3.; wanted {'start': int"),
    ([ANN, {"spans": [[0, 3, "X"]]}], "'spans': looks like annotations and is not read"),
    ([ANN, 3], "found"),
    ([], "wanted an object with 'text' or 'words', or a record of Prodigy, .*; found \\[\\]"),
    ({"sentence": "Hi"}, "wanted an object with 'text' or 'words', .*; found the keys 'sentence'"),
    ({"data": "x"}, "found the keys 'data'"),
    ({**LABEL_STUDIO, "id": [1]}, "'id' is \\[1\\]; wanted a string or an integer"),
]


@pytest.mark.parametrize(("record", "message"), BAD)
@pytest.mark.parametrize(("name", "place"), [("a.json", ":1: record 2"), ("a.jsonl", ":2")])
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, name, place, record, message):
    with pytest.raises(ValueError, match=rf"a\.jsonl?{place}: .*{message}"):
        read(write(tmp_path, name, [{"text": "fine"}, record]))


@pytest.mark.parametrize("record", [record for record, _ in BAD[:5]] + [record for record, _ in BAD[11:14]])
def test_where_gold_is_not_wanted_it_is_no_reason_to_refuse(tmp_path, record):
    path = write(tmp_path, "a.jsonl", [record])
    sentences, _ = read(path, ColumnFormat(tag_column=None))
    assert [own.tags for own in sentences] == [None]
    assert [own.text for own in iter_documents(path)] == [ANN]
