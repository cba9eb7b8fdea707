"""`ctxner retrieval-report`: gold tags and contexts -> what the passages are about, and which ones were dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxner.config import Config
from ctxner.encoders import packaged_encoder
from ctxner.files.contexts import SUCCESS, Context, fitting_contexts, join_contexts, read_contexts
from ctxner.files.sentences import read_sentences, refuse_untagged
from ctxner.labels import mention_text
from ctxner.retrieval.measure.coverage import (
    LocatedMention,
    Surface,
    locate_in_corpus,
    locate_mentions,
    mention_coverage,
    surfaces,
    tally,
    word_coverage,
)
from ctxner.retrieval.measure.entries import corresponding_types, measure_links, pieces_spent
from ctxner.schema import Example, Sentence, Span
from jobs.audit import read_passages
from jobs.console import progress
from jobs.pages.page import asked_key, free_page, page_beside
from jobs.pages.retrieval import Findings, Missing, write_retrieval_page
from jobs.retrieval_rows import link_rows, row_of
from jobs.retrieve import warning_of_misses


@dataclass(frozen=True, slots=True)
class Inputs:
    """Checked data of a split.

    Attributes:
        examples: Tagged sentences with their retrieved passages.
        contexts: Contexts of these sentences, by id.
        seen: Mentions of the training data; None without training data.
        gold_types: Gold type of each corpus type, learned from the training data and its contexts; None when unknown.
        why_no_types: Reason why `gold_types` is None; else None.
    """

    examples: list[Example]
    contexts: Mapping[str, Context]
    seen: frozenset[Surface] | None
    gold_types: Mapping[str, str] | None
    why_no_types: str | None


def run(config: Config, split: str, ks: Sequence[int], *, with_ceiling: bool, out: Path) -> dict[str, Any]:
    """Measure a split's contexts, write the page, and return the figures.

    Args:
        config: Config whose data section names the split, its contexts, and training data for seen and unseen mentions.
        split: train, dev or test.
        ks: Numbers of passages to report for.
        with_ceiling: Whether to look for the mentions in the whole corpus too.
        out: HTML file to write.
    """
    inputs = read_inputs(config, split, with_ceiling=with_ceiling)
    measures = measure(config, inputs, sorted(set(ks)), with_ceiling=with_ceiling)
    limits = config.model.max_pieces, config.model.max_passages
    title = f"What retrieval found for {split}"
    asked = _asked(config, split, ks, with_ceiling=with_ceiling)
    write_retrieval_page(out, measures, title=title, limits=limits, facts=_facts(config, split, inputs), asked=asked)
    return {
        "split": split,
        "sentences": len(inputs.examples),
        "errors": sum(context.error is not None for context in inputs.contexts.values()),
        "without_query": sum(not context.query for context in inputs.contexts.values()),
        "coverage": {
            str(k): row_of(cell, measures.words[k], measures.has_seen) for k, cell in measures.coverage.items()
        },
        "context_view": row_of(measures.read, measures.read_words, measures.has_seen),
        "ceiling": row_of(measures.ceiling, None, measures.has_seen) if measures.ceiling else None,
        **link_rows(measures),
        "passages": {
            fate: {"passages": len(passages), "pieces": measures.num_pieces(passages)}
            for fate, passages in measures.fates().items()
        },
        "not_found": [
            {
                "sentence_id": mention.id,
                "mention": mention.parts[1],
                "type": mention.type,
                "in_corpus": mention.in_corpus,
            }
            for mention in measures.missing
        ],
        "report": str(out),
        "warning": _warning(config, split, inputs),
    }


def plan(config: Config, split: str, ks: Sequence[int], *, with_ceiling: bool, out: Path) -> dict[str, Any]:
    """What `run` would do; checks the data, the contexts and the corpus files."""
    inputs = read_inputs(config, split, with_ceiling=with_ceiling)
    mention_coverage([], ks)
    return {
        "split": split,
        "sentences": len(inputs.examples),
        "ks": sorted(set(ks)),
        "corpus": [str(path) for path in config.index.corpus] if with_ceiling else [],
        "report": str(out),
    }


def default_page(config: Config, split: str, ks: Sequence[int], *, with_ceiling: bool) -> Path:
    """Path of the page where none is given: one that no report on other data, or with other options, has."""
    usual = page_beside(config.data.contexts, "contexts", f"retrieval-{split}")
    return free_page(usual, _asked(config, split, ks, with_ceiling=with_ceiling))


def _asked(config: Config, split: str, ks: Sequence[int], *, with_ceiling: bool) -> str:
    files = config.data.path(split), config.data.contexts_path(split), config.data.train
    model = config.model
    limits = model.encoder, model.max_pieces, model.max_passages, model.mark_entries
    corpus = config.index.corpus if with_ceiling else None
    return asked_key(files=files, ks=sorted(set(ks)), limits=limits, corpus=corpus)


def _warning(config: Config, split: str, inputs: Inputs) -> str | None:
    """What to say where most sentences have no passage; the index is the one that the contexts' manifest names."""
    folder, language = config.data.contexts, None
    if folder and (folder / SUCCESS).is_file():
        manifest = json.loads((folder / SUCCESS).read_text(encoding="utf-8")).get(split) or {}
        language = manifest.get("index", {}).get("language")
    num_without = sum(not context.passages and context.error is None for context in inputs.contexts.values())
    return warning_of_misses(num_without, len(inputs.contexts), language, config.index.folder)


