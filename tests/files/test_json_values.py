"""JSON files are read value by value: what json.loads reads, with places, within bounds."""

from __future__ import annotations

import gzip
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.files import json_values as module
from ctxner.files.json_values import json_values
from ctxner.files.sentences import iter_sentences, read_sentences

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=3).filter(lambda own: "classes" not in own)


def write(tmp_path: Path, content: str | bytes, name: str = "a.json") -> Path:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return tmp_path / name


@settings(max_examples=150, deadline=None)
@given(st.lists(OBJECTS | st.lists(VALUES), max_size=6), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 9))
def test_the_items_of_an_array_are_those_of_json_loads(tmp_path_factory, records, indent, ascii, chunk):
    """However the file is cut into chunks, and characters of several bytes with it."""
    content = json.dumps(records, indent=indent, ensure_ascii=ascii)
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_bytes(content.encode("utf-8", "replace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_BYTES", chunk * 7)
        read = list(json_values(path))
    assert [value for _, value in read] == json.loads(path.read_bytes())
    assert [place.rpartition(": ")[2] for place, _ in read] == [f"record {n + 1}" for n in range(len(records))]


@settings(max_examples=60, deadline=None)
@given(st.lists(OBJECTS, min_size=1, max_size=6), st.sampled_from(["", "\n", " \r\n\n"]), st.integers(1, 9))
def test_values_that_follow_one_another_are_read_each(tmp_path_factory, records, between, chunk):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(between.join(json.dumps(own, indent=2) for own in records), newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_BYTES", chunk)
        assert [value for _, value in json_values(path)] == records


def test_the_place_of_a_value_is_its_line(tmp_path):
    path = write(tmp_path, '\ufeff\n[{"a":\n1},\n\n {"b": 2}, {"c": 3}\n]\n')
    assert [place for place, _ in json_values(path)] == [
        f"{path}:{line}: record {number}" for line, number in ((2, 1), (5, 2), (5, 3))
    ]


def test_json_lines_called_json_and_arrays_called_jsonl_are_read(tmp_path):
    lines = write(tmp_path, '{"text": "Hi"}\n{"text": "all"}\n')
    array = write(tmp_path, '[{"text": "Hi"},\n{"text": "all"}]', "b.jsonl")
    packed = write(tmp_path, gzip.compress(array.read_bytes()), "c.json.gz")
    for path in (lines, array, packed):
        assert [own.words for own in read_sentences(path).sentences] == [("Hi",), ("all",)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"},\n {"text" "b"}]', r"""a\.json:2: not JSON \(Expecting ':' delimiter: '"b"}\]'\)"""),
        ('[{"text": "a"}\n {"text": "b"}]', r"a\.json:2: not JSON: '{', wanted ','"),
        ('[{"text": "a"},\n]', r"a\.json:2: not JSON"),
        ('[{"text": "a"},\n {"text": "b', r"a\.json:2: not JSON \(Unterminated string .*: '\"b'\)"),
        ('[{"text": "a"}', r"a\.json:1: not JSON: 'the end of the file', wanted ','"),
        ('[{"text": "a"}] x', r"a\.json:1: 'x' after the end of the array"),
        ('{"text": "a"}\nx', r"a\.json:2: not JSON"),
        ('[{"text": "a"}, 5]', r"a\.json:1: record 2: wanted an object with 'text' or 'words'.*found 5"),
        ("5", r"a\.json:1: wanted an object with 'text' or 'words'"),
        ("", r"a\.json: no sentence in the file"),
        ("[]", r"a\.json: no sentence in the file"),
        ('[{"text": ' + "9" * 5000 + "}]", r"a\.json:1: not JSON \(Exceeds the limit"),
        (b'[{"text": "caf\xe9"}]', r"a\.json: not UTF-8: byte 0xe9 at offset 14"),
        (b'[{"text": "a"}]\xc3', r"a\.json: not UTF-8: b'\\xc3' at the end; is the file whole"),
        ('[{"text": "a"}]'.encode("utf-16"), r"a\.json: not UTF-8: byte 0xff at offset 0"),
        ('[{"text": "a"}]'.encode("utf-16-le"), r"a\.json: it holds NUL: the file is binary or UTF-16"),
    ],
)
def test_what_is_not_json_is_refused_with_its_line(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_sentences(write(tmp_path, content))


def test_a_cut_gzip_file_is_refused(tmp_path):
    path = write(tmp_path, gzip.compress(b'[{"text": "a"}]' * 99)[:-9], "a.json.gz")
    with pytest.raises(ValueError, match=r"a\.json\.gz: not a whole \.gz file"):
        read_sentences(path)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"text":', '[{"text": "a", "entities": ['])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_deep_json_is_refused_whatever_its_depth(tmp_path, opening, name):
    for depth in (300, 700, *range(930, 1000, 7), 200_000):
        inner = "[" * depth + "]" * depth
        closing = {"[": "]", "{": "}"}
        content = opening + inner + "".join(closing[own] for own in reversed(opening) if own in closing)
        with pytest.raises(ValueError, match=r"a\.jsonl?:1: "):
            read_sentences(write(tmp_path, content, name))


def test_a_value_without_end_is_refused_within_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_CHARS", 100_000)
    path = write(tmp_path, '[{"text": "fine"},\n {"text": "' + "a" * 1_000_000)
    read = iter_sentences(path)
    assert next(read).words == ("fine",)
    with pytest.raises(ValueError, match=r"a\.json:2: no JSON value ends within 100,000 characters"):
        next(read)


_SUM = """
import resource, sys
from ctxner.files.sentences import iter_sentences
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
print(sum(1 for _ in iter_sentences(sys.argv[1])))
"""


def test_a_huge_array_on_one_line_is_read_in_little_memory(tmp_path):
    """Of 200,000 records and 60 MB, read in a process that may take 350 MB of addresses in all."""
    path = tmp_path / "a.json"
    with path.open("w") as file:
        file.write("[" + json.dumps({"text": "x" * 270}))
        file.writelines(itertools.repeat(", " + json.dumps({"text": "x" * 270}), 199_999))
        file.write("]")
    assert path.stat().st_size > 55e6
    bound = str(350 << 20)
    run = subprocess.run([sys.executable, "-c", _SUM, str(path), bound], capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("200000\n", 0), run.stderr
