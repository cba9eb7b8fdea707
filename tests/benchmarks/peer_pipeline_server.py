"""The usual way to serve a tagger: FastAPI around Hugging Face's pipeline. `python peer_pipeline_server.py PORT`."""

from __future__ import annotations

import sys
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

from ctxner.encoders import packaged_encoder

_NUM_LABELS, _THREADS = 25, 2


class Request(BaseModel):
    """Texts to tag."""

    texts: list[str]


def main(port: int) -> None:
    """Serve until killed."""
    torch.set_num_threads(_THREADS)
    model = AutoModelForTokenClassification.from_pretrained(packaged_encoder(), num_labels=_NUM_LABELS)
    tokenizer = AutoTokenizer.from_pretrained(packaged_encoder(), model_max_length=512)
    tagger = pipeline(
        "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first", device="cpu"
    )
    app = FastAPI()

    @app.post("/v1/tag")
    def tag(request: Request) -> list[list[dict[str, Any]]]:  # not a coroutine: FastAPI runs it in its threads
        found = tagger(request.texts)
        return [[{**one, "score": float(one["score"])} for one in own] for own in found]

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
