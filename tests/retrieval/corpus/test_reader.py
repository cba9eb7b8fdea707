"""Corpus reading: every format gives the same passages, every fault is named with its place."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctxner.retrieval.corpus.reader import CorpusReader, read_corpus
from ctxner.schema import Passage

RECORDS = [
    {"id": "a", "contents": "Baroka is a city.", "source": "atlas", "title": "Baroka"},
    {"id": 7, "text": "Ünïcode — ok"},
    {"contents": "no id"},
]
PASSAGES = [
    Passage("a", "atlas", "Baroka is a city.", "Baroka"),
    Passage("7", "world", "Ünïcode — ok"),
    Passage("world-3", "world", "no id"),
]


def write(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["world.jsonl", "world.jsonl.gz", "WORLD.JSONL"])
def test_json_lines_give_their_passages(tmp_path, name):
    path = write(tmp_path / name, "\n".join(json.dumps(record) for record in RECORDS))
    stem = name.split(".")[0]
    assert [str(p).replace(stem, "world") for p in read_corpus([path])] == [str(p) for p in PASSAGES]


def test_parquet_gives_the_same_passages_as_json_lines(tmp_path):
    rows = [{**dict.fromkeys(("id", "contents", "text", "source", "title")), **record} for record in RECORDS]
    rows[1]["id"] = "7"
    pq.write_table(pa.Table.from_pylist([{**row, "other": 1} for row in rows]), tmp_path / "world.parquet")
    assert list(read_corpus([tmp_path / "world.parquet"])) == PASSAGES


def test_plain_text_is_one_passage_a_line_numbered_by_line(tmp_path):
    path = write(tmp_path / "notes.txt.gz", "\ufefffirst\r\n\n  second line  \n")
    assert list(read_corpus([path])) == [
        Passage("notes-1", "notes", "first"),
        Passage("notes-3", "notes", "second line"),
    ]


def test_control_characters_and_lone_surrogates_become_printable(tmp_path):
    path = write(tmp_path / "c.jsonl", r'{"id": "x", "contents": "a\u0000b\ud800c\u0007"}')
    assert list(read_corpus([path])) == [Passage("x", "c", "a b\ufffdc")]


@pytest.mark.parametrize(
    "content",
    [
        '[{"term": "Velmora", "definition": "a town"}, {"title": "Hator"}]',
        '{"Velmora": "a town", "Hator": {"text": ""}}',
        '{"Velmora": {"Definition": "a town", "other": [1]}, "Hator": {}}',
    ],
)
def test_a_json_file_is_an_array_of_records_or_names_with_texts(tmp_path, content):
    passages = [Passage("g-1", "g", "a town", "Velmora"), Passage("g-2", "g", "", "Hator")]
    assert list(read_corpus([write(tmp_path / "g.json", content)])) == passages
    assert list(CorpusReader([tmp_path / "g.json"], part=1, num_parts=2)) == passages[1:]


def test_paragraphs_lists_and_tables_of_markdown_have_the_heading_above_as_title(tmp_path):
    text = (
        "---\ntags: [x]\n---\nBefore *any*\nheading.\n\n# [Velmora](http://x.y)\n\nA **town**.\n\n"
        "- by the `sea`\n\n```\ncode\n```\n<!-- no -->\n\nHator\n-----\n\n| a | b |\n|---|---|\n| c | d |\n"
    )
    assert list(read_corpus([write(tmp_path / "m.md", text)])) == [
        Passage("m-4", "m", "Before any heading."),
        Passage("m-9", "m", "A town.", "Velmora"),
        Passage("m-11", "m", "by the sea", "Velmora"),
        Passage("m-21", "m", "a | b", "Hator"),
        Passage("m-23", "m", "c | d", "Hator"),
    ]


def test_a_folder_is_all_its_corpus_files_and_the_others_are_counted(tmp_path, caplog):
    for name in ("a/x.md", "b/x.md", "b/y.txt", "z.PDF", ".git/z.md", "_SUCCESS", "c/z.pdf"):
        (tmp_path / "k" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "k" / name).write_text(f"Text of {name}.")
    assert list(read_corpus([tmp_path / "k"])) == [
        Passage("a/x-1", "a/x", "Text of a/x.md."),
        Passage("b/x-1", "b/x", "Text of b/x.md."),
        Passage("b/y-1", "b/y", "Text of b/y.txt."),
    ]
    assert f"{tmp_path / 'k'}: 3 corpus files; left out: 2 .pdf" in caplog.text
    with pytest.raises(FileNotFoundError, match=r"no corpus file in this folder \(others: 1 \.pdf\)"):
        CorpusReader([tmp_path / "k" / "c"])


def test_a_whole_file_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("ctxner.retrieval.corpus.reader.MAX_BYTES", 1 << 20)
    with pytest.raises(ValueError, match=r"m\.json: more than 1 MiB; write it as JSON lines"):
        list(CorpusReader([write(tmp_path / "m.json", "[]" + " \n" * (1 << 19))]))


@pytest.mark.parametrize(
    ("name", "content", "place", "wanted"),
    [
        ("c.jsonl", '{"contents": "x"}\n{"id": "b"}', ":2", "no text"),
        ("c.jsonl", '{"contents": "   "}', ":1", "no text"),
        ("c.jsonl", '{"contents": ["x"]}', ":1", "'contents' is list"),
        ("c.jsonl", '{"contents": "x"}\n\n{"contents": ', ":3", "not valid JSON"),
        ("c.jsonl", '["x"]', ":1", "found a JSON list"),
        ("c.jsonl", "[" * 100_000, ":1", "not valid JSON"),
        ("c.jsonl", '{"id": "' + "i" * 600 + '", "contents": "x"}', ":1", "id has 600 characters"),
        ("c.txt", "fine\nna\u00efve".encode("latin-1"), ":2", "not UTF-8"),
        ("c.txt", b"fine\n\x00\x01\x02", ":2", "binary"),
        ("c.txt", "", "", "corpus is empty"),
        ("c.jsonl", "\n\n", "", "corpus is empty"),
        ("c.doc", "a,b", "", "unknown corpus format"),
        ("c.pdf", "%PDF-1.7", "", "a PDF holds places of letters, not text; extract it, e.g. `pdftotext"),
        ("c.xlsx", "PK", "", "save the sheet as CSV"),
        ("c.json", '{"title": "x"}\n{"title": "y"}', "", "one object per line is JSON lines: name the file .jsonl"),
        ("c.json", "[1]", "", "entry 1 is int; wanted an array of objects"),
        ("c.json", "3", "", "found a JSON int; wanted an array"),
        ("c.json", '{"a": ["x"]}', "", "entry 'a' is list"),
        ("c.json", "[" * 100_000, "", "not valid JSON"),
        ("c.parquet", "not parquet", "", "not readable as Parquet"),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path, name, content, place, wanted):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=wanted) as error:
        list(read_corpus([path]))
    assert f"{path}{place}" in str(error.value)


def test_damaged_gzip_is_an_error(tmp_path):
    whole = gzip.compress(b'{"contents": "x"}\n' * 1000)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "not.jsonl.gz").write_bytes(b'{"contents": "x"}')
    for name in ("cut.jsonl.gz", "not.jsonl.gz"):
        with pytest.raises(ValueError, match="damaged or not gzip"):
            list(read_corpus([tmp_path / name]))


def test_a_duplicate_id_names_both_places(tmp_path):
    first = write(tmp_path / "a.jsonl", '{"contents": "x"}\n{"id": "same", "contents": "y"}')
    second = write(tmp_path / "b.jsonl", '{"id": "same", "contents": "z"}')
    with pytest.raises(ValueError, match="'same'") as error:
        list(read_corpus([first, second]))
    assert f"{first}:2" in str(error.value)
    assert f"{second}:1" in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.txt"):
        list(read_corpus([tmp_path / "gone.txt"]))


@pytest.mark.parametrize("name", ["world.jsonl.zst", "notes.txt.zst"])
def test_zstandard_is_read_in_one_frame_or_several(tmp_path, name):
    content = b'{"id": "a", "contents": "x"}\n{"id": "b", "contents": "y"}\n'
    frames = []
    for half in (content[:20], content[20:]):
        with pa.CompressedOutputStream(str(tmp_path / "frame"), "zstd") as file:
            file.write(half)
        frames.append((tmp_path / "frame").read_bytes())
    (tmp_path / name).write_bytes(b"".join(frames))
    assert len(list(read_corpus([tmp_path / name]))) == 2
    (tmp_path / name).write_bytes(b"".join(frames)[:-3])
    with pytest.raises(ValueError, match="damaged or not zstd"):
        list(read_corpus([tmp_path / name]))


@pytest.mark.parametrize("name", ["c.jsonl", "c.txt", "c.parquet"])
@pytest.mark.parametrize("num_parts", [1, 2, 5])
def test_parts_share_out_the_lines_and_keep_their_numbers(tmp_path, name, num_parts):
    rows = [{"contents": f"passage {n}"} for n in range(7)]
    if name == "c.parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        lines = [row["contents"] if name == "c.txt" else json.dumps(row) for row in rows]
        write(tmp_path / name, "\n".join(lines))
    parts = [CorpusReader([tmp_path / name], part=part, num_parts=num_parts) for part in range(num_parts)]
    ids = [[passage.id for passage in part] for part in parts]
    assert ids == [[f"c-{n + 1}" for n in range(part, 7, num_parts)] for part in range(num_parts)]
    assert [part.share_read for part in parts] == [1.0] * num_parts


def test_the_share_read_grows_with_the_lines(tmp_path):
    path = write(tmp_path / "c.jsonl", '{"contents": "some passage of text"}\n' * 100_000)
    reader = CorpusReader([path, path])
    shares = [reader.share_read for n, _ in enumerate(reader) if n % 1000 == 0]
    assert shares == sorted(shares)
    assert shares[100] == pytest.approx(0.5, abs=0.02)
    assert shares[-1] > 0.98


def test_an_unknown_unit_or_part_is_refused(tmp_path):
    path = write(tmp_path / "c.txt", "x")
    with pytest.raises(ValueError, match="unit is 'word'; wanted one of paragraph, sentence"):
        CorpusReader([path], unit="word")
    with pytest.raises(ValueError, match="part is 2 of 2"):
        CorpusReader([path], part=2, num_parts=2)
    with pytest.raises(ValueError, match="no corpus file"):
        CorpusReader([])
