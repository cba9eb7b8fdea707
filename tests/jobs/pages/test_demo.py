"""The report shows exactly what it was given, whatever was in it, and asks nobody for anything."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ctxner.schema import Entity, Passage, ScoredPassage, Span
from jobs.pages.charts import EpochPoint
from jobs.pages.demo import MAX_WORD_LENGTH, MAX_WORDS, TaggedSentence, outcome, write_report

HOSTILE = "<script>alert('x')</script>\"><img src=https://example.org/x onerror=alert(1)>&amp;"
VOID = {"meta", "link", "input", "img", "br", "hr"}


class Node:
    def __init__(self, tag: str, attrs: dict[str, str | None], parent: Node | None) -> None:
        self.tag, self.attrs, self.parent, self.children = tag, attrs, parent, []

    def find(self, tag: str = "", cls: str = "") -> list[Node]:
        found = []
        for child in self.children:
            if isinstance(child, Node):
                if (not tag or child.tag == tag) and (not cls or cls in (child.attrs.get("class") or "").split()):
                    found.append(child)
                found += child.find(tag, cls)
        return found

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class Tree(HTMLParser):
    """The page as nodes; fails on a tag that is closed where it was not open."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.at = Node("", {}, None)
        self.feed(html)
        self.close()
        assert self.at is self.root, f"<{self.at.tag}> is never closed"

    def handle_starttag(self, tag, attrs):
        node = Node(tag, dict(attrs), self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_startendtag(self, tag, attrs):
        self.at.children.append(Node(tag, dict(attrs), self.at))

    def handle_endtag(self, tag):
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)


def entity(start: int, end: int, type: str, confidence: float = 0.9) -> Entity:
    return Entity("", type, 0, 1, start, end, confidence)


def sentence(
    id: str = "s", *, gold=(), plain=(), context=(), words="I saw Velmora Dasu today", passages=()
) -> TaggedSentence:
    return TaggedSentence(id, tuple(words.split()), tuple(gold), tuple(plain), tuple(context), tuple(passages))


def page(tmp_path: Path, sentences=(), **changes) -> Node:
    return Tree(written(tmp_path, sentences, **changes)).root


def written(tmp_path: Path, sentences=(), **changes) -> str:
    inputs = {"title": "A run", "scores": {}, "curves": [], "facts": {}} | changes
    return write_report(tmp_path / "report.html", sentences=sentences, **inputs).read_text(encoding="utf-8")


def score(f1: float) -> dict[str, float]:
    return {"precision": f1, "recall": f1, "f1": f1}


FIXED = sentence(
    "fixed", gold=[Span(2, 4, "ship")], plain=[entity(2, 4, "song")], context=[entity(2, 4, "ship", 0.876)]
)
BROKE = sentence("broke", gold=[Span(2, 3, "song")], plain=[entity(2, 3, "song")], context=[])
BOTH_RIGHT = sentence("right", words="Nothing here")
BOTH_WRONG = sentence(
    "wrong", gold=[Span(0, 1, "place")], plain=[entity(0, 2, "place")], context=[entity(4, 5, "person")]
)
FOUR = [FIXED, BROKE, BOTH_RIGHT, BOTH_WRONG]


@pytest.mark.parametrize(
    ("given", "wanted"), [(FIXED, "fixed"), (BROKE, "broke"), (BOTH_RIGHT, "both-right"), (BOTH_WRONG, "both-wrong")]
)
def test_outcome_tells_which_view_found_exactly_the_true_mentions(given: TaggedSentence, wanted: str) -> None:
    assert outcome(given) == wanted


