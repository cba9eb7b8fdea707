"""Sentences a second of Flair's tagging with a CRF, as a JSON line; runs in a virtual environment of its own.

`python peer_flair_tag.py ENCODER JSONL WARM_UP BATCH THREADS TYPE...`: nothing of ctxner is imported, as Flair wants
another transformers. The tagger is untrained; what it finds is chance.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import flair
import torch
from flair.data import Dictionary, Sentence
from flair.embeddings import TransformerWordEmbeddings
from flair.models import SequenceTagger


def main(encoder: str, file: str, num_warm_up: int, batch: int, num_threads: int, types: list[str]) -> float:
    """Tag some sentences, then the rest, and time that."""
    torch.set_num_threads(num_threads)
    flair.device = torch.device("cpu")
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    sentences = [Sentence(json.loads(line)["words"], use_tokenizer=False) for line in lines]
    dictionary = Dictionary(add_unk=False)
    for type in types:
        dictionary.add_item(type)
    tagger = SequenceTagger(
        embeddings=TransformerWordEmbeddings(encoder, layers="-1", subtoken_pooling="first", fine_tune=True),
        tag_dictionary=dictionary,
        tag_type="ner",
        tag_format="BIOES",
        use_crf=True,
        use_rnn=False,
        reproject_embeddings=False,
    )
    tagger.predict(sentences[:num_warm_up], mini_batch_size=batch)
    started = time.perf_counter()
    tagger.predict(sentences[num_warm_up:], mini_batch_size=batch)
    return (len(sentences) - num_warm_up) / (time.perf_counter() - started)


if __name__ == "__main__":
    encoder, file, warm_up, batch, threads, *types = sys.argv[1:]
    print(json.dumps(main(encoder, file, int(warm_up), int(batch), int(threads), types)))
