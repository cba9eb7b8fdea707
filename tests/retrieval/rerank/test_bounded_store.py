"""The store forgets but never fails: bounds, several processes, kills and damaged files."""

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.retrieval.rerank.bounded_store import MIN_BYTES, BoundedStore

WRITER = """
import hashlib, sys
from pathlib import Path
from ctxner.retrieval.rerank.bounded_store import BoundedStore
store = BoundedStore(Path(sys.argv[1]), max_bytes=int(sys.argv[2]))
print("started", flush=True)
for n in range(int(sys.argv[3]), int(sys.argv[4]), 10):
    items = {hashlib.sha1(b"%d" % k).digest(): hashlib.sha1(b"%d" % k).digest() * 200 for k in range(n, n + 10)}
    store.put(items)
    found = store.get(list(items))
    assert all(items[key] == value for key, value in found.items())
"""


def entry(n):
    key = hashlib.sha1(b"%d" % n).digest()
    return key, key * 200  # 4 kB


def entries(*numbers):
    return dict(entry(n) for n in numbers)


def files(folder):
    return sorted(folder.glob("*.sqlite"))


def num_bytes(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def start(folder, max_bytes, first, end):
    command = [sys.executable, "-c", WRITER, folder, max_bytes, first, end]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    return process


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.binary(max_size=40), st.binary(max_size=5000), max_size=40))
def test_what_was_put_is_got_back(tmp_path_factory, items):
    folder = tmp_path_factory.mktemp("store")
    BoundedStore(folder, max_bytes=MIN_BYTES).put(items)
    assert BoundedStore(folder, max_bytes=MIN_BYTES).get([*items, b"absent" * 9]) == items


def test_nothing_is_made_before_something_is_put(tmp_path):
    assert BoundedStore(tmp_path / "a" / "b", max_bytes=MIN_BYTES).get([b"x"]) == {}
    assert not (tmp_path / "a").exists()


def test_the_bound_holds_at_any_time_and_most_of_it_is_used(tmp_path):
    store = BoundedStore(tmp_path, max_bytes=2 * MIN_BYTES)
    sizes = []
    for n in range(0, 1500, 5):
        store.put(entries(*range(n, n + 5)))
        sizes.append(num_bytes(tmp_path))
    assert max(sizes) <= 2 * MIN_BYTES
    assert len(files(tmp_path)) == 2
    assert store.get([entry(1499)[0]]) == entries(1499)
    kept = store.get(list(entries(*range(1500))))
    assert sum(map(len, kept.values())) > 0.35 * 2 * MIN_BYTES


def test_what_is_used_stays_and_what_is_not_goes(tmp_path):
    store = BoundedStore(tmp_path, max_bytes=MIN_BYTES)
    store.put(entries(-1, -2))
    for n in range(1000):
        store.put(entries(n))
        assert store.get([entry(-1)[0]]) == entries(-1)
    assert store.get([entry(-2)[0]]) == {}


def test_a_value_beyond_the_bound_is_not_kept_and_does_no_harm(tmp_path):
    store = BoundedStore(tmp_path, max_bytes=MIN_BYTES)
    store.put({b"huge": bytes(3 * MIN_BYTES)})
    store.put(entries(1))
    assert store.get([b"huge", entry(1)[0]]) == entries(1)
    assert num_bytes(tmp_path) <= MIN_BYTES


def test_a_narrower_bound_is_kept_from_the_start(tmp_path):
    BoundedStore(tmp_path, max_bytes=8 * MIN_BYTES).put(entries(*range(1200)))
    assert num_bytes(tmp_path) > MIN_BYTES
    BoundedStore(tmp_path, max_bytes=MIN_BYTES)
    assert num_bytes(tmp_path) <= MIN_BYTES


def test_a_bound_that_holds_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="wanted at least 1048576"):
        BoundedStore(tmp_path, max_bytes=MIN_BYTES - 1)


def test_processes_share_it_at_once(tmp_path):
    writers = [start(tmp_path, 2 * MIN_BYTES, first, first + 600) for first in (0, 300, 900)]
    sizes = []
    while any(writer.poll() is None for writer in writers):
        sizes.append(sum(path.stat().st_size for path in files(tmp_path)))
        time.sleep(0.02)
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert max(sizes) <= 2 * MIN_BYTES
    store = BoundedStore(tmp_path, max_bytes=2 * MIN_BYTES)
    expected = entries(*range(1500))
    found = store.get(list(expected))
    assert len(found) > 100
    assert all(expected[key] == value for key, value in found.items())


def test_killed_writers_leave_a_store_that_works(tmp_path, caplog):
    chance = random.Random(0)
    expected = entries(*range(20_000))
    for round_ in range(6):
        writer = start(tmp_path, 4 * MIN_BYTES, round_ * 1000, 20_000)
        time.sleep(chance.uniform(0.02, 0.6))
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        store = BoundedStore(tmp_path, max_bytes=4 * MIN_BYTES)
        found = store.get(list(expected))
        assert all(expected[key] == value for key, value in found.items())
        store.put(entries(-round_ - 1))
        assert store.get([entry(-round_ - 1)[0]]) == entries(-round_ - 1)
    assert not caplog.records
    for path in files(tmp_path):
        assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def _garbage(path):
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def _empty(path):
    path.write_bytes(b"")


def _other_database(path):
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE entries (other TEXT)")


@pytest.mark.parametrize("damage", [_truncate, _garbage, _empty, _other_database])
def test_a_damaged_file_is_dropped_with_a_warning_and_replaced(tmp_path, caplog, damage):
    store = BoundedStore(tmp_path, max_bytes=4 * MIN_BYTES)
    store.put(entries(*range(200)))
    (path,) = files(tmp_path)
    damage(path)
    expected = entries(*range(200))
    found = store.get(list(expected))
    assert all(expected[key] == value for key, value in found.items())
    assert not path.exists()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{path}: not a usable cache file" in caplog.text
    store.put(expected)
    assert store.get(list(expected)) == expected


def test_flipped_bytes_anywhere_never_raise(tmp_path):
    chance = random.Random(2)
    keys = list(entries(*range(150)))
    for _ in range(40):
        store = BoundedStore(tmp_path, max_bytes=4 * MIN_BYTES)
        store.put(entries(*range(150)))
        for path in files(tmp_path):
            content = bytearray(path.read_bytes())
            for _ in range(chance.choice((1, 10, 300))):
                content[chance.randrange(len(content))] = chance.randrange(256)
            path.write_bytes(content)
        store.get(keys)
        store.put(entries(*range(75, 225)))


def test_a_folder_that_cannot_be_made_is_said_once(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    store = BoundedStore(tmp_path / "file" / "below", max_bytes=MIN_BYTES)
    for n in range(3):
        store.put(entries(n))
        assert store.get([entry(n)[0]]) == {}
    assert len(caplog.records) == 1
    assert "does not work here" in caplog.text