def test_each_column_repeats_the_words_and_highlights_exactly_the_mentions(tmp_path: Path) -> None:
    cards = page(tmp_path, FOUR).find("article")
    assert [card.attrs["data-id"] for card in cards] == ["fixed", "broke", "right", "wrong"]
    for card, given in zip(cards, FOUR, strict=True):
        for column, mentions in zip(
            card.find("p", "text"),
            (
                [(s.start, s.end, s.type) for s in given.gold],
                [(e.first_word, e.last_word, e.type) for e in given.plain],
                [(e.first_word, e.last_word, e.type) for e in given.context],
            ),
            strict=True,
        ):
            assert " ".join(w.text for w in column.find("span", "w")).split() == list(given.words)
            found = [m for m in column.find("mark") if m.attrs["data-state"] != "missed"]
            assert [(m.find("span", "w")[0].text, m.attrs["data-type"]) for m in found] == [
                (" ".join(given.words[start:end]), type) for start, end, type in mentions
            ]
            assert all(m.attrs["data-type"] in m.find("span", "label")[0].text for m in found)


def test_marks_say_in_words_how_they_differ_from_the_true_mentions(tmp_path: Path) -> None:
    fixed, broke, _, wrong = page(tmp_path, FOUR).find("article")
    states = [[m.attrs["data-state"] for m in column.find("mark")] for column in fixed.find("p", "text")]
    assert states == [["gold"], ["wrong type"], ["right"]]
    assert "88%" in fixed.find("p", "text")[2].text
    assert [m.attrs["data-state"] for m in broke.find("p", "text")[2].find("mark")] == ["missed"]
    states = [[m.attrs["data-state"] for m in column.find("mark")] for column in wrong.find("p", "text")]
    assert states == [["gold"], ["wrong extent"], ["missed", "not a mention"]]


def test_the_filters_match_the_cards(tmp_path: Path) -> None:
    root = page(tmp_path, FOUR)
    options = {o.text: o.attrs["value"] for o in root.find("option")}
    assert list(options) == ["any", "person", "place", "ship", "song"]
    cards = {card.attrs["data-id"]: card.attrs for card in root.find("article")}
    types = {id: set((attrs["data-types"] or "").split()) for id, attrs in cards.items()}
    assert types["fixed"] == {options["ship"], options["song"]}
    assert types["right"] == set()
    radios = [i.attrs["value"] for i in root.find("input") if i.attrs["name"] == "outcome"]
    assert radios == ["", *(outcome(given) for given in FOUR)]
    assert [attrs["data-outcome"] for attrs in cards.values()] == radios[1:]


def test_passages_come_with_their_provenance_or_why_they_were_dropped(tmp_path: Path) -> None:
    kept = ScoredPassage(Passage("p1", "almanac", "The ferry Velmora Dasu sank."), 12.345, 2, 0.8768, 11)
    dropped = ScoredPassage(Passage("p2", "letters", "Other"), 7.0, 1, None, None, "near_duplicate")
    odd = ScoredPassage(Passage("p3", "letters", "Odd"), 6.0, 3, dropped="a new reason")
    (card,) = page(tmp_path, [sentence(gold=[Span(2, 4, "ship")], passages=[kept, dropped, odd])]).find("article")
    first, second, third = card.find("li")
    assert [b.text for b in first.find("b")] == ["Velmora Dasu"]
    for part in ("The ferry Velmora Dasu sank.", "almanac", "p1", "BM25 12.35", "rank 2", "re-rank 0.877", "11 pieces"):
        assert part in re.sub(r"\s+", " ", first.text)
    assert "nearly the sentence itself" in second.text
    assert "re-rank" not in second.text
    assert "a new reason" in third.text
    assert card.find("summary")[0].text == "1 passage used, 2 dropped"


def test_hostile_text_stays_text_everywhere(tmp_path: Path) -> None:
    passage = ScoredPassage(Passage(HOSTILE, HOSTILE, HOSTILE), 1.0, 1, None, None, HOSTILE)
    hostile = TaggedSentence(HOSTILE, (HOSTILE, "b"), (Span(0, 1, HOSTILE),), (entity(0, 1, HOSTILE),), (), (passage,))
    root = page(
        tmp_path,
        [hostile],
        title=HOSTILE,
        scores={HOSTILE: {"plain": score(0.5)}},
        curves=[EpochPoint(HOSTILE, 1, {HOSTILE: 1.0}, {"plain": 0.5})],
        facts={HOSTILE: HOSTILE},
    )
    assert len(root.find("script")) == 1
    assert not root.find("img")
    assert root.find("h1")[0].text == HOSTILE
    assert root.find("article")[0].attrs["data-id"] == HOSTILE
    assert root.find("dl", "facts")[0].find("dd")[0].text == HOSTILE
    assert not [n for n in root.find() for name in n.attrs if name.startswith("on")]


