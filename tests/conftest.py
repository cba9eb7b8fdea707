"""Settings of all tests: offline, no GPU unless asked for, one deadline-free hypothesis profile."""

import os
import uuid
from pathlib import Path

import pytest

from tests.s3_server import BUCKET, s3_server

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def noise():
    """With CTXNER_TEST_NOISE=1 every linear layer rounds anew at each call, as kernels chosen by shape do.

    A stand-in for processors that are not at hand (AMX): a test that passes without noise and fails with it rests on
    the last bits of a result.
    """
    if os.environ.get("CTXNER_TEST_NOISE") != "1":
        yield
        return
    import torch

    linear, generator = torch.nn.functional.linear, torch.Generator().manual_seed(0)

    def noisy(input, weight, bias=None):
        output = linear(input, weight, bias)
        if torch.is_grad_enabled() or not output.is_floating_point():
            return output
        step = {torch.bfloat16: 2.0**-8, torch.float32: 2.0**-22}.get(output.dtype, 0.0)
        sign = torch.randint(-1, 2, output.shape, generator=generator).to(output)
        return output + output * (step * sign)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", noisy)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the project; tests that need it are skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no data sets at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def minilm() -> str:
    """The packaged encoder."""
    from ctxner.encoders import packaged_encoder

    return packaged_encoder()


@pytest.fixture(scope="session")
def tagger(minilm, tmp_path_factory):
    """A tiny random BERT whose emissions are scaled until it finds persons and places."""
    import torch
    from transformers import AutoModel, BertConfig

    from ctxner.encoders import load_encoder, load_tokenizer
    from ctxner.labels import LabelSet
    from ctxner.model.tagger import EncoderCRF
    from ctxner.predictor import Tagger
    from ctxner.schema import Sentence

    path = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=128, initializer_range=0.4,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(path)
    own = Tagger(
        EncoderCRF.on_encoder(load_encoder(str(path)), LabelSet(("person", "place")), max_passages=3),
        load_tokenizer(minilm),
    )
    words = [
        "Paris",
        "Hilton",
        "sings",
        "in",
        "London",
        ",",
        "don't",
        "@you",
        "#think",
        "so",
        "?",
        "Müller",
        "日",
        "👍🏽",
        "http://t.co/x",
        "10:30",
        "loooong",
    ]
    batch = own.views.collate([own.views.plain(Sentence("s", tuple(words)))])
    with torch.no_grad():  # centre the emissions: a random encoder's vectors have much in common
        torch.nn.init.normal_(own.model.head.weight, std=1.0)
        _, emissions_BTL = own.model(batch.input_ids_RP, batch.attention_RP, batch.word_index_BT)
        own.model.head.bias -= emissions_BTL.mean((0, 1))
    return own


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory):
    """A server of S3 for all tests."""
    with s3_server(tmp_path_factory.mktemp("s3") / "server.log") as server:
        yield server


@pytest.fixture
def s3(s3_process, tmp_path, monkeypatch):
    """The server, named by the environment, and copies in a folder of this test alone."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # they keep the keys that they began with
    for name, value in s3_process.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CTXNER_CACHE", str(tmp_path / "cache"))
    return s3_process


@pytest.fixture
def bucket(s3, request):
    """URI of a folder that no other test has."""
    return f"s3://{BUCKET}/{request.node.name}-{uuid.uuid4().hex[:8]}"
