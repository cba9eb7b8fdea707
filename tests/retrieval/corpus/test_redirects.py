"""Redirects of a dump are aliases of the first passage of their target, wherever they stand; they are bounded."""

import logging

import pytest

from ctxner.retrieval.corpus import redirects
from ctxner.retrieval.corpus.mediawiki import Page, Redirect, read_pages
from ctxner.retrieval.corpus.reader import CorpusReader, read_corpus
from ctxner.retrieval.corpus.redirects import collect_aliases
from ctxner.schema import Passage

PAGE = """<page><title>{title}</title><ns>{ns}</ns><id>{id}</id>{redirect}<revision><model>wikitext</model>
<text>{text}</text></revision></page>
"""


def page(id, title, text="", *, to=None, ns=0):
    redirect = f'<redirect title="{to}" />' if to else ""
    return PAGE.format(id=id, title=title, text=text or f"#WEITERLEITUNG [[{to}]]", ns=ns, redirect=redirect)


def dump(path, *pages):
    path.write_text(f"<mediawiki>{''.join(pages)}</mediawiki>")
    return path


PAGES = (
    page(1, "Baroca", to="Baroka"),  # before its target
    page(2, "Baroka", "A port.\n\nIt is old."),
    page(3, "Port of Baroka", to="Baroka"),
    page(4, "BAROKA", to="Baroka"),  # the same words
    page(5, "Baróka!", to="Baroka"),  # the same words
    page(6, "baroca", to="Baroka"),  # the words of an alias
    page(7, "Harbour", to="Baroka#Harbour &amp; fair"),
    page(8, "Fair", "#REDIRECT [[ baroka_#Fair|the fair]] {{R}}"),
    page(9, "Chain", to="Baroca"),  # to a redirect
    page(10, "Gone", to="Unwritten"),
    page(11, "Talk", to="Baroka", ns=1),
    page(12, "...", to="Baroka"),  # no words
    page(13, "A &amp; B", "Two."),
    page(14, "A and B", to="A &amp; B"),
    page(15, "Broken", "#redirect nowhere"),
)
ALIASES = ("Baroca", "Port of Baroka", "Harbour", "Fair")
PASSAGES = [
    Passage("2-1", "wiki", "A port.", "Baroka", aliases=ALIASES),
    Passage("2-2", "wiki", "It is old.", "Baroka"),
    Passage("13-1", "wiki", "Two.", "A & B", aliases=("A and B",)),
]


def test_redirects_before_and_behind_a_page_are_aliases_of_its_first_passage(tmp_path):
    assert list(read_corpus([dump(tmp_path / "wiki.xml", *PAGES)])) == PASSAGES


def test_each_part_has_the_aliases_of_its_pages(tmp_path):
    path = dump(tmp_path / "wiki.xml", *PAGES)
    parts = [list(CorpusReader([path], part=part, num_parts=3)) for part in range(3)]
    assert parts == [PASSAGES[:2], PASSAGES[2:], []]


def test_aliases_of_one_dump_are_not_those_of_another(tmp_path):
    first = dump(tmp_path / "a.xml", page(1, "Baroka", "A port."))
    second = dump(tmp_path / "b.xml", page(2, "Baroca", to="Baroka"), page(3, "Other", "Text."))
    assert [passage.aliases for passage in read_corpus([first, second])] == [(), ()]


def test_a_redirect_of_the_markup_alone_names_its_target_as_titles_are_written(tmp_path):
    markups = ("#REDIRECT [[baroka fair]]", "#redirect: [[:Baroka__fair#x]]", "#Redirect[[Baroka fair|y]]")
    path = dump(tmp_path / "wiki.xml", *(page(n, f"T{n}", text) for n, text in enumerate(markups)))
    with path.open("rb") as stream:
        assert list(read_pages(stream, "wiki.xml")) == [Redirect(f"T{n}", "Baroka fair") for n in range(3)]


def test_a_page_that_writes_about_redirects_stays_a_page(tmp_path):
    path = dump(tmp_path / "wiki.xml", page(1, "Redirect", "Write #REDIRECT [[X]] to redirect."))
    with path.open("rb") as stream:
        assert [type(item) for item in read_pages(stream, "wiki.xml")] == [Page]


def test_the_share_read_counts_both_readings_and_grows(tmp_path):
    pages = [page(n, f"T{n}", "word " * 2000) for n in range(1000)]
    reader = CorpusReader([dump(tmp_path / "wiki.xml", *pages)])
    shares = [reader.share_read, *(reader.share_read for _ in reader), reader.share_read]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[1] > 0.5
    assert shares[-1] == 1.0


def test_a_page_has_at_most_50_aliases():
    aliases = collect_aliases((Redirect(f"Name {n}", "Baroka") for n in range(60)), "wiki.xml")
    assert aliases == {"Baroka": [f"Name {n}" for n in range(50)]}


def test_beyond_the_bound_redirects_are_dropped_with_one_warning(monkeypatch, caplog):
    monkeypatch.setattr(redirects, "_MAX_CHARACTERS", 40)
    pages = [Redirect(f"Alias {n:04}", f"Page {n:05}") for n in range(5)]  # 20 characters each
    with caplog.at_level(logging.WARNING):
        aliases = collect_aliases([*pages, Redirect("Again 0000", "Page 00000")], "wiki.xml")
    assert aliases == {"Page 00000": ["Alias 0000"], "Page 00001": ["Alias 0001"]}
    assert [record.getMessage() for record in caplog.records] == [
        "wiki.xml: 4 redirects give no alias, because the titles of those before have 40 characters, the most kept"
    ]


@pytest.mark.parametrize("num", [0, 1])
def test_below_the_bound_nothing_is_logged(caplog, num):
    collect_aliases([Redirect("A", "B")] * num, "wiki.xml")
    assert not caplog.records
