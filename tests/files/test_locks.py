"""One holder at a time, among threads and processes, whoever removes the lock file meanwhile."""

import subprocess
import sys
import threading

import pytest

from ctxner.files.locks import exclusive

_HOLD = "import sys, pathlib; from ctxner.files.locks import exclusive\n"
_HOLD += "with exclusive(pathlib.Path(sys.argv[1])): print('in', flush=True); input()"
# Adds 1 to a number in a file, again and again, by reading and writing it; `remove` also removes the lock file.
_COUNT = """
import sys, pathlib
from ctxner.files.locks import exclusive
folder, number = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
for _ in range(int(sys.argv[3])):
    with exclusive(folder / "lock", remove=sys.argv[4] == "remove"):
        number.write_text(str(int(number.read_text()) + 1))
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    lock = tmp_path / "made" / "lock"
    command = [sys.executable, "-c", _HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"in\n"
        with (
            pytest.raises(BlockingIOError, match=rf"lock: locked by process {first.pid}$"),
            exclusive(lock, wait=False),
        ):
            pass
        first.kill()
    with exclusive(lock, wait=False):
        assert lock.exists()


@pytest.mark.parametrize("end", ["stay", "remove"])
def test_no_step_is_lost_when_processes_wait_for_each_other(tmp_path, end):
    number = tmp_path / "number"
    number.write_text("0")
    command = [sys.executable, "-c", _COUNT, str(tmp_path), str(number), "200", end]
    writers = [subprocess.Popen(command) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert number.read_text() == "600"
    assert (tmp_path / "lock").exists() == (end == "stay")


def test_a_lock_whose_folder_was_removed_by_its_holder_is_taken_anew(tmp_path):
    lock, entered = tmp_path / "folder" / "lock", threading.Event()

    def wait_for_it():
        with exclusive(lock):
            entered.set()
            assert lock.exists()

    waiting = threading.Thread(target=wait_for_it)
    with exclusive(lock):
        waiting.start()
        assert not entered.wait(0.2), "threads exclude each other as well"
        lock.unlink()
        lock.parent.rmdir()
    waiting.join(10)
    assert entered.is_set()


def test_an_error_in_the_block_passes_and_releases_the_lock(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError, match="inside"), exclusive(tmp_path / "lock", wait=False, remove=True):
            raise RuntimeError("inside")
    assert not list(tmp_path.iterdir())
