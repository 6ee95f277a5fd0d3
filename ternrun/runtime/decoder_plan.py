"""What a decoder computes, as data: every backend emits or interprets the same plan.

The plan names tensors as GGUF does. Optional tensors (biases, norms, an own head) are None where the weights lack them.
Order and meaning of the operations: docs/models.md.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from ternrun.runtime.config import ModelConfig
from ternrun.runtime.weights import Tensor, Weights


@dataclass(frozen=True, slots=True)
class Projection:
    """y = W norm(x) + b, with W (rows, columns)."""

    weight: str
    bias: str | None = None
    input_norm: str | None = None  # RMSNorm of its own, behind the sublayer's


@dataclass(frozen=True, slots=True)
class Attention:
    """Causal attention over the KV cache, between the projections q, k, v and output."""

    q: Projection
    k: Projection
    v: Projection
    output: Projection
    q_norm: str | None = None  # before rotation, over each head or over all of them (`wide_norm`)
    k_norm: str | None = None
    wide_norm: bool = False
    sub_norm: str | None = None  # between attention and the output projection
    window: int = 0  # tokens that a query sees, its own included; 0: all
    rope: str | None = "global"  # a table of `DecoderPlan.rope_tables`; None: no rotation


@dataclass(frozen=True, slots=True)
class FeedForward:
    """down(norm(activation(gate(x)) * up(x)))."""

    gate: Projection
    up: Projection
    down: Projection
    activation: str
    sub_norm: str | None = None


@dataclass(frozen=True, slots=True)
class Sublayer:
    """x += post_norm(body(norm(x))); with `mhc_table` body reads from and writes to several residual streams."""

    body: Attention | FeedForward
    norm: str | None
    post_norm: str | None
    mhc_table: str | None


@dataclass(frozen=True, slots=True)
class DecoderPlan:
    """Embedding, sublayers in order, final norm, head."""

    embedding: str
    sublayers: tuple[Sublayer, ...]
    final_norm: str
    head: Projection
    rope_tables: tuple[str, ...]  # the tables that sublayers use: "global", "local"


def plan_decoder(config: ModelConfig, tensors: Container[str]) -> DecoderPlan:
    """The plan of a model with these settings and these tensors."""
    names = _Names(tensors)
    sublayers = tuple(
        sublayer
        for layer in range(config.n_layers)
        for sublayer in (_attention(config, names, layer), _feed_forward(config, names, layer))
    )
    used = {s.body.rope for s in sublayers if isinstance(s.body, Attention)}
    head = "output" if "output.weight" in tensors else "token_embd"
    return DecoderPlan(
        embedding="token_embd.weight",
        sublayers=sublayers,
        final_norm="output_norm.weight",
        head=Projection(f"{head}.weight", bias=names.optional("output.bias")),
        rope_tables=tuple(name for name in ("global", "local") if name in used),
    )


def fold_scales(weights: Weights) -> Mapping[str, Tensor]:
    """The tensors with `residual_scale` and `logit_scale` in the scales of the projections that they apply to.

    A tied head becomes a tensor of its own, which shares the embedding's bytes.
    """
    config, tensors = weights.config, dict(weights.tensors)
    if config.residual_scale != 1:
        for name, tensor in weights.tensors.items():
            if name.rpartition(".")[0].endswith((".attn_output", ".ffn_down")):
                tensors[name] = replace(tensor, scale=tensor.scale * config.residual_scale)
    if config.logit_scale != 1:
        head = tensors.get("output.weight", tensors["token_embd.weight"])
        tensors["output.weight"] = replace(head, name="output.weight", scale=head.scale * config.logit_scale)
    return tensors


class _Names:
    def __init__(self, tensors: Container[str]) -> None:
        self._tensors = tensors

    def optional(self, name: str) -> str | None:
        return name if name in self._tensors else None

    def projection(self, stem: str) -> Projection:
        return Projection(f"{stem}.weight", self.optional(f"{stem}.bias"), self.optional(f"{stem}_norm_in.weight"))


def _attention(config: ModelConfig, names: _Names, layer: int) -> Sublayer:
    block = f"blk.{layer}."
    sliding = bool(config.sliding_layers and config.sliding_layers[layer])
    table = "local" if sliding and config.rope.local_base else "global"
    rotates = not config.rope_layers or config.rope_layers[layer]
    return Sublayer(
        body=Attention(
            q=names.projection(f"{block}attn_q"),
            k=names.projection(f"{block}attn_k"),
            v=names.projection(f"{block}attn_v"),
            output=names.projection(f"{block}attn_output"),
            q_norm=names.optional(f"{block}attn_q_norm.weight"),
            k_norm=names.optional(f"{block}attn_k_norm.weight"),
            sub_norm=names.optional(f"{block}attn_sub_norm.weight"),
            wide_norm=config.wide_qk_norm,
            window=config.sliding_window if sliding else 0,
            rope=table if rotates else None,
        ),
        norm=names.optional(f"{block}attn_norm.weight"),
        post_norm=names.optional(f"{block}post_attention_norm.weight"),
        mhc_table=f"{block}mhc_attn.weight" if config.mhc_streams > 1 else None,
    )


def _feed_forward(config: ModelConfig, names: _Names, layer: int) -> Sublayer:
    block = f"blk.{layer}."
    return Sublayer(
        body=FeedForward(
            gate=names.projection(f"{block}ffn_gate"),
            up=names.projection(f"{block}ffn_up"),
            down=names.projection(f"{block}ffn_down"),
            activation=config.activation,
            sub_norm=names.optional(f"{block}ffn_sub_norm.weight"),
        ),
        norm=names.optional(f"{block}ffn_norm.weight"),
        post_norm=names.optional(f"{block}post_ffw_norm.weight"),
        mhc_table=f"{block}mhc_ffn.weight" if config.mhc_streams > 1 else None,
    )
