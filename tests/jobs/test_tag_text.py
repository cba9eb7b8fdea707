"""`ctxner tag-text`: entities with their places in the text, in either view, for programs and for people."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ctxner.demo import World
from tests.jobs.command_line import Called, call_apart

TEXT = "We met Zorblat in Velmora. Then the Quodun sank, sadly."


def test_tag_gives_entities_with_offsets_into_the_text(model: str, call: Callable[..., Called]) -> None:
    code, out, _ = call("tag-text", model, TEXT, "Second text here.", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["view"] == "plain"
    assert [own["text"] for own in found["texts"]] == [TEXT, "Second text here."]
    entities = [(own["text"], entity) for own in found["texts"] for entity in own["entities"]]
    assert entities
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for text, entity in entities)
    assert all(0 <= entity["confidence"] <= 1 for _, entity in entities)


def test_tag_reads_a_passage_at_hand_in_the_context_view(model: str, call: Callable[..., Called]) -> None:
    code, out, _ = call("tag-text", model, "We met in Velmora.", "--passage", "Velmora is a village.", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["view"] == "context"
    assert [passage["text"] for passage in found["texts"][0]["passages"]] == ["Velmora is a village."]


def test_tag_shows_its_entities_to_people_too(model: str, call: Callable[..., Called]) -> None:
    code, out, _ = call("tag-text", model, TEXT)
    assert code == 0
    assert "Zorblat" in out


def test_tag_reads_lines_of_stdin_and_looks_them_up_in_an_index(folder: Path, model: str, world: World) -> None:
    assert call_apart("index", "--corpus", "world/corpus.jsonl", "--out", "index")[0] == 0
    name = world.corpus[0].title
    code, out, err = call_apart("tag-text", model, "--index", "index", "--json", stdin=f"I think about {name}.\n😀\n\n")
    assert (code, out.count("\n")) == (0, 1), err
    found = json.loads(out)
    assert found["view"] == "context"
    about, emoji, empty = found["texts"]
    ids = {passage.id for passage in world.corpus}
    assert any(name in passage["text"] and passage["id"] in ids for passage in about["passages"])
    assert emoji["passages"] == []
    assert (empty["entities"], empty["passages"]) == ([], [])
