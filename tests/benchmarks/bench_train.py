"""Training against Hugging Face's Trainer and Flair: sentences a second of an epoch, in the plain view.

The packaged MiniLM on the first sentences of WNUT-17 (of the demo's world without the shared data), the same batch
size, float32. Ours has the CRF and runs in DeepSpeed as `ctxner train` does. Each measurement is a process of its own,
in turns, with as many threads; loading and tokenizing are not counted, and a short epoch before it warms up.

- `train_plain`: the reference is token classification with a softmax, dynamic padding, sentences grouped by length.
- `train_flair`: the reference is Flair's fine-tuning with its CRF (`peer_flair.py`); only after `make peers`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from ctxner.config import Config, parse_config
from ctxner.demo import make_world
from ctxner.encoders import packaged_encoder
from ctxner.labels import LabelSet
from ctxner.schema import Example

_PEERS = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
NAMES = ["train_plain", *(["train_flair"] if _PEERS.exists() else [])]
_FLOORS = {"train_plain": 1.0, "train_flair": 2.0}
_DATA = Path(__file__).parents[3] / "shared" / "data" / "wnut17" / "train.conll"
_SENTENCES, _WARM_UP, _BATCH, _ROUNDS = 1024, 128, 16, 3
_RATE = 1e-4


def main(names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield sentences a second of both."""
    for name in names:
        reference = "flair" if name == "train_flair" else "reference"
        rounds = [[_in_a_process(side) for side in ("ours", reference)] for _ in range(_ROUNDS)]
        yield {
            "benchmark": name,
            "floor": _FLOORS[name],
            "unit": "sentences/s",
            "ratio": round(statistics.median(ours / theirs for ours, theirs in rounds), 2),
            "ours": round(statistics.median(ours for ours, _ in rounds), 1),
            "reference": round(statistics.median(theirs for _, theirs in rounds), 1),
        }


def ours() -> float:
    """Epochs of `ctxner train`, without Ray, checkpoints and evaluation."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": "0", "DEEPSPEED_LOG_LEVEL": "warning"}
    import torch

    from ctxner.encoders import load_tokenizer
    from ctxner.training.build import build_model, build_step
    from ctxner.training.data.training_set import TrainingSet
    from ctxner.training.deepspeed_engine import build_engine, reduce_gradients
    from ctxner.views.builder import ViewBuilder

    config, examples = _config(), _examples()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    labels = LabelSet.from_sentences(own.sentence for own in examples)
    views, cpu = ViewBuilder(load_tokenizer(packaged_encoder())), torch.device("cpu")
    sets = [TrainingSet(own, labels, views, config) for own in (examples[:_WARM_UP], examples)]
    engine = build_engine(build_step(build_model(config, labels), config), config, sum(sets[1].steps_by_epoch()))
    engine.train()
    for data in sets:
        started = time.perf_counter()
        for [batch] in data.steps(0):
            loss = engine(*data.share(batch, 0, 1, cpu))["loss"]
            engine.backward(loss / len(batch))
            reduce_gradients(engine)
            engine.step()
    return len(examples) / (time.perf_counter() - started)


def reference() -> float:
    """Trainer as its documentation uses it for token classification."""
    from datasets import Dataset
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
        Trainer,
        TrainingArguments,
    )

    examples, tokenizer = _examples(), AutoTokenizer.from_pretrained(packaged_encoder())
    labels = LabelSet.from_sentences(own.sentence for own in examples)
    words = [list(own.sentence.words) for own in examples]
    pieces = tokenizer(words, is_split_into_words=True, truncation=True, max_length=512)
    pieces["labels"] = [
        [-100 if place is None or place == before else ids[place] for before, place in pairwise([None, *own])]
        for ids, own in (
            (labels.encode(example.sentence.tags or ()), pieces.word_ids(row)) for row, example in enumerate(examples)
        )
    ]
    model = AutoModelForTokenClassification.from_pretrained(packaged_encoder(), num_labels=len(labels))
    found = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in (_WARM_UP, _SENTENCES):
            settings = TrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=_BATCH,
                learning_rate=_RATE,
                train_sampling_strategy="group_by_length",
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                dataloader_pin_memory=False,
            )
            trainer = Trainer(
                model,
                settings,
                data_collator=DataCollatorForTokenClassification(tokenizer),
                train_dataset=Dataset.from_dict({name: own[:number] for name, own in pieces.items()}),
                processing_class=tokenizer,
            )
            started = time.perf_counter()
            trainer.train()
            found = number / (time.perf_counter() - started)
    return found


def _flair(path: Path) -> list[str]:
    """The command for Flair, on the same sentences, which are written to a file."""
    with path.open("w") as file:
        for own in _examples():
            words = zip(own.sentence.words, own.sentence.tags or (), strict=True)
            file.writelines([*(f"{word}\t{tag}\n" for word, tag in words), "\n"])
    script = str(Path(__file__).with_name("peer_flair.py"))
    return [str(_PEERS), script, packaged_encoder(), str(path), *map(str, (_SENTENCES, _WARM_UP, _BATCH, _RATE))]


def _examples() -> list[Example]:
    from ctxner.files.sentences import read_sentences

    tagged = read_sentences(_DATA).sentences if _DATA.is_file() else make_world(num_train=_SENTENCES).train
    return [Example(own) for own in tagged[:_SENTENCES]]


def _config() -> Config:
    return parse_config({"loss": {"mode": "plain"}, "optim": {"epochs": 1, "batch_sentences": _BATCH}})


def _in_a_process(side: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        own = [sys.executable, "-m", "tests.benchmarks.bench_train", side]
        command = _flair(Path(folder, "train.conll")) if side == "flair" else own
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