def test_surrogates_and_control_characters_become_replacement_characters(tmp_path: Path) -> None:
    broken = TaggedSentence("s\ud800", ("a\udfff", "b\x00\x1b", "🙂"), (Span(0, 1, "x\ud83d"),), (), ())
    root = page(tmp_path, [broken], title="t\ud800", facts={"\ud800": "\x07"})
    assert root.find("p", "text")[1].find("span", "w")[-1].text == "b\ufffd\ufffd 🙂"
    assert root.find("h1")[0].text == "t\ufffd"


def test_nothing_is_fetched_and_only_our_script_may_run(tmp_path: Path) -> None:
    html = written(tmp_path, FOUR, scores={"plain": {"plain": score(0.5)}})
    root = Tree(html).root
    for node in root.find():
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (node.attrs.get(name) or "#")[0] == "#" or node.attrs[name] == "data:,"
    assert "url(" not in html
    assert "@import" not in html
    (policy,) = (m.attrs["content"] for m in root.find("meta") if m.attrs.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy


def test_the_best_score_of_each_view_is_marked_in_words(tmp_path: Path) -> None:
    scores = {
        "plain": {"plain": score(0.5)},
        "context": {"plain": score(0.4), "context": score(0.9)},
        "cl-kl": {"plain": score(0.6), "context": score(0.8)},
    }
    rows = page(tmp_path, scores=scores).find("tbody")[0].find("tr")
    cells = {row.find("th")[0].text: [re.sub(r"\s+", " ", td.text).strip() for td in row.find("td")] for row in rows}
    assert cells == {
        "plain": ["50.0 P 50.0 R 50.0", "not scored"],
        "context": ["40.0 P 40.0 R 40.0", "90.0 best P 90.0 R 90.0"],
        "cl-kl": ["60.0 best P 60.0 R 60.0", "80.0 P 80.0 R 80.0"],
    }


@pytest.mark.parametrize("value", [58.3, -0.1, math.nan])
def test_a_score_that_is_no_fraction_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match=r"scores\['plain'\]\['context'\]\['precision'\] is .*give a fraction"):
        page(tmp_path, scores={"plain": {"context": score(value)}})


@pytest.mark.parametrize(
    "found", [[entity(2, 2, "x")], [entity(3, 6, "x")], [entity(0, 2, "x"), entity(1, 3, "y")], [entity(-1, 1, "x")]]
)
def test_a_mention_that_does_not_fit_its_sentence_is_refused(tmp_path: Path, found: list[Entity]) -> None:
    with pytest.raises(
        ValueError, match=r"sentence 's': mention .* is empty, overlaps the one before it or leaves the 5"
    ):
        page(tmp_path, [sentence(context=found)])


def test_curves_have_a_panel_for_each_loss_and_view_and_a_line_for_each_mode(tmp_path: Path) -> None:
    curves = [
        EpochPoint(
            mode, epoch, {"nll": 8.0 / epoch} | ({"cl-kl": 2.0} if mode == "cl-kl" else {}), {"plain": 0.1 * epoch}
        )
        for mode in ("plain", "cl-kl")
        for epoch in (3, 1, 2)
    ]
    root = page(tmp_path, curves=curves)
    panels = {f.find("figcaption")[0].text: f for f in root.find("figure")}
    assert list(panels) == ["Plain view", "NLL, plain view", "Cooperation, CL-KL"]
    assert [len(panel.find("polyline")) for panel in panels.values()] == [2, 2, 1]
    points = [
        [float(v) for v in xy.split(",")]
        for xy in panels["NLL, plain view"].find("polyline")[0].attrs["points"].split()
    ]
    assert points == sorted(points)
    assert [y for _, y in points] == sorted(y for _, y in points)  # a falling loss goes down the page
    assert panels["Plain view"].find("title")[0].text == "plain, epoch 1: 10"
    numbers = root.find("details", "numbers")[0].find("tbody")[0].find("tr")
    assert [cell.text for cell in numbers[0].find()][:3] == ["cl-kl", "1", "10.0"]
    assert len(numbers) == 6


