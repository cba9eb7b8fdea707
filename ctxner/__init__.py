"""Named-entity recognition that looks things up. `Tagger` is loaded on first use: importing ctxner is cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Tagger", "__version__"]

if TYPE_CHECKING:
    from ctxner.predictor import Tagger


def __getattr__(name: str) -> object:
    if name == "Tagger":
        from ctxner.predictor import Tagger

        return Tagger
    raise AttributeError(f"module 'ctxner' has no attribute {name!r}")
