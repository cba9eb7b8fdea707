"""When new replicas roll in: after a change of anything that answers depend on."""

from pathlib import Path

import pytest

from serving.settings import release_of

FILES = ("config.json", "model.safetensors", "tokenizer.json", "calibration.json", "parts/special_tokens_map.json")


@pytest.mark.parametrize("changed", FILES)
def test_a_change_of_any_file_of_the_model_makes_another_release(tmp_path: Path, changed: str) -> None:
    (tmp_path / "parts").mkdir()
    for name in FILES:
        (tmp_path / name).write_text("{}")
    before = release_of([str(tmp_path)])
    assert release_of([str(tmp_path), str(tmp_path)]) == before
    (tmp_path / changed).write_text('{"other": 1}')
    assert release_of([str(tmp_path)]) != before


def test_a_model_of_the_hub_is_said_so() -> None:
    assert release_of(["someone/model"]) == "hub"
