"""The words and the number of the sentences that are evaluated, and what a page shows of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

WORDS = ["Paris", "Hilton", "sings", "in", "London", "so", "don't", "think", "Müller", "10:30", "loooong", "far"]
NUM_SENTENCES = 40


def shown(page: str) -> dict[str, Any]:
    """What the page holds of the sentences."""
    [found] = re.findall(r'<script type="application/json" id="shown">(.*?)</script>', page, re.S)
    return json.loads(found)


def visible(path: str | Path) -> str:
    """The text of a page, without markup and scripts."""
    page = Path(path).read_text(encoding="utf-8")
    return " ".join(re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]+>", " ", page, flags=re.S).split())
