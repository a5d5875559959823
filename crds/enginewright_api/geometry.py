"""A transformer's sizes as its config.json gives them: what memory and time estimates follow from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import Field

from enginewright_api.errors import DeterministicError
from enginewright_api.model_base import ApiModel

_GATED = frozenset(
    {
        "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "gemma", "gemma2", "gemma3_text",
        "phi3", "smollm3", "granite", "olmo2",
    }
)  # fmt: skip
"""model_type of architectures whose feed-forward block has three matrices (Shazeer 2020, GLU variants)."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Numbers of layers and widths. Sizes in elements, not bytes."""

    layers: int
    width: int
    heads: int
    key_value_heads: int
    head_width: int
    neurons: int
    vocabulary: int
    positions: int
    gated: bool
    tied: bool
    experts: int = 1
    decoder: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Geometry:
        """Raises DeterministicError InvalidCheckpoint naming the field that is missing."""
        kind = str(config.get("model_type", ""))
        gated = kind in _GATED
        width, heads = (
            _number(config, "hidden_size", "dim", "d_model", "n_embd"),
            _number(config, "num_attention_heads", "n_heads", "n_head"),
        )
        return cls(
            layers=_number(config, "num_hidden_layers", "n_layers", "num_layers", "n_layer"),
            width=width,
            heads=heads,
            key_value_heads=_number(config, "num_key_value_heads", default=heads),
            head_width=_number(config, "head_dim", default=width // heads),
            neurons=_number(config, "intermediate_size", "hidden_dim", "ffn_dim", default=4 * width),
            vocabulary=_number(config, "vocab_size"),
            # Rotary positions are computed, not stored.
            positions=0 if gated else _number(config, "max_position_embeddings", "n_positions", default=0),
            gated=gated,
            tied=bool(config.get("tie_word_embeddings", True)),
            experts=_number(config, "num_local_experts", "num_experts", default=1),
            decoder=str((config.get("architectures") or [""])[0]).endswith(("ForCausalLM", "LMHeadModel")),
        )

    @property
    def attention_weights(self) -> int:
        """Query, key, value and output matrices of one layer; grouped queries share keys and values (Ainslie 2023)."""
        return self.width * self.head_width * 2 * (self.heads + self.key_value_heads)

    @property
    def feed_forward_weights(self) -> int:
        """Matrices of one layer's feed-forward block, all experts."""
        return (3 if self.gated else 2) * self.width * self.neurons * self.experts

    @property
    def layer_weights(self) -> int:
        """Matrices of all layers: what is quantised."""
        return self.layers * (self.attention_weights + self.feed_forward_weights)

    @property
    def embedding_weights(self) -> int:
        """Token and position tables, and the output head where it is not the token table."""
        tables = self.vocabulary + self.positions
        head = self.vocabulary if self.decoder and not self.tied else 0
        return self.width * (tables + head)

    @property
    def parameters(self) -> int:
        """Matrices and tables; norms and biases are below one per cent and left out."""
        return self.layer_weights + self.embedding_weights

    @property
    def key_value_elements_per_token(self) -> int:
        """Elements of the key-value cache that one token of one request takes in all layers."""
        return 2 * self.layers * self.key_value_heads * self.head_width

    def flops_per_token(self, context_tokens: int) -> int:
        """Of one forward pass: two per weight, and attention over the context (Kaplan et al. 2020, table 1)."""
        weights = self.layers * (self.attention_weights + self.feed_forward_weights // self.experts)
        head = self.width * self.vocabulary if self.decoder else 0
        return 2 * (weights + head) + 4 * self.layers * context_tokens * self.heads * self.head_width


class CheckpointSizes(ApiModel):
    """A checkpoint's geometry as a builder tells it: what the memory of any engine of this source is estimated from."""

    layers: int = Field(ge=1, description="Layers.")
    width: int = Field(ge=1, description="Width of the residual stream.")
    heads: int = Field(ge=1, description="Attention heads of a layer.")
    key_value_heads: int = Field(ge=1, description="Heads with keys and values of their own.")
    head_width: int = Field(ge=1, description="Width of a head.")
    neurons: int = Field(ge=1, description="Neurons of a feed-forward block.")
    vocabulary: int = Field(ge=1, description="Rows of the token table.")
    positions: int = Field(ge=0, description="Rows of the position table.")
    gated: bool = Field(description="Whether feed-forward blocks have three matrices.")
    tied: bool = Field(description="Whether the output head is the token table.")
    experts: int = Field(default=1, ge=1, description="Feed-forward blocks of a layer.")
    decoder: bool = Field(default=False, description="Whether there is an output head.")

    @classmethod
    def of(cls, geometry: Geometry) -> CheckpointSizes:
        """To be told."""
        return cls(**asdict(geometry))

    @property
    def geometry(self) -> Geometry:
        """As estimates take it."""
        return Geometry(**self.model_dump())


def _number(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    if default is None:
        raise DeterministicError("InvalidCheckpoint", f"config.json: has no {names[0]}; memory cannot be estimated")
    return default