def read_inputs(config: Config, split: str, *, with_ceiling: bool) -> Inputs:
    """The split, its contexts, the training mentions, and the types that correspond in training.

    Raises:
        ValueError: No contexts folder, no gold tags, no corpus though one is needed, or a faulty file.
    """
    data, format = config.data, config.data.column_format()
    path, contexts_path = data.path(split), data.contexts_path(split)
    if contexts_path is None:
        raise ValueError("data.contexts is not set; give --set data.contexts=FOLDER, which `ctxner retrieve` wrote")
    if with_ceiling and not config.index.corpus:
        raise ValueError("no corpus for the ceiling; give --corpus FILE or set index.corpus")
    for corpus in config.index.corpus if with_ceiling else ():
        if not corpus.is_file():
            raise ValueError(f"{corpus}: no such corpus file; give --corpus FILE or set index.corpus")
    sentences, contexts = read_sentences(path, format).sentences, read_contexts(contexts_path)
    refuse_untagged(sentences, path)
    training, seen = sentences if split == "train" else None, None
    if split != "train" and data.train:
        training = read_sentences(data.train, format).sentences[: data.train_sentences]
        seen = surfaces(training)
    examples = join_contexts(sentences, contexts, where=contexts_path)
    gold_types, why_no_types = _gold_types(examples, training, data.contexts_path("train"))
    return Inputs(examples, fitting_contexts(sentences, contexts), seen, gold_types, why_no_types)


def _gold_types(
    examples: Sequence[Example], training: Sequence[Sentence] | None, contexts: Path | None
) -> tuple[dict[str, str] | None, str | None]:
    """The gold type of each corpus type in training, or the reason why it is not known.

    Args:
        examples: Sentences that are measured.
        training: Sentences of the training data.
        contexts: Contexts of the training data.
    """
    if not any(scored.named for example in examples for scored in example.passages):
        return None, "no sentence names an entry"
    if training is None:
        return None, "data.train is not set"
    if contexts is None or not contexts.exists():
        return None, f"{contexts} is missing; make it with `ctxner retrieve`"
    gold_types = corresponding_types(join_contexts(training, read_contexts(contexts), where=contexts))
    return (gold_types, None) if gold_types else (None, f"{contexts} has no entry that exactly a gold mention names")


