"""Lists of names: an entry per line, with a type behind a tab."""

import gzip

import pyarrow as pa
import pytest

from ctxner.retrieval.corpus.reader import CorpusReader, read_corpus
from ctxner.schema import Passage

CONTENT = '\ufeffVelmora\r\n\r\n Dunbra Hator \tperson\nA, "B"\t\n'.encode()
PASSAGES = [
    Passage("people-1", "people", "", "Velmora"),
    Passage("people-3", "people", "", "Dunbra Hator", type="person"),
    Passage("people-4", "people", "", 'A, "B"'),
]


@pytest.mark.parametrize(
    "suffix", [".names", ".names.txt", ".names.gz", ".names.txt.gz", ".names.zst", ".NAMES.txt.zst"]
)
def test_each_line_is_an_entry(tmp_path, suffix):
    path, content = tmp_path / f"people{suffix}", CONTENT
    if suffix.endswith(".gz"):
        content = gzip.compress(content)
    if suffix.endswith(".zst"):
        content = pa.compress(content, codec="zstd", asbytes=True)
    path.write_bytes(content)
    assert list(read_corpus([path])) == PASSAGES


def test_plain_text_stays_plain_text(tmp_path):
    (tmp_path / "names.txt").write_text("Velmora\n")
    assert list(read_corpus([tmp_path / "names.txt"])) == [Passage("names-1", "names", "Velmora")]


@pytest.mark.parametrize("line", ["\tperson", "a\tb\tc", "a\t\tb"])
def test_a_line_that_is_no_name_and_type_is_refused(tmp_path, line):
    path = tmp_path / "c.names"
    path.write_text(f"fine\n{line}\n")
    with pytest.raises(ValueError, match="wanted a name") as error:
        list(read_corpus([path]))
    assert str(error.value) == f"{path}:2: found {line!r}, wanted a name, or a name, one tab and a type"


def test_parts_share_out_the_lines(tmp_path):
    path = tmp_path / "people.names"
    path.write_bytes(CONTENT)
    parts = [list(CorpusReader([path], part=part, num_parts=3)) for part in range(3)]
    assert parts == [[PASSAGES[0], PASSAGES[2]], [], [PASSAGES[1]]]
