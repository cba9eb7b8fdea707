"""The page's files: nothing of others, nothing inline, words for every reason."""

from __future__ import annotations

import re
from pathlib import Path

from serving.api import Reason
from serving.settings import ApiKey, hashed
from tests.serving.conftest import client_of, make_service, run
from tests.serving.page.conftest import KEY

PAGE = Path(__file__).parents[3] / "serving" / "page"


def test_the_page_is_served_with_a_policy_that_lets_nothing_else_run(local):
    async def work() -> None:
        async with client_of(make_service(local.routing()), [ApiKey(name="k", sha256=hashed(KEY))]) as client:
            for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
                found = await client.get(path)
                assert found.status_code == 200
                assert found.headers["content-type"].startswith(kind)
                policy = found.headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert "*" not in policy
                assert found.headers["x-content-type-options"] == "nosniff"

    run(work)


def test_the_page_names_no_other_address_and_has_no_inline_code():
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    for path in PAGE.iterdir():
        assert not re.search(r"https?:|//[\w-]+\.\w|@import|url\(", path.read_text(encoding="utf-8")), path.name
    assert set(re.findall(r'(?:src|href)="([^"]*)"', html)) == {"data:,", "page.css", "page.js", "#text"}
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|location|history|localStorage", script
    )


# What makes markup, addresses or code of a string, and elements that would.
_MARKUP = re.compile(
    r"(inner|outer)HTML|insertAdjacent|setHTML|createContextualFragment|DOMParser|srcdoc|document\.write|\bFunction\(|eval\("
    r"|\.(href|src|action|formAction|on[a-z]+)\s*=[^=]|import\(|setTimeout\(\s*[\"'`]"
)
_INERT = re.findall(
    r"\w+", "article b code dd details div dl dt h3 h4 li mark ol p span summary table tbody td th thead tr"
)


def _not_text(script: str) -> list[str]:
    """Places of the page's script at which a string may become something else than text."""
    tags = re.findall(r"\b(?:element|written)\(\s*([^,)]+),", script)
    made = [tag for tag in tags if tag.strip('"') not in _INERT and tag not in ("tag", "(tag")]
    classes = re.findall(r"\b(?:element|written)\(\s*\"\w+\",\s*`([^`]*)`", script)
    made += [own for own in classes if re.search(r"\$\{(?!colour\(|difference \?)", own)]
    made += [name for name in re.findall(r"setAttribute\(([^,]*),", script) if name != '"aria-valuetext"']
    created = re.findall(r"createElement\w*\(([^)]*)\)", script)
    return made + [match[0] for match in _MARKUP.finditer(script)] + [own for own in created if own != "tag"]


def test_a_script_in_text_title_or_type_stays_text():
    """Every element is made of a literal tag, and strings are only appended, which makes text nodes of them."""
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    assert _not_text(script) == []
    assert len(re.findall(r"\b(?:element|written)\(", script)) > 40
    for faulty in (
        "made.innerHTML = own.title;",
        'element(own.type, "", own.text);',
        'element("script", "", own.text);',
        'element("mark", `mention ${entity.type}`, entity.text);',
        "link.href = own.id;",
        "document.createElement(entity.type);",
        'made.setAttribute("onclick", own.text);',
    ):
        assert _not_text(f"{script}\n{faulty}"), faulty


def test_the_page_has_words_for_every_reason():
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    block = re.search(r"const REASONS = \{(.*?)\n  \};", script, re.DOTALL)
    assert block
    assert set(re.findall(r"^    (\w+):", block[1], re.MULTILINE)) == set(Reason.__args__)  # type: ignore[attr-defined]
