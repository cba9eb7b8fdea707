"""OBO: terms with their names, exact and narrow synonyms, definition and namespace; what is malformed has a line."""

import gzip
import resource

import pytest

from ctxner.retrieval.corpus import obo
from ctxner.retrieval.corpus.reader import CorpusReader, read_corpus
from ctxner.schema import Passage

ONTOLOGY = r"""format-version: 1.4
default-namespace: phenotype
ontology: demo
! a comment

[Term]
id: D:1
name: seizure {source="x"} ! the title
def: "A \"fit\",\nor convulsion: sudden." [PMID:1, "a \"quoted\" source"]
synonym: "epileptic fit" EXACT []
synonym: "grand mal" NARROW layperson [PMID:2]
synonym: "brain disorder" BROAD []
synonym: "fainting" RELATED []
synonym: "spell" [X:1]
xref: Y:1
is_a: D:0 ! root

[Typedef]
id: part_of
name: part of

[Term]
id: D:2
name: old name
is_obsolete: true

[Term]
id: D:3

[Term]
id: D:4
namespace: chemical
name: poly\{A\} \! acid
is_obsolete: false

[Instance]
id: I:1
name: an instance

[Term]
id: D:5
name: last
"""
PASSAGES = [
    Passage(
        "D:1",
        "demo",
        'A "fit",\nor convulsion: sudden.',
        "seizure",
        aliases=("epileptic fit", "grand mal"),
        type="phenotype",
    ),
    Passage("D:4", "demo", "", "poly{A} ! acid", type="chemical"),
    Passage("D:5", "demo", "", "last", type="phenotype"),
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", [".obo", ".obo.gz"])
def test_terms_are_entries(tmp_path, suffix, end):
    path, content = tmp_path / f"demo{suffix}", ONTOLOGY.replace("\n", end).encode()
    path.write_bytes(gzip.compress(content) if suffix == ".obo.gz" else content)
    assert list(read_corpus([path])) == PASSAGES


@pytest.mark.parametrize("num_parts", [1, 2, 4])
def test_parts_share_out_the_terms(tmp_path, num_parts):
    (tmp_path / "demo.obo").write_text(ONTOLOGY)
    parts = [list(CorpusReader([tmp_path / "demo.obo"], part=part, num_parts=num_parts)) for part in range(num_parts)]
    assert parts == [PASSAGES[part::num_parts] for part in range(num_parts)]


@pytest.mark.parametrize(
    ("found", "by", "line", "wanted"),
    [
        ("xref: Y:1", "xref", 15, "found 'xref', wanted 'tag: value', or a stanza such as [Term]"),
        ("ontology: demo", "ontology", 3, "found 'ontology', wanted 'tag: value'"),
        ('synonym: "spell" [X:1]', "synonym: spell []", 14, "found 'spell []', wanted a text in quotes"),
        ('synonym: "spell" [X:1]', 'synonym: "spell EXACT []', 14, "wanted a text in quotes"),
        ("RELATED", "SIMILAR", 13, "unknown scope 'SIMILAR' of a synonym, wanted EXACT, NARROW, BROAD, RELATED"),
        ('def: "A', "def: A", 9, "wanted a text in quotes"),
        ("id: D:3\n", "xref: D:3\n", 27, "a [Term] without a line 'id: ...'"),
        ("id: D:5\n", "xref: D:5\n", 40, "a [Term] without a line 'id: ...'"),
        ("xref: Y:1", "name: again", 15, "'name' occurs twice in the [Term] of line 6, wanted it once"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, found, by, line, wanted):
    path = tmp_path / "demo.obo"
    assert ONTOLOGY.count(found) == 1
    path.write_text(ONTOLOGY.replace(found, by))
    with pytest.raises(ValueError, match="demo") as error:
        list(read_corpus([path]))
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert wanted in str(error.value)


def test_a_term_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(obo, "_MAX_TERM_LENGTH", 500)
    path = tmp_path / "demo.obo"
    path.write_text(ONTOLOGY + "\n[Term]\nid: D:9\nname: nine\n" + 'synonym: "again" EXACT []\n' * 100)
    assert len(ONTOLOGY) > 500, "all terms together may be longer"
    line_no = ONTOLOGY.count("\n") + 2
    with pytest.raises(ValueError, match=rf"the \[Term\] of line {line_no} has more than 500 characters"):
        list(read_corpus([path]))


def test_a_text_without_its_last_quote_is_read_in_little_memory(tmp_path):
    """Before, each character took a step of the pattern's own stack: 1 GiB for 16 MiB."""
    path = tmp_path / "demo.obo"
    path.write_text(ONTOLOGY + '\n[Term]\nid: D:9\nname: nine\ndef: "' + "x" * (1 << 23) + "\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="wanted a text in quotes"):
        list(read_corpus([path]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_a_file_that_is_no_ontology_is_refused(tmp_path):
    path = tmp_path / "demo.obo"
    path.write_text("name,type\na,b\n")
    with pytest.raises(ValueError, match=r"demo\.obo:1: found 'name,type"):
        list(read_corpus([path]))
