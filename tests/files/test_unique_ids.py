"""Ids used twice are found by eight bytes each, and named by both places."""

import pytest

from ctxner.files.unique_ids import IdHashes, id_hash, refuse_repeats


def test_exactly_the_ids_used_twice_are_repeated():
    hashes = IdHashes()
    for n in [*range(1000), 17, 400, 17]:
        hashes.add(f"p{n}")
    assert hashes.repeated() == {id_hash("p17"), id_hash("p400")}
    assert len(hashes) == 1003
    hashes.add("p0")
    assert hashes.repeated() == {id_hash("p0"), id_hash("p17"), id_hash("p400")}


def test_hashes_of_parts_join():
    parts = []
    for ids in (("a", "b"), (), ("c", "a")):
        part = IdHashes()
        for own in ids:
            part.add(own)
        parts.append(part.to_bytes())
    assert IdHashes(parts).repeated() == {id_hash("a")}
    assert IdHashes().repeated() == set()


def test_any_string_is_an_id():
    assert len({id_hash(id) for id in ("", "\ud800", "\udfff", "?", "\ufffd", "é")}) == 6


def test_a_repeat_is_refused_with_both_places_and_the_file_is_read_again_only_for_it():
    hashes, reads = IdHashes(), []

    def again():
        reads.append(1)
        yield from ((f"some.jsonl:{number}", id) for number, id in enumerate("abcab", 1))

    for id in "abc":
        hashes.add(id)
    refuse_repeats(hashes, again())
    assert not reads
    hashes.add("b")
    with pytest.raises(ValueError, match=r"^some.jsonl:5: id 'b' was used before at some.jsonl:2; ids must be unique"):
        refuse_repeats(hashes, again())
    assert reads


def test_equal_hashes_of_different_ids_are_no_repeat():
    hashes = IdHashes([id_hash("a"), id_hash("a")])
    refuse_repeats(hashes, iter([("x:1", "a"), ("x:2", "b")]))
