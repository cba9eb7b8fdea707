"""What a passage shows of itself: names and type of an entry, once."""

import pytest

from ctxner.schema import Passage
from ctxner.views.shown import entry_type, shown_text


@pytest.mark.parametrize(
    ("title", "text", "type"),
    [
        ("dyspnea", "dyspnea is a disease or symptom (infection).", "disease or symptom"),
        ("Velm", "Velm is a coastal town in the south.", "coastal town"),
        ("Velm", "They met in Velm, a small brewery.", "small brewery"),
        ("Obama", "Barack Obama was an American politician who served.", "American politician"),
        ("Velm", "Velm rose.", ""),
        ("Velm", "", ""),
        ("", "It is a town.", ""),
    ],
)
def test_the_type_of_an_entry_is_read_from_its_definition(title, text, type):
    assert entry_type(Passage("p", "s", text, title)) == type
    assert entry_type(Passage("p", "s", text, title, type="drug")) == "drug"


def test_an_entry_is_shown_with_its_names_and_type_once():
    passages = [
        Passage("1", "s", "Velm is a city.", "Velm", aliases=("Velmora", "City of Bells"), type="city"),
        Passage("2", "s", "It lies at sea.", "Velm", type="city"),
        Passage("3", "s", "", "Velm"),
        Passage("4", "s", "", "Velm", type="city"),
        Passage("5", "s", "No title."),
        Passage("6", "s", "VELM rose.", "Velm"),
    ]
    assert [shown_text(passage) for passage in passages] == [
        "Velm (city; also Velmora, City of Bells) is a city.",
        "Velm (city): It lies at sea.",
        "Velm",
        "Velm (city)",
        "No title.",
        "VELM rose.",
    ]
