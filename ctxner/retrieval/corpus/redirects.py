"""Redirects of a MediaWiki dump, by the page that they point to: other names under which the wiki has that page.

`ctxner.retrieval.corpus.mediawiki` finds the redirects in the dump.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ctxner.retrieval.corpus.mediawiki import Redirect
from ctxner.retrieval.text import name_words

_log = logging.getLogger(__name__)
_MAX_PER_TARGET = 50  # aliases of a page
_MAX_CHARACTERS = 20_000_000  # of all titles that are kept


def collect_aliases(redirects: Iterable[Redirect], name: str) -> dict[str, list[str]]:
    """The titles of redirects by the title of their target, in the order of the dump.

    A title whose words are those of the target, or of a title before, is left out: case, accents and punctuation make
    no other name. Plurals do here, since a dump does not say what a plural is in its language. A redirect to a redirect
    is no alias of the page at the end.

    At most 50 titles per target are kept, and of all titles at most 20 million characters; one warning tells how many
    redirects were dropped at that bound. With titles of 20 characters these are some 700,000 redirects, which take
    about 110 MB of memory, or 150 MB when they are not in Latin letters, in each process that reads the dump.

    Args:
        redirects: Redirects of a dump.
        name: Name of the dump in the warning.
    """
    aliases: dict[str, list[str]] = {}
    num_characters = num_dropped = 0
    for redirect in redirects:
        titles = aliases.get(redirect.target, [])
        if len(titles) >= _MAX_PER_TARGET:
            continue
        length = len(redirect.title) + (0 if titles else len(redirect.target))
        if num_characters + length > _MAX_CHARACTERS:
            num_dropped += 1
            continue
        words = _words(redirect.title)
        if words and words not in map(_words, (redirect.target, *titles)):
            aliases[redirect.target] = [*titles, redirect.title]
            num_characters += length
    if num_dropped:
        _log.warning(
            "%s: %d redirects give no alias, because the titles of those before have %d characters, the most kept",
            name,
            num_dropped,
            _MAX_CHARACTERS,
        )
    return aliases


def _words(title: str) -> list[str]:
    return name_words(title, language="")
