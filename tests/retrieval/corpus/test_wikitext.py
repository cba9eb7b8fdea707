"""Wikitext becomes what a reader of the page sees, in linear time."""

import pytest

from ctxner.retrieval.corpus.wikitext import paragraphs
from tests.cpu_time import assert_linear


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("'''Baroka''' is a ''port''.", ["Baroka is a port."]),
        ("A [[port|harbour]] in [[Welandia]]s.", ["A harbour in Welandias."]),
        ("[[:Category:Ports|ports]] and [[:Baroka]]", ["ports and Baroka"]),
        ("[[File:a.jpg|thumb|The [[port]] of [[x|y]]]]Text.[[Category:Ports]]", ["Text."]),
        ("[[Datei:a.jpg|Der Hafen]]Text", ["Text"]),
        ("One{{cite|a={{b|c}}|d}} two.", ["One two."]),
        ("{{Infobox\n| a = {{b}}\n| c = [[d]]\n|}}\n'''X''' is.", ["X is."]),
        ("{{Infobox|\n{| class=wikitable\n| a || b\n|}\n}}X is.", ["X is."]),
        ("Before.\n{| class=x\n|-\n| a {{b}}\n{| inner\n| c\n|}\n|}\nAfter.", ["Before.", "After."]),
        ("A<ref>b [[c]]</ref> d<ref name=e/> f<ref name='a/b'>g</ref>.", ["A d f."]),
        ("<ref>first</ref>A<REF>second</REF>", ["A"]),
        ("A<!-- hidden {{ -->b<!-- never closed", ["Ab"]),
        ("x<sup>2</sup> is<br>y <div class='a'>z</div>", ["x2 is y z"]),
        ("Where <math>x {{y}} < 3</math> holds", ["Where holds"]),
        ("See [http://a.org the site], [https://b.org] and http://c.org.", ["See the site, and http://c.org."]),
        ("== Head ==\nText.\n=== Sub ===\nMore\ntext.\n\nNext.", ["Text.", "More text.", "Next."]),
        ("* one\n** [[two]]\n# three\n: four\nfive", ["one", "two", "three", "four", "five"]),
        ("Tom &amp; Jerry&nbsp;&ndash; 5 &lt; 6", ["Tom & Jerry – 5 < 6"]),
        ("Baroka ({{lang|x}}; ) lies (there).", ["Baroka lies (there)."]),
        ("__NOTOC__\n----\n...\n\nText", ["Text"]),
        ("stray }} and {{ and ]] and |} stay", ["stray }} and {{ and and |} stay"]),
        ("a [[b", ["a b"]),
        ("", []),
        ("{{only|a template}}", []),
    ],
)
def test_markup_becomes_plain_text(markup, plain):
    assert list(paragraphs(markup, frozenset({"file", "datei", "category"}))) == plain


HOSTILE = ["{{", "}}", "[[", "]]", "{{{", "[[a|", "{|\n", "\n|}", "<ref>", "<ref", "<!--", "</ref>", "[http://a "]
HOSTILE += ["'", "=", "( ", "<", "&", "[http:// " + " " * 50, "{{\n{|\n", "[[File:"]


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_is_linear_in_hostile_text(piece):
    def work(length):
        text = piece * (length // len(piece))
        return list(paragraphs(text + "x" + text[::-1]))

    assert_linear(work, 20_000)
