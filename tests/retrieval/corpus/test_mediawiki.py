"""Wikipedia's dumps: articles only, whatever the compression, in bounded memory; hostile XML is refused."""

import bz2
import gzip
import tracemalloc

import pyarrow as pa
import pytest

from ctxner.retrieval.corpus.mediawiki import read_pages
from ctxner.retrieval.corpus.reader import CorpusReader, read_corpus
from ctxner.schema import Passage

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">
<siteinfo><sitename>Wikipedia</sitename><namespaces>
<namespace key="0" case="first-letter" /><namespace key="6" case="first-letter">Datei</namespace>
<namespace key="14" case="first-letter">Kategorie</namespace></namespaces></siteinfo>
"""
PAGE = """<page><title>{title}</title><ns>{ns}</ns><id>{id}</id>{extra}<revision><id>99</id><parentid>98</parentid>
<contributor><username>X</username><id>7</id></contributor><model>{model}</model><format>text/x-wiki</format>
<text bytes="1" xml:space="preserve">{text}</text><sha1>x</sha1></revision></page>
"""
BAROKA = """'''Baroka''' is a [[port]].&lt;ref&gt;x&lt;/ref&gt; It is old.

== Name ==
[[Datei:a.jpg|b]]Named &amp;amp; loved.[[Kategorie:Port]]"""


def page(id, title, text, *, ns=0, extra="", model="wikitext"):
    return PAGE.format(id=id, title=title, text=text, ns=ns, extra=extra, model=model)


DUMP = (
    HEAD
    + page(12, "Baroka", BAROKA)
    + page(13, "Diskussion:Baroka", "no article", ns=1)
    + page(14, "Baroca", "#REDIRECT [[Baroka]]", extra='<redirect title="Baroka" />')
    + page(15, "Old redirect", "#redirect [[Baroka]]")
    + page(16, "Style", "a {}", model="css")
    + page(25, "AC/DC &amp; Ünï", "A band 🎸.")
    + page(26, "Empty", "{{stub}}")
    + "</mediawiki>\n"
)
PASSAGES = [
    Passage("12-1", "wiki", "Baroka is a port. It is old.", "Baroka", aliases=("Baroca", "Old redirect")),
    Passage("12-2", "wiki", "Named & loved.", "Baroka"),
    Passage("25-1", "wiki", "A band 🎸.", "AC/DC & Ünï"),
]


def zstd(path, content):
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(content)


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".zst", ".multistream.bz2"])
def test_paragraphs_of_articles_are_the_passages(tmp_path, suffix):
    path, content = tmp_path / f"wiki.xml{suffix}", DUMP.encode()
    if suffix == ".multistream.bz2":  # as Wikipedia packs them: independent streams, one after the other
        path = tmp_path / "wiki.xml.bz2"
        path.write_bytes(bz2.compress(content[:700]) + bz2.compress(content[700:1500]) + bz2.compress(content[1500:]))
    elif suffix == ".zst":
        zstd(path, content)
    else:
        path.write_bytes({"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[suffix](content))
    assert list(read_corpus([path])) == PASSAGES


def test_sentences_may_be_the_passages(tmp_path):
    (tmp_path / "wiki.xml").write_text(DUMP)
    found = [(passage.id, passage.text) for passage in read_corpus([tmp_path / "wiki.xml"], unit="sentence")]
    assert found == [
        ("12-1", "Baroka is a port."),
        ("12-2", "It is old."),
        ("12-3", "Named & loved."),
        ("25-1", "A band 🎸."),
    ]


def test_parts_share_out_the_pages(tmp_path):
    (tmp_path / "wiki.xml").write_text(DUMP)
    parts = [list(CorpusReader([tmp_path / "wiki.xml"], part=part, num_parts=2)) for part in range(2)]
    assert parts == [PASSAGES[:2], PASSAGES[2:]]


def test_the_last_revision_of_a_page_counts(tmp_path):
    second = "<revision><model>wikitext</model><text>second</text></revision></page>"
    (tmp_path / "wiki.xml").write_text(HEAD + page(1, "A", "first").replace("</page>", second) + "</mediawiki>")
    assert [passage.text for passage in read_corpus([tmp_path / "wiki.xml"])] == ["second"]


def test_a_page_in_two_dumps_names_both_places(tmp_path):
    for name in ("a.xml", "b.xml"):
        (tmp_path / name).write_text(DUMP)
    with pytest.raises(ValueError, match=r"b\.xml:page 12: id '12-1' was used before at .*a\.xml:page 12"):
        list(read_corpus([tmp_path / "a.xml", tmp_path / "b.xml"]))


BOMB = """<!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>""" + DUMP.replace("old", "&b;")
EXTERNAL = """<!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/passwd">]>""" + DUMP.replace("old", "&x;")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (BOMB, r":1: declares a document type"),
        (EXTERNAL, r":1: declares a document type"),
        (DUMP.replace("old", "&unheard;"), "undefined entity"),
        (HEAD + "<a>" * 100, "nested deeper than 32"),
        (DUMP[:900], "is the dump whole"),
        ("<html></html>", "root element is <html>"),
        ("no xml", "not valid XML"),
        ("", "not valid XML"),
        (HEAD + page("twelve", "A", "text") + "</mediawiki>", "page 'A' has no number"),
        (HEAD + "</mediawiki>", "corpus is empty"),
    ],
)
def test_hostile_and_broken_files_are_refused(tmp_path, content, wanted):
    (tmp_path / "wiki.xml").write_text(content)
    with pytest.raises(ValueError, match=wanted) as error:
        list(read_corpus([tmp_path / "wiki.xml"]))
    assert str(tmp_path / "wiki.xml") in str(error.value)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_damaged_compression_is_an_error(tmp_path, suffix):
    path, content = tmp_path / f"wiki.xml{suffix}", (HEAD + page(1, "A", "text " * 5000) + "</mediawiki>").encode()
    if suffix == ".zst":
        zstd(path, content)
    else:
        path.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress}[suffix](content))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"wiki\.xml\.\w+: damaged or not (gzip|bzip2|zstd)"):
        list(read_corpus([path]))


def test_memory_does_not_grow_with_the_dump(tmp_path):
    def peak(num_pages):
        with (tmp_path / "wiki.xml").open("w") as file:
            file.write(HEAD)
            file.writelines(page(n, f"T{n}", "word " * 2000) for n in range(num_pages))
            file.write("</mediawiki>")
        tracemalloc.start()
        with (tmp_path / "wiki.xml").open("rb") as stream:
            num_read = sum(1 for _ in read_pages(stream, "wiki.xml"))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert num_read == num_pages
        return most

    assert peak(2000) < 1.5 * peak(400)
