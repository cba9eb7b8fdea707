"""Who may read the token that Ray writes; nothing here starts Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctxner.files.ray_token import private_token

# Ray's own code, which reads HOME in C++, so in a process of its own.
_WRITE = """
import os
os.umask(0o022)
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ctxner.files.ray_token import private_token
with private_token():
    ensure_token_if_auth_enabled()
"""


def write(home: Path, **variables: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home), **variables}
    done = subprocess.run([sys.executable, "-c", _WRITE], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_token_that_ray_writes_is_readable_to_its_user_only(tmp_path: Path) -> None:
    """Before: mode 644 in a folder of mode 755; whoever read it ran code through the ports on loopback."""
    write(tmp_path, RAY_AUTH_MODE="token")
    token = tmp_path / ".ray" / "auth_token"
    assert len(token.read_text()) >= 32
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    first = token.read_text()
    write(tmp_path, RAY_AUTH_MODE="token")
    assert token.read_text() == first


@pytest.mark.parametrize("variables", [{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 32}, {}])
def test_no_file_is_left_where_ray_writes_no_token(tmp_path: Path, variables: dict[str, str]) -> None:
    write(tmp_path, **variables)
    assert not (tmp_path / ".ray" / "auth_token").exists()


@pytest.mark.parametrize(("mode", "is_told"), [(0o644, True), (0o600, False)])
def test_a_token_that_was_there_stays_and_is_told_if_others_can_read_it(
    tmp_path: Path, mode: int, is_told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("t" * 32)
    token.chmod(mode)
    with private_token():
        pass
    assert (token.read_text(), token.stat().st_mode & 0o777) == ("t" * 32, mode)
    assert ("auth_token: others may read" in caplog.text) == is_told
    assert "t" * 32 not in caplog.text
