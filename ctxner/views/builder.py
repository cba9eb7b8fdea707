"""Builds views: the words' pieces in windows, then the passages that fit whole, with marks around words that name one.

The sentence is never cut for a passage: a passage that does not fit whole is left out and marked. Passages are given;
`ctxner.retriever` finds them.
"""

# R rows (windows), P pieces of the longest row, B sentences, T words of the longest sentence

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedTokenizerBase

from ctxner.control_pieces import as_text, control_ids
from ctxner.schema import Example, ScoredPassage, Sentence
from ctxner.views.shown import entry_type, shown_text
from ctxner.views.view import View, ViewBatch

MAX_WORD_CHARS = 1000  # longer words are cut before tokenizing: only the first piece of a word is pooled
MAX_WORD_PIECES = 32  # for the same reason
MAX_PASSAGE_CHARS = 20_000
_CACHED_WORDS = 200_000
_TYPE_PIECES = 3  # of an entry's type, beside the words that name it
_UNUSED = ("[unused1]", "[unused2]")  # BERT's vocabularies have pieces that no text becomes
_SHAPES = {"capital": "[unused3]", "capitals": "[unused4]", "mixed": "[unused5]"}

Run = tuple[int, int]  # first word and one past the last


def mark_pieces(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int] | None:
    """The pieces before and after words that name an entry: pieces that no text has; None if there are none."""
    vocabulary = tokenizer.get_vocab()
    unused = [vocabulary[piece] for piece in _UNUSED if piece in vocabulary]
    if len(unused) == 2:
        return unused[0], unused[1]
    mask = tokenizer.mask_token_id
    return None if mask is None else (int(mask), int(mask))


