"""The tagger, saved as a Hugging Face model folder: encoder -> first piece of each word -> dropout -> linear -> CRF.

Views are built in `ctxner.views`, losses in `ctxner.model.losses`, entities in `ctxner.predictor`.
"""

# R rows, P pieces, B sentences, T words, H hidden width, L tags

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ctxner.encoders import (
    KEPT,
    EncoderDropout,
    drop_pooler,
    encoder_layers,
    position_limit,
    refuse_gaps,
    refuse_kernels,
)
from ctxner.files.node_copies import local
from ctxner.labels import LabelSet
from ctxner.model.crf import LinearChainCRF
from ctxner.model.folder import check_config, check_folder
from ctxner.views.builder import ViewBuilder

_PLAIN_LAYERS = frozenset(["bert", "camembert", "electra", "roberta", "xlm-roberta"])  # last part: feed-forward


class EncoderCRFConfig(PreTrainedConfig):
    """Hugging Face config of a tagger: the encoder's config, the entity types and the limits of views."""

    model_type = "ctxner"

    encoder: dict | None = None
    types: list | None = None
    dropout: float = 0.1
    word_dropout: float = 0.0
    legal_transitions: bool = True
    max_pieces: int = 512
    max_passages: int = 6
    mark_entries: bool = False  # models saved by earlier versions read no marks
    word_shapes: bool = False
    provenance: dict | None = None  # config and data hashes, scores, versions; written by training


AutoConfig.register(EncoderCRFConfig.model_type, EncoderCRFConfig)  # so that AutoTokenizer knows the folder's config


