"""Computes the key of stored views: a hash of everything they depend on, so that no other views share their store."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ctxner import control_pieces as control_module
from ctxner.schema import Example, ViewName
from ctxner.views import builder as builder_module
from ctxner.views import shown as shown_module
from ctxner.views import view as view_module
from ctxner.views.builder import ViewBuilder
from ctxner.views.shown import shown_text

_CODE = (builder_module, control_module, shown_module, view_module)
VERSION = 2  # of the store's file format; changes of the views themselves change the key anyway


def views_key(examples: Iterable[Example], builder: ViewBuilder, which: ViewName) -> str:
    """SHA-256, in hexadecimal, of all that views depend on: examples, tokenizer, limits, versions, `ctxner.views`.

    Plain views do not depend on passages, so their key does not change with the contexts.
    """
    digest = settings_hash(builder, which)
    for example in examples:
        hash_example(digest, example, which)
    return digest.hexdigest()


def settings_hash(builder: ViewBuilder, which: ViewName) -> hashlib._Hash:
    """Start a key with everything that the views depend on except the examples."""
    settings = {
        "version": VERSION,
        "which": which,
        "max_pieces": builder.max_pieces,
        "max_passages": builder.max_passages if which == "context" else None,
        "shapes": builder.shapes,
        "marks": builder.marks if which == "context" else None,
        "special": (builder.start, builder.end, builder.unknown, builder.pad),
        "limits": {name: value for name, value in vars(builder_module).items() if name.startswith("MAX_")},
        "code": [hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() for module in _CODE],
        "libraries": {name: version(name) for name in ("transformers", "tokenizers")},
        "tokenizer": _tokenizer_hash(builder.tokenizer),
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode())


def _tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    digest = hashlib.sha256(f"{type(tokenizer)} {getattr(tokenizer, 'split_special_tokens', None)}".encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()  # left from its last call or its file; the builder turns both off too
        backend.no_padding()
        digest.update(backend.to_str().encode())
        return digest.hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            digest.update(f"{path.name} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()


def hash_example(digest: hashlib._Hash, example: Example, which: ViewName) -> None:
    """Add an example to the hash of a key."""
    passages = example.passages if which == "context" else ()
    parts = [example.sentence.id, *example.sentence.words, *(shown_text(scored.passage) for scored in passages)]
    # end of each part
    sizes = f"{[len(part) for part in parts]}{[(scored.dropped, scored.named) for scored in passages]}"
    digest.update((sizes + "".join(parts)).encode("utf-8", "surrogatepass"))