def shape_pieces(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The piece for each shape of a word with capitals (see `shape_of`), for a tokenizer that does not see capitals.

    Empty if the tokenizer tells capitals from small letters, or has no pieces to spare.
    """
    vocabulary = tokenizer.get_vocab()
    if not all(piece in vocabulary for piece in _SHAPES.values()):
        return {}
    small, capital = tokenizer(["ab", "Ab"], add_special_tokens=False)["input_ids"]
    return {shape: vocabulary[piece] for shape, piece in _SHAPES.items()} if small == capital else {}


def shape_of(word: str) -> str:
    """`capital` (Paris, I), `capitals` (NATO), `mixed` (iPhone, McDonald), or empty for a word without capitals."""
    if word == word.lower():
        return ""
    if word[0].isupper() and word[1:] == word[1:].lower():
        return "capital"
    return "capitals" if word == word.upper() else "mixed"


class ViewBuilder:
    """Builds views with one tokenizer and one piece budget.

    Args:
        tokenizer: Any Hugging Face tokenizer with a start and an end piece.
        max_pieces: Most pieces per row, special pieces included.
        max_passages: Most passages in the context view; entries that the sentence names are not bounded, but no text
            follows once there are so many passages.
        mark_entries: Whether marks stand around words that name an entry.
        word_shapes: Whether a piece behind each word with capitals says so, if the tokenizer does not see capitals.

    Raises:
        ValueError: The tokenizer lacks special pieces, or `max_pieces` is too small to hold a word.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_pieces: int = 512,
        max_passages: int = 6,
        mark_entries: bool = True,
        word_shapes: bool = False,
    ) -> None:
        start = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
        end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
        if start is None or end is None or tokenizer.unk_token_id is None or tokenizer.pad_token_id is None:
            raise ValueError(f"tokenizer {tokenizer.name_or_path!r} lacks a start, end, unknown or padding piece")
        if max_pieces < 8:
            raise ValueError(f"max_pieces={max_pieces} leaves no room for words; give at least 8")
        self.tokenizer, self.start, self.end = tokenizer, int(start), int(end)
        self.unknown, self.pad = int(tokenizer.unk_token_id), int(tokenizer.pad_token_id)
        self.max_pieces, self.max_passages = max_pieces, max_passages
        self.marks = mark_pieces(tokenizer) if mark_entries else None
        self.shapes = shape_pieces(tokenizer) if word_shapes else {}
        self._controls = control_ids(tokenizer)
        # Threads may share the builder: no entry is read twice, because another thread may replace a full cache.
        self._word_pieces: dict[str, tuple[int, ...]] = {}
        self._pieces_of_types: dict[str, tuple[int, ...]] = {"": ()}
        self.encode(["a"])  # a first call changes the tokenizer's truncation and padding; later calls only read them

    def plain(self, sentence: Sentence) -> View:
        """The sentence alone; in overlapping windows if it is longer than a row.

        Raises:
            ValueError: The sentence has no words.
        """
        pieces = self._pieces_of_words(sentence)
        windows, places = [], [(0, 0)] * len(pieces)
        for number, (first, first_scored, last) in enumerate(_cut(pieces, self.max_pieces - 2)):
            row = [self.start]
            for word in range(first, last):
                if word >= first_scored:
                    places[word] = (number, len(row))
                row.extend(pieces[word])
            windows.append((*row, self.end))
        return View(sentence.id, tuple(windows), tuple(places))

    def context(self, example: Example) -> View:
        """The sentence followed by the passages that fit whole: `start words end passages end`.

        Marks stand around the words that name a used entry, and its type behind them. A sentence without a usable
        passage has its plain view's pieces. Passages that retrieval dropped stay dropped.
        """
        plain = self.plain(example.sentence)
        room = self.max_pieces - len(plain.windows[0]) - 1 if plain.num_rows == 1 else 0
        used, passages = list[list[int]](), list[ScoredPassage]()
        marked: dict[Run, int] = {}  # run of words -> place of its first entry among the used passages
        types: dict[int, tuple[int, ...]] = {}  # pieces of the type of each of these entries
        texts = [shown_text(scored.passage)[:MAX_PASSAGE_CHARS] for scored in example.passages]
        for scored, pieces in zip(example.passages, self.encode(texts), strict=True):
            runs = [run for run in scored.named if run not in marked and run[1] <= len(plain.word_places)]
            type_pieces = self._type_pieces(entry_type(scored.passage)) if runs else ()
            size = len(pieces) + (2 + len(type_pieces)) * len(runs) * (self.marks is not None)
            is_full = not scored.named and len(used) >= self.max_passages
            reason = scored.dropped or ("below_depth" if is_full else None)
            if reason is None and (not pieces or size > room):
                reason = "piece_budget" if pieces else "no_pieces"
            if reason is not None:
                passages.append(replace(scored, dropped=reason, num_pieces=None))
                continue
            if runs:
                marked |= dict.fromkeys(runs, len(used))
                types[len(used)] = type_pieces
            used.append(pieces)
            room -= size
            passages.append(replace(scored, num_pieces=len(pieces)))
        if not used:
            return replace(plain, passages=tuple(passages))
        row, places, marks = self._marked(plain, marked, types)
        row = (*row, *(piece for pieces in used for piece in pieces), self.end)
        return View(plain.sentence_id, (row,), places, tuple(passages), marks)

    def _marked(
        self, plain: View, marked: Mapping[Run, int], types: Mapping[int, tuple[int, ...]]
    ) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
        """The plain row with marks around runs of words: the row, each word's place, and the marks (see `View`)."""
        [row] = plain.windows
        if self.marks is None or not marked:
            return row, plain.word_places, ()
        opening, closing = self.marks
        firsts = [place for _, place in plain.word_places]
        stops = [*firsts[1:], len(row) - 1]  # one past the last piece of each word
        insertions = sorted(
            insertion
            for (start, end), used in marked.items()
            for insertion in ((stops[end - 1], 0, (closing, *types[used]), used), (firsts[start], 1, (opening,), used))
        )
        pieces, marks, at, before = list[int](), list[tuple[int, int]](), list[int](), 0
        for place, _, inserted, used in insertions:
            pieces += row[before:place]
            marks += [(len(pieces) + n, used) for n in range(len(inserted))]
            pieces += inserted
            at += [place] * len(inserted)
            before = place
        places = tuple((0, first + bisect_right(at, first)) for first in firsts)
        return (*pieces, *row[before:]), places, tuple(marks)

    def _type_pieces(self, type: str) -> tuple[int, ...]:
        """First pieces of an entry's type, which stand behind the words that name it."""
        pieces = self._pieces_of_types.get(type)
        if pieces is None:
            pieces = tuple(self.encode([type[:MAX_WORD_CHARS]])[0][:_TYPE_PIECES])
            if len(self._pieces_of_types) > _CACHED_WORDS:
                self._pieces_of_types = {"": ()}
            self._pieces_of_types[type] = pieces
        return pieces

    def collate(self, views: Sequence[View], tags: Sequence[Sequence[int]] | None = None) -> ViewBatch:
        """Pad views (and their label ids) to one batch; a sentence's row never attends to another's."""
        num_pieces = max(view.longest_row for view in views)
        num_words = max(len(view.word_places) for view in views)
        rows = [window for view in views for window in view.windows]
        input_ids_RP = torch.full((len(rows), num_pieces), self.pad)
        attention_RP = torch.zeros(len(rows), num_pieces, dtype=torch.long)
        for number, row in enumerate(rows):
            input_ids_RP[number, : len(row)] = torch.tensor(row)
            attention_RP[number, : len(row)] = 1
        word_index_BT = torch.zeros(len(views), num_words, dtype=torch.long)
        mask_BT = torch.zeros(len(views), num_words, dtype=torch.bool)
        tags_BT = None if tags is None else torch.zeros(len(views), num_words, dtype=torch.long)
        first_row = 0
        for number, view in enumerate(views):
            places = torch.tensor(view.word_places)
            word_index_BT[number, : len(places)] = (places[:, 0] + first_row) * num_pieces + places[:, 1]
            mask_BT[number, : len(places)] = True
            if tags is not None and tags_BT is not None:
                tags_BT[number, : len(places)] = torch.tensor(tags[number])
            first_row += view.num_rows
        return ViewBatch(input_ids_RP, attention_RP, word_index_BT, mask_BT, tags_BT)

    def _pieces_of_words(self, sentence: Sentence) -> list[tuple[int, ...]]:
        if not sentence.words:
            raise ValueError(f"sentence {sentence.id!r} has no words; drop it before building views")
        cached = {word: self._word_pieces.get(word) for word in sentence.words}
        pieces = {word: word_pieces for word, word_pieces in cached.items() if word_pieces is not None}
        new = [word for word in cached if word not in pieces]
        limit = min(MAX_WORD_PIECES, self.max_pieces - 2) - bool(self.shapes)
        encoded = self.encode([word[:MAX_WORD_CHARS] for word in new])
        made = {word: tuple(ids[:limit]) or (self.unknown,) for word, ids in zip(new, encoded, strict=True)}
        if self.shapes:
            made = {
                word: (*ids, self.shapes[shape]) if (shape := shape_of(word)) else ids for word, ids in made.items()
            }
        if len(self._word_pieces) + len(made) > _CACHED_WORDS:
            self._word_pieces = {}
        self._word_pieces.update(made)
        pieces |= made
        return [pieces[word] for word in sentence.words]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Pieces of each text, as views have them; `[SEP]` or `</s>` in a text is text, never the control piece."""
        if not texts:
            return []
        clean = [text.encode("utf-8", "replace").decode() for text in texts]  # lone surrogates crash tokenizers
        encoded = self.tokenizer(clean, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return [as_text(ids, self._controls, self.unknown) for ids in encoded["input_ids"]]


def _cut(pieces: Sequence[Sequence[int]], capacity: int) -> Iterable[tuple[int, int, int]]:
    """(first word, first word scored here, end) of each window; a quarter of each window overlaps the one before.

    In an overlap, the earlier window scores the first half of the words and the later one the second half.
    """
    first, scored, end = 0, 0, 0
    while end < len(pieces):
        end, size = first, 0
        while end < len(pieces) and size + len(pieces[end]) <= capacity:
            size += len(pieces[end])
            end += 1
        yield first, scored, end
        back, size = end, 0
        while back > first + 1 and size + len(pieces[back - 1]) <= capacity // 4:
            back -= 1
            size += len(pieces[back])
        first, scored = back, back + (end - back + 1) // 2