def test_losses_that_are_not_finite_are_left_out_and_said_so(tmp_path: Path) -> None:
    losses = [1.0, math.nan, math.inf, 2.0]
    curves = [EpochPoint("plain", epoch, {"nll": loss}, {"plain": math.nan}) for epoch, loss in enumerate(losses, 1)]
    (panel,) = page(tmp_path, curves=curves).find("figure")
    assert len(panel.find("circle", "dot")) == 2
    assert "2 values are not finite" in panel.text


@pytest.mark.parametrize("value", [0.0, 1e-9, 5.0, -3.0, 1e12])
def test_one_epoch_of_any_loss_is_drawn_inside_the_panel(tmp_path: Path, value: float) -> None:
    (panel,) = page(tmp_path, curves=[EpochPoint("plain", 1, {"nll": value}, {})]).find("figure")
    (dot,) = panel.find("circle", "dot")
    assert 0 < float(dot.attrs["cx"]) < 360
    assert 0 < float(dot.attrs["cy"]) < 230


def test_the_number_of_sentences_is_bounded_evenly_and_said(tmp_path: Path) -> None:
    many = [BOTH_RIGHT] * 500 + [FIXED, BROKE]
    root = page(tmp_path, many, max_sentences=6)
    assert [c.attrs["data-outcome"] for c in root.find("article")] == ["both-right"] * 4 + ["fixed", "broke"]
    assert "shows 6 of 502 sentences" in root.find("p", "bound")[0].text
    assert [d.text.split()[0] for d in root.find("dl", "outcome-key")[0].find("dd")] == ["1", "1", "500", "0"]


def test_long_sentences_words_and_passages_are_cut_and_said(tmp_path: Path) -> None:
    words = ("x" * 100_000, *("word",) * 9_999)
    passages = tuple(ScoredPassage(Passage(str(i), "s", "y" * 50_000), 1.0, i) for i in range(1, 101))
    long = TaggedSentence(
        "long", words, (Span(0, 1, "a"), Span(9_000, 9_002, "b")), (), (entity(399, 403, "c"),), passages
    )
    html = written(tmp_path, [long])
    assert len(html) < 150_000
    (card,) = Tree(html).root.find("article")
    assert f"first {MAX_WORDS} of 10,000 words" in card.text
    assert f"{'x' * MAX_WORD_LENGTH}… (+{100_000 - MAX_WORD_LENGTH:,} characters)" in card.text
    assert "80 more are not shown" in card.text
    assert all(m.find("span", "w")[0].text.strip() for m in card.find("mark"))


def test_an_empty_run_is_still_a_page_and_the_file_appears_whole(tmp_path: Path) -> None:
    root = page(tmp_path / "new" / "folder")
    assert "No sentences were given" in root.text
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["report.html"]


def test_every_control_has_a_name_and_ids_are_unique(tmp_path: Path) -> None:
    root = page(tmp_path, FOUR, scores={"plain": {"plain": score(0.5)}}, facts={"a": "b"})
    ids = [node.attrs["id"] for node in root.find() if node.attrs.get("id")]
    assert len(ids) == len(set(ids))
    assert {a.attrs["href"][1:] for a in root.find("a")} <= set(ids)
    for control in root.find("input") + root.find("select"):
        assert control.parent.tag == "label"