class EncoderCRF(PreTrainedModel):
    """Any `AutoModel` encoder with a linear head and a linear-chain CRF over BIOES tags.

    Args:
        config: Config of the tagger.
        encoder: Encoder to use, not copied; `config.encoder` must describe it. None: a new encoder.
    """

    config_class = EncoderCRFConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True

    def __init__(self, config: EncoderCRFConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if not config.encoder or not config.types:
            raise ValueError("config.json: 'encoder' and 'types' are missing; this is not a folder that ctxner saved")
        self.labels = LabelSet(tuple(config.types))
        self.encoder = AutoModel.from_config(AutoConfig.for_model(**config.encoder)) if encoder is None else encoder
        drop_pooler(self.encoder)
        self.narrows = _narrow_last_layer(self.encoder)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(self.encoder.config.hidden_size, len(self.labels))
        legal = self.labels.legal_transitions() if config.legal_transitions else None
        self.crf = LinearChainCRF(len(self.labels), legal_transitions=legal)
        self.post_init()

    @classmethod
    def on_encoder(
        cls,
        encoder: PreTrainedModel,
        labels: LabelSet,
        *,
        dropout: float = 0.1,
        word_dropout: float = 0.0,
        legal_transitions: bool = True,
        max_pieces: int = 512,
        max_passages: int = 6,
        mark_entries: bool = True,
        word_shapes: bool = False,
    ) -> EncoderCRF:
        """Create a tagger that begins with an encoder's weights (see `load_encoder`).

        Args:
            encoder: Encoder to use, not copied.
            labels: Labels to predict.
            dropout: Dropout rate of the word vectors before the linear head, in training.
            word_dropout: Share of words whose vector is zeroed, in training.
            legal_transitions: Whether to forbid the transitions that BIOES forbids.
            max_pieces: Largest number of pieces in a row of a view; lowered to the encoder's position limit.
            max_passages: Largest number of passages in a context view (see `ViewBuilder`).
            mark_entries: Whether marks stand around words that name an entry.
            word_shapes: Whether words with capitals are told to an encoder that does not see capitals.
        """
        config = EncoderCRFConfig(
            encoder=_plain_config(encoder.config),
            types=list(labels.types),
            dropout=dropout,
            word_dropout=word_dropout,
            legal_transitions=legal_transitions,
            max_pieces=min(max_pieces, position_limit(encoder)),
            max_passages=max_passages,
            mark_entries=mark_entries,
            word_shapes=word_shapes,
        )
        return cls(config, encoder)

    def view_builder(self, tokenizer: PreTrainedTokenizerBase) -> ViewBuilder:
        """The builder of the views that this tagger reads."""
        return ViewBuilder(
            tokenizer,
            max_pieces=self.config.max_pieces,
            max_passages=self.config.max_passages,
            mark_entries=self.config.mark_entries,
            word_shapes=self.config.word_shapes,
        )

    @torch.no_grad()
    def take_tags(self, other: EncoderCRF) -> tuple[str, ...]:
        """Copy the head's and the CRF's scores of all shared tags (at least `O`) from a tagger on the same encoder.

        Returns the entity types that both taggers have.
        """
        tags = [tag for tag in self.labels.tags if tag in other.labels.tags]
        mine, theirs = (torch.tensor(tagger.labels.encode(tags)) for tagger in (self, other))
        for ours, given in ((self.head.weight, other.head.weight), (self.head.bias, other.head.bias)):
            ours[mine] = given[theirs]
        crf, given_crf = self.crf, other.crf
        crf.start_transitions[mine] = given_crf.start_transitions[theirs]
        crf.end_transitions[mine] = given_crf.end_transitions[theirs]
        crf.transitions[mine[:, None], mine] = given_crf.transitions[theirs[:, None], theirs]
        return tuple(type for type in self.labels.types if type in other.labels.types)

    def piece_vectors(self, *input_ids_RP: Tensor) -> tuple[Tensor, ...]:
        """Input embeddings [R, P, H] of several views; a single lookup gives their table only one dense gradient."""
        vectors_NH = self.encoder.get_input_embeddings()(torch.cat([own_RP.flatten() for own_RP in input_ids_RP]))
        parts = vectors_NH.split([own_RP.numel() for own_RP in input_ids_RP])
        return tuple(part.unflatten(0, own_RP.shape) for part, own_RP in zip(parts, input_ids_RP, strict=True))

    def word_vectors(
        self, input_ids_RP: Tensor, attention_RP: Tensor, word_index_BT: Tensor, pieces_RPH: Tensor | None = None
    ) -> Tensor:
        """Last-layer vector of each word's first piece: [B, T, H] in the encoder's dtype.

        Args:
            input_ids_RP: Piece ids, right-padded.
            attention_RP: Attention mask: 1 on pieces, 0 on padding.
            word_index_BT: Index of each word's first piece in the flattened rows.
            pieces_RPH: Input embeddings of the pieces, if already computed (see `piece_vectors`).
        """
        given = {"input_ids": input_ids_RP} if pieces_RPH is None else {"inputs_embeds": pieces_RPH}
        if self.narrows:
            return self.encoder(**given, attention_mask=attention_RP, word_index_BT=word_index_BT).last_hidden_state
        return self.encoder(**given, attention_mask=attention_RP).last_hidden_state.flatten(0, 1)[word_index_BT]

    def emissions(self, word_BTH: Tensor) -> Tensor:
        """Tag scores [B, T, L] in nats, float32; applies word dropout and dropout, in training only."""
        if self.training and self.config.word_dropout:
            keep_BT1 = torch.rand(word_BTH.shape[:2], device=word_BTH.device).unsqueeze(-1) >= self.config.word_dropout
            word_BTH = word_BTH * keep_BT1
        return self.head(self.dropout(word_BTH).to(self.head.weight.dtype)).float()

    def forward(
        self, input_ids_RP: Tensor, attention_RP: Tensor, word_index_BT: Tensor, pieces_RPH: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Word vectors [B, T, H] and emissions [B, T, L]; arguments as in `word_vectors`."""
        word_BTH = self.word_vectors(input_ids_RP, attention_RP, word_index_BT, pieces_RPH)
        return word_BTH, self.emissions(word_BTH)

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise a module that a checkpoint lacks (called by Hugging Face); the encoder initialises its parts."""
        if module is self.head:
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, LinearChainCRF):
            module.reset_parameters()


def _narrow_last_layer(encoder: PreTrainedModel) -> bool:
    """Let the encoder's last layer go on with words only, as no other output of it is used; returns whether it does.

    A hook is set once and keeps no state: it reads `word_index_BT` from the arguments of each call, so that threads may
    share the model, a layer may run again under gradient checkpointing, and calls without the argument see no change.
    Layers of other architectures use the outputs of all pieces further, and chunked layers expect all pieces.
    """
    layer: Any = next(reversed(encoder_layers(encoder)), None)
    if layer is None or encoder.config.model_type not in _PLAIN_LAYERS or layer.chunk_size_feed_forward:
        return False
    if _keep_words not in layer.attention._forward_hooks.values():  # another tagger may have had this encoder
        layer.attention.register_forward_hook(_keep_words, with_kwargs=True)
    return True


def _keep_words(attention: nn.Module, args: Any, given: dict[str, Any], output: tuple[Tensor, ...]) -> Any:
    """Reduce an attention block's output [R, P, H] to the words' first pieces [B, T, H], if a call names them."""
    word_index_BT = given.get("word_index_BT")
    return output if word_index_BT is None else (output[0].flatten(0, 1)[word_index_BT], *output[1:])


def load_tagger(path: str | Path, *, dropout: EncoderDropout = KEPT) -> EncoderCRF:
    """Load a saved tagger in evaluation mode.

    Args:
        path: Folder, its URI, or hub id of the tagger.
        dropout: Dropout rates of the encoder in training.

    Raises:
        ValueError: There is no complete tagger at `path`.
    """
    path = local(str(path))
    with _loading_tagger(path):
        if Path(path).is_dir():
            check_folder(Path(path))
        config = EncoderCRFConfig.from_pretrained(str(path))
        refuse_kernels(config._attn_implementation, "config.json")
        config.encoder = config.encoder and config.encoder | dropout.entries(config.encoder)
        loaded: Any = EncoderCRF.from_pretrained(
            str(path), config=config, use_safetensors=True, output_loading_info=True
        )
        model, report = loaded
        refuse_gaps(report["missing_keys"])
    return model.eval()


def saved_encoder_config(path: str | Path, *, dropout: EncoderDropout = KEPT) -> PreTrainedConfig:
    """Config of a saved tagger's encoder; does not read the weights.

    Args:
        path: Folder, its URI, or hub id of the tagger.
        dropout: Dropout rates of the encoder in training.

    Raises:
        ValueError: There is no tagger at `path`.
    """
    path = local(str(path))
    saved_types(path)
    encoder = EncoderCRFConfig.from_pretrained(str(path)).encoder or {}
    return AutoConfig.for_model(**encoder | dropout.entries(encoder))


def saved_types(path: str | Path) -> tuple[str, ...]:
    """Entity types of a saved tagger; does not read the weights.

    Raises:
        ValueError: There is no tagger at `path`.
    """
    path = local(str(path))
    with _loading_tagger(path):
        if Path(path).is_dir():
            check_config(Path(path))
        config = EncoderCRFConfig.from_pretrained(str(path))
        if not config.encoder or not config.types:
            raise ValueError("config.json: 'encoder' and 'types' are missing")
        if Path(path).is_dir() and not Path(path, "model.safetensors").is_file():
            raise ValueError("model.safetensors is missing")
    return tuple(config.types)


@contextmanager
def _loading_tagger(path: str | Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # transformers raises any for configs and weights that it does not expect
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(
            f"model {str(path)!r}: no folder that ctxner saved (config.json, model.safetensors), nor a hub id within "
            f"reach; train one with `ctxner train` ({reason})"
        ) from error


def _plain_config(config: PreTrainedConfig) -> dict[str, Any]:
    """The encoder's config as a JSON-ready dict, without the entries that describe its origin."""
    tree = config.to_dict()
    for key in ("_name_or_path", "transformers_version", "architectures", "dtype", "auto_map"):
        tree.pop(key, None)
    return tree
