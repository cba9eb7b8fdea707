"""URIs stay URIs through pathlib, the config and pickles; local paths stay local."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from ctxner.files.uris import UriPath, is_uri, path_or_uri


def test_a_uri_keeps_its_two_slashes_and_names_what_lies_in_it() -> None:
    place = path_or_uri("s3://bucket/runs/first")
    assert isinstance(place, UriPath)
    assert (str(place), place.name, str(place.parent / "second")) == (
        "s3://bucket/runs/first",
        "first",
        "s3://bucket/runs/second",
    )
    assert pickle.loads(pickle.dumps(place)) == place == place.resolve() == place.absolute()
    assert str(pickle.loads(pickle.dumps(place))) == str(place)


@pytest.mark.parametrize("text", ["runs/a", "/data/x:y", "s3:/bucket/a", "org/model", "C:/x", "~/a"])
def test_other_paths_are_local(text: str) -> None:
    assert not is_uri(text)
    assert path_or_uri(text) == Path(text)


def test_a_file_uri_is_a_local_path() -> None:
    assert path_or_uri("file:///data/a b") == Path("/data/a b")
    assert not is_uri("file:///data/a")


def test_a_uri_is_never_looked_for_on_this_disk() -> None:
    for look in (Path.exists, Path.read_bytes, Path.mkdir, os.path.exists):
        with pytest.raises(TypeError, match="s3://bucket/x: a URI where a file of this machine is wanted"):
            look(path_or_uri("s3://bucket/x"))
