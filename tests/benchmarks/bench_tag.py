"""`ctxner tag` in the plain view, from files to files on Ray Data, against its encoder alone and against other taggers.

The sentences are those of WNUT-17 and BC5CDR (of the demo's world without the shared data), the encoder is the packaged
MiniLM in float32 on as many threads, the heads are untrained: what they find is chance, what it costs is not. Each
measurement is a process of its own. Ours is timed from the first report after the warm-up to the written result.

- `tag_plain`: the reference is a bare loop of the encoder's forward over all sentences' pieces, optimally packed and
  padded beforehand; nothing is tokenized, decoded or written.
- `tag_huggingface`: `pipeline("token-classification")` with a softmax, in batches, sentences as they come.
- `tag_flair`: Flair's `SequenceTagger.predict` with its CRF (`peer_flair_tag.py`); only after `make peers`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

from ctxner.config import parse_config
from ctxner.demo import make_world
from ctxner.encoders import packaged_encoder
from ctxner.files.documents import Document, iter_documents
from ctxner.schema import Sentence

_PEERS = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
_DATA = Path(__file__).parents[3] / "shared" / "data"
_RUNS = {"tag_plain": ("bare", 0.8, 20_000, 1), "tag_huggingface": ("huggingface", 2.0, 8000, 1)}
_RUNS |= {"tag_flair": ("flair", 2.0, 8000, 1)} if _PEERS.exists() else {}
NAMES = list(_RUNS)
_WARM_UP = 1024  # sentences
_THREADS, _BATCH = 2, 32
_TYPES = ("person", "place", "group", "product", "creative-work", "corporation")


def main(names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield sentences a second of both."""
    for name in names:
        reference, floor, number, num_rounds = _RUNS[name]
        rounds = [[_in_a_process(side, number) for side in ("ours", reference)] for _ in range(num_rounds)]
        yield {
            "benchmark": name,
            "floor": floor,
            "unit": "sentences/s",
            "ratio": round(statistics.median(ours / theirs for ours, theirs in rounds), 2),
            "ours": round(statistics.median(ours for ours, _ in rounds), 1),
            "reference": round(statistics.median(theirs for _, theirs in rounds), 1),
        }


def ours(number: int, folder: Path) -> float:
    """`ctxner tag` with the default settings."""
    save_model(folder / "model")
    _write(number + _WARM_UP, folder / "in.jsonl")
    import ray

    from ctxner.batch.tag import tag

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    config, starts = parse_config({}), list[tuple[int, float]]()

    def on_progress(done: int) -> None:
        if done >= _WARM_UP and not starts:
            starts.append((done, time.perf_counter()))

    documents: Iterator[Document] = iter_documents(folder / "in.jsonl")
    found = tag(documents, config, str(folder / "model"), folder / "out", on_progress=on_progress)
    [(num_before, started)] = starts
    assert found["documents"] == number + _WARM_UP
    return (number + _WARM_UP - num_before) / (time.perf_counter() - started)


def bare(number: int, folder: Path) -> float:
    """The encoder's forward."""
    import torch

    from ctxner.predictor import Tagger
    from ctxner.views.batches import pack_batches

    torch.set_num_threads(_THREADS)
    save_model(folder / "model")
    tagger = Tagger.from_pretrained(folder / "model")
    views = [tagger.views.plain(own) for own in sentences(number + _WARM_UP)]
    parts = views[:_WARM_UP], views[_WARM_UP:]
    started = 0.0
    for part in parts:
        shapes = [(own.num_rows, own.longest_row) for own in part]
        packed = pack_batches(shapes, max_pieces=tagger.batch_pieces)
        batches = [tagger.views.collate([part[index] for index in batch]) for batch in packed]
        started = time.perf_counter()
        with torch.inference_mode():
            for batch in batches:
                tagger.model.encoder(input_ids=batch.input_ids_RP, attention_mask=batch.attention_RP)
    return number / (time.perf_counter() - started)


def huggingface(number: int, folder: Path) -> float:
    """The pipeline as its documentation uses it, in batches."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

    torch.set_num_threads(_THREADS)
    model = AutoModelForTokenClassification.from_pretrained(packaged_encoder(), num_labels=4 * len(_TYPES) + 1)
    tagger = pipeline(
        "token-classification",
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(packaged_encoder(), model_max_length=512),
        aggregation_strategy="first",
        batch_size=_BATCH,
        device="cpu",
    )
    texts = [" ".join(own.words) for own in sentences(number + _WARM_UP)]
    tagger(texts[:_WARM_UP])
    started = time.perf_counter()
    assert len(tagger(texts[_WARM_UP:])) == number
    return number / (time.perf_counter() - started)


def _flair(number: int, path: Path) -> list[str]:
    """The command for Flair, on the same sentences, which are written to a file."""
    _write(number + _WARM_UP, path)
    script = str(Path(__file__).with_name("peer_flair_tag.py"))
    return [str(_PEERS), script, packaged_encoder(), str(path), *map(str, (_WARM_UP, _BATCH, _THREADS)), *_TYPES]


def sentences(number: int) -> list[Sentence]:
    """The first sentences, and then the same again."""
    from ctxner.files.sentences import iter_sentences

    files = sorted(path for name in ("wnut17", "bc5cdr") for path in (_DATA / name).glob("*.conll"))
    if not files:
        return make_world(num_train=number).train[:number]
    return list(islice(cycle([own for own in iter_sentences(files) if len(own.words) < 300]), number))


def _write(number: int, path: Path) -> None:
    lines = [json.dumps({"words": own.words}) + "\n" for own in sentences(number)]
    path.write_text("".join(lines), encoding="utf-8")


def save_model(folder: Path) -> None:
    import torch

    from ctxner.encoders import load_encoder, load_tokenizer
    from ctxner.labels import LabelSet
    from ctxner.model.tagger import EncoderCRF
    from ctxner.predictor import Tagger

    torch.manual_seed(0)
    model = EncoderCRF.on_encoder(load_encoder(packaged_encoder()), LabelSet(_TYPES))
    with torch.no_grad():
        model.head.bias[0] += 1.0  # O, so that as much is an entity as in real text
    Tagger(model, load_tokenizer(packaged_encoder())).save_pretrained(folder)


def _in_a_process(side: str, number: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        own = [sys.executable, "-m", "tests.benchmarks.bench_tag", side, str(number), folder]
        command = _flair(number, Path(folder, "in.jsonl")) if side == "flair" else own
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))))
