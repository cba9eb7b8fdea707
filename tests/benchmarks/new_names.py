"""Names that an index lacks: how many are found once they have entries, and how many false alarms that costs.

`python -m tests.benchmarks.new_names MODEL CONFIG [NUMBER]`: of the test mentions that the context view misses and
whose name is no name of the index, NUMBER (default 200) distinct names are drawn by a fixed seed. Each gets an entry in
a copy of the index, "NAME is a KIND.", in the words that the index's entries have for the type of the mention. Nothing
is trained. One JSON object is printed.

The types are the gold ones: who adds an entry knows what it is.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ctxner.config import Config, load_config
from ctxner.evaluation.scores import count_spans, surface_form
from ctxner.files.sentences import read_sentences
from ctxner.labels import gold_spans
from ctxner.predictor import Tagger
from ctxner.retrieval.index.changes import add_passages
from ctxner.retrieval.index.names import Names
from ctxner.retrieval.index.versions import read_manifest
from ctxner.retrieval.text import name_words
from ctxner.retriever import Retriever
from ctxner.schema import Example, Sentence, Span
from ctxner.views.shown import entry_type


def main(model: str, config: Config, number: int) -> dict[str, object]:
    """Figures before and after."""
    sentences = read_sentences(config.data.path("test"), config.data.column_format()).sentences
    gold = [set(gold_spans(sentence)) for sentence in sentences]
    tagger = Tagger.from_pretrained(model)
    examples = _looked_up(config, sentences)
    before = [set(prediction.spans) for prediction in tagger.predict(examples, view="context")]
    manifest = read_manifest(config.index.folder)
    names, kinds = Names(Path(config.index.folder, manifest.version)), _kinds(examples, gold)
    missed = {
        surface_form(sentence, span): span.type
        for sentence, spans, found in zip(sentences, gold, before, strict=True)
        for span in sorted(spans - found)
        if names.row(name_words(" ".join(sentence.words[span.start : span.end]), manifest.language)) < 0
    }
    chosen = dict(random.Random(0).sample(sorted(missed.items()), min(number, len(missed))))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(config.index.folder, Path(folder, "index"))
        lines = [
            json.dumps({"id": f"new-{n}", "title": name, "text": f"{name} is a {kinds[type]}.", "source": "new"})
            for n, (name, type) in enumerate(chosen.items())
        ]
        Path(folder, "new.jsonl").write_text("\n".join(lines))
        add_passages([Path(folder, "new.jsonl")], Path(folder, "index"))
        index = config.index.model_copy(update={"folder": Path(folder, "index")})
        examples = _looked_up(config.model_copy(update={"index": index}), sentences)
    after = [set(prediction.spans) for prediction in tagger.predict(examples, view="context")]
    about = [
        {span for span in spans if surface_form(sentence, span) in chosen}
        for sentence, spans in zip(sentences, gold, strict=True)
    ]
    pairs = list(zip(gold, before, after, strict=True))
    return {
        "names_missed": len(missed),
        "entries_added": len(chosen),
        "mentions_of_them": sum(map(len, about)),
        "found_before": sum(len(spans & found) for spans, found in zip(about, before, strict=True)),
        "found_after": sum(len(spans & found) for spans, found in zip(about, after, strict=True)),
        "other_mentions_found": sum(len((new - old) & spans) for spans, old, new in pairs)
        - sum(len((new - old) & spans) for spans, old, new in zip(about, before, after, strict=True)),
        "mentions_lost": sum(len((old - new) & spans) for spans, old, new in pairs),
        "false_alarms_added": sum(len(new - old - spans) for spans, old, new in pairs),
        "false_alarms_gone": sum(len(old - new - spans) for spans, old, new in pairs),
        **{
            f"f1_{when}": round(100 * count_spans(gold, found).scores().f1, 2)
            for when, found in (("before", before), ("after", after))
        },
    }


def _looked_up(config: Config, sentences: Sequence[Sentence]) -> list[Example]:
    passages = Retriever(config.retrieval, folder=config.index.folder).retrieve(sentences)
    return [Example(*pair) for pair in zip(sentences, passages, strict=True)]


def _kinds(examples: Sequence[Example], gold: Sequence[set[Span]]) -> dict[str, str]:
    """By gold type, what the index's entries most often call a mention of it."""
    counts: dict[str, Counter[str]] = {}
    for example, spans in zip(examples, gold, strict=True):
        types = {(span.start, span.end): span.type for span in spans}
        for scored in example.passages:
            for run in scored.named:
                if run in types and (kind := entry_type(scored.passage)):
                    counts.setdefault(types[run], Counter())[kind] += 1
    return {type: kinds.most_common(1)[0][0] for type, kinds in counts.items()}


if __name__ == "__main__":
    model_path, config_path, *rest = sys.argv[1:]
    print(json.dumps(main(model_path, load_config(Path(config_path)), int(rest[0]) if rest else 200)))
