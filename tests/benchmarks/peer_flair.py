"""Sentences a second of Flair's fine-tuning with a CRF, as a JSON line; runs in a virtual environment of its own.

`python peer_flair.py ENCODER CONLL SENTENCES WARM_UP BATCH RATE`: nothing of ctxner is imported, as Flair wants another
transformers. Its settings are those of `SequenceTagger` in Flair's documentation on fine-tuning, with its CRF.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import flair
import torch
from flair.data import Corpus, Sentence
from flair.datasets import FlairDatapointDataset
from flair.embeddings import TransformerWordEmbeddings
from flair.models import SequenceTagger
from flair.trainers import ModelTrainer


def main(encoder: str, file: str, num_sentences: int, num_warm_up: int, batch: int, rate: float) -> float:
    """Train an epoch of some sentences, then one of all, and time that."""
    flair.device = torch.device("cpu")
    sentences = read(Path(file))[:num_sentences]
    dictionary = Corpus(train=FlairDatapointDataset(sentences), sample_missing_splits=False).make_label_dictionary(
        "ner"
    )
    embeddings = TransformerWordEmbeddings(encoder, layers="-1", subtoken_pooling="first", fine_tune=True)
    tagger = SequenceTagger(
        embeddings=embeddings,
        tag_dictionary=dictionary,
        tag_type="ner",
        tag_format="BIOES",
        use_crf=True,
        use_rnn=False,
        reproject_embeddings=False,
    )
    seconds = 0.0
    for number in (num_warm_up, num_sentences):
        corpus = Corpus(train=FlairDatapointDataset(sentences[:number]), sample_missing_splits=False)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            ModelTrainer(tagger, corpus).fine_tune(
                folder,
                learning_rate=rate,
                mini_batch_size=batch,
                max_epochs=1,
                train_with_dev=True,
                save_final_model=False,
                use_final_model_for_eval=True,
            )
            seconds = time.perf_counter() - started
    return num_sentences / seconds


def read(file: Path) -> list[Sentence]:
    """Word and tab and BIOES tag a line, an empty line after a sentence; spans as Flair has them."""
    sentences = []
    for block in file.read_text(encoding="utf-8").split("\n\n"):
        columns = [line.split("\t") for line in block.splitlines() if line.strip()]
        if not columns:
            continue
        sentence = Sentence([own[0] for own in columns], use_tokenizer=False)
        first = None
        for place, tag in enumerate([*(own[-1] for own in columns), "O"]):
            if first is not None and not tag.startswith(("I-", "E-")):
                sentence[first:place].add_label("ner", columns[first][-1][2:])
                first = None
            if tag.startswith(("B-", "S-")):
                first = place
        sentences.append(sentence)
    return sentences


if __name__ == "__main__":
    encoder, file, *numbers, rate = sys.argv[1:]
    print(json.dumps(main(encoder, file, *map(int, numbers), float(rate))))
