"""What the tests of the commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, stdout, stderr; a traceback fails the test."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from jobs.cli import main

        monkeypatch.setattr(sys, "argv", ["ctxner", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capfd.readouterr()

    return run