def read_by_tagger(config: Config, examples: Sequence[Example]) -> tuple[list[Example], dict[str, int]]:
    """The examples with their passages as the context view reads them, and the pieces of each passage by id."""
    from ctxner.encoders import load_tokenizer
    from ctxner.views.builder import MAX_PASSAGE_CHARS, ViewBuilder
    from ctxner.views.shown import shown_text

    tokenizer = load_tokenizer(config.model.encoder or packaged_encoder())
    limits = config.model
    builder = ViewBuilder(
        tokenizer,
        max_pieces=limits.max_pieces,
        max_passages=limits.max_passages,
        mark_entries=limits.mark_entries,
        word_shapes=limits.word_shapes,
    )
    views: list[Example] = []
    sizes: dict[str, int] = {}
    with progress("building context views", len(examples)) as done:
        for number, example in enumerate(examples, start=1):
            views.append(Example(example.sentence, builder.context(example).passages))
            texts = {scored.passage.id: shown_text(scored.passage)[:MAX_PASSAGE_CHARS] for scored in example.passages}
            new = [passage_id for passage_id in texts if passage_id not in sizes]
            pieces = builder.encode([texts[passage_id] for passage_id in new])
            sizes |= {passage_id: len(ids) for passage_id, ids in zip(new, pieces, strict=True)}
            done(number)
    return views, sizes


def measure(config: Config, inputs: Inputs, ks: Sequence[int], *, with_ceiling: bool) -> Findings:
    """All figures of a split."""
    examples, seen = inputs.examples, inputs.seen or frozenset()
    coverage = mention_coverage(examples, ks, seen=seen)
    views, pieces = read_by_tagger(config, examples)
    all_read = max(1, config.model.max_passages)
    in_corpus = None
    if with_ceiling:
        passages = read_passages(config.index, "looking for mentions in passages")
        in_corpus = locate_in_corpus(passages, [example.sentence for example in examples])
    return Findings(
        coverage=coverage,
        words=word_coverage(examples, ks),
        read=mention_coverage(views, [all_read], seen=seen)[all_read],
        read_words=word_coverage(views, [all_read])[all_read],
        ceiling=None if in_corpus is None else tally(in_corpus, seen),
        has_seen=inputs.seen is not None,
        most_kept=max(sum(scored.dropped is None for scored in example.passages) for example in examples),
        views=views,
        pieces=pieces,
        missing=_missing(inputs, in_corpus),
        links=measure_links(examples, seen=seen, gold_types=inputs.gold_types),
        pieces_spent=pieces_spent(views, seen=seen),
        gold_types=inputs.gold_types,
        why_no_types=inputs.why_no_types,
    )


def _missing(inputs: Inputs, in_corpus: Sequence[LocatedMention] | None) -> list[Missing]:
    examples = {example.sentence.id: example for example in inputs.examples}
    standing = {(mention.sentence_id, mention.span) for mention in in_corpus or () if mention.rank is not None}
    missing = []
    for mention in locate_mentions(inputs.examples):
        if mention.rank is not None:
            continue
        example = examples[mention.sentence_id]
        missing.append(
            Missing(
                mention.sentence_id,
                mention.span.type,
                _in_sentence(example.sentence, mention.span),
                inputs.contexts[mention.sentence_id].query,
                tuple(scored for scored in example.passages if scored.dropped is None),
                None if in_corpus is None else (mention.sentence_id, mention.span) in standing,
            )
        )
    return missing


def _in_sentence(sentence: Sentence, span: Span) -> tuple[str, str, str]:
    """A gold mention's words, and the words before and after it; all words are before one that no run of words is."""
    start, end = (span.start, span.end) if span.start >= 0 else (len(sentence.words), len(sentence.words))
    return " ".join(sentence.words[:start]), mention_text(sentence, span), " ".join(sentence.words[end:])


def _facts(config: Config, split: str, inputs: Inputs) -> dict[str, str]:
    retrieval = config.retrieval
    return {
        f"{split}, {len(inputs.examples):,} sentences": str(config.data.path(split)),
        "Contexts": str(config.data.contexts_path(split)),
        "Retrieval failed": f"{sum(context.error is not None for context in inputs.contexts.values()):,} sentences",
        "Nothing to search for": f"{sum(not context.query for context in inputs.contexts.values()):,} sentences",
        "Query, as configured now": f"{retrieval.query}, depth {retrieval.depth}, keep {retrieval.keep}",
        "Corpus": ", ".join(map(str, config.index.corpus)) or "not set",
    }
