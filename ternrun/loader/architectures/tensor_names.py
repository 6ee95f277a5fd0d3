"""Names and shapes of a decoder's tensors: GGUF's names, which ternrun uses throughout, and those of safetensors.

A shape is a word of letters: D dim, Q all query heads, K all key heads, H one head, F feed-forward, V vocabulary,
S residual streams, T = S + 2. "QD" is (Q, D): Q rows of D columns.
"""

from __future__ import annotations

from collections.abc import Iterable

from ternrun.runtime.config import ModelConfig

LINEARS = {
    "attn_q": "QD", "attn_k": "KD", "attn_v": "KD", "attn_output": "DQ",
    "ffn_gate": "FD", "ffn_up": "FD", "ffn_down": "DF",
}  # fmt: skip
_MODEL = {"token_embd.weight": "VD", "output_norm.weight": "D"}
_HEAD = {"output.weight": "VD"}  # absent: the embedding serves as head
_HEAD_BIAS = {"output.bias": "V"}
_PRE_NORM = {"attn_norm.weight": "D", "ffn_norm.weight": "D"}
_LAYER = {f"{name}.weight": w for name, w in LINEARS.items()}

# Tensors of a layer that come together or not at all, and then in every layer.
GROUPS: dict[str, dict[str, str]] = {
    "qkv_bias": {"attn_q.bias": "Q", "attn_k.bias": "K", "attn_v.bias": "K"},
    "output_bias": {"attn_output.bias": "D"},
    "ffn_bias": {"ffn_gate.bias": "F", "ffn_up.bias": "F", "ffn_down.bias": "D"},
    "qk_norm": {"attn_q_norm.weight": "H", "attn_k_norm.weight": "H"},
    "wide_qk_norm": {"attn_q_norm.weight": "Q", "attn_k_norm.weight": "K"},
    "sub_norm": {"attn_sub_norm.weight": "Q", "ffn_sub_norm.weight": "F"},
    "post_norm": {"post_attention_norm.weight": "D", "post_ffw_norm.weight": "D"},
    # an RMSNorm on the input of each projection (Microsoft's BitNet embedding models)
    "norm_in": {f"{name}_norm_in.weight": word[1] for name, word in LINEARS.items()},
    # per sublayer: S rows that mix the streams, one row that reads them, one that writes to them (docs/formats.md)
    "mhc": {"mhc_attn.weight": "TS", "mhc_ffn.weight": "TS"},
}

_HF_PREFIXES = ("language_model.model.", "model.language_model.", "language_model.", "model.")
_HF_MODEL = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
_HF_LINEARS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up",
}  # fmt: skip
_HF_LAYER = _HF_LINEARS | {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.attn_sub_norm": "attn_sub_norm", "self_attn.inner_attn_ln": "attn_sub_norm",
    "mlp.ffn_sub_norm": "ffn_sub_norm", "mlp.ffn_layernorm": "ffn_sub_norm",
}  # fmt: skip
_HF_LAYER |= {f"{hf}.{norm}": f"{name}_norm_in" for hf, name in _HF_LINEARS.items() for norm in ("norm", "rms_norm")}
_HF_POST_NORM = {  # with norms behind the sublayers, one of the names above means another norm
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip


def shapes(
    config: ModelConfig, groups: Iterable[str], *, head: bool, bias: bool = False, pre_norm: bool = True
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor by name, for a model with these optional groups.

    `head` and `bias` add the model's own head and that head's bias, `pre_norm` norms of the sublayers' input.
    """
    layer = (_PRE_NORM if pre_norm else {}) | _LAYER
    for group in groups:
        layer |= GROUPS[group]
    words = _MODEL | (_HEAD if head else {}) | (_HEAD_BIAS if bias else {})
    for n in range(config.n_layers):
        words |= {f"blk.{n}.{name}": word for name, word in layer.items()}
    sizes = _sizes(config)
    return {name: tuple(sizes[letter] for letter in word) for name, word in words.items()}


def is_linear(name: str) -> bool:
    """Whether a tensor is the weight of one of the projections of a layer."""
    return name.endswith(".weight") and name.removesuffix(".weight").rpartition(".")[2] in LINEARS


def gguf_name(name: str, *, post_norm: bool) -> str:
    """Return GGUF's name for a tensor of safetensors; the name itself if it has none.

    `post_norm`: the architecture has norms behind its sublayers.
    """
    prefix = next((p for p in _HF_PREFIXES if name.startswith(p)), "")
    stem, dot, kind = name.removeprefix(prefix).rpartition(".")
    if stem in _HF_MODEL:
        return f"{_HF_MODEL[stem]}.{kind}"
    layers = _HF_LAYER | _HF_POST_NORM if post_norm else _HF_LAYER
    parts = stem.split(".", 2)
    if len(parts) == 3 and parts[0] == "layers" and parts[2] in layers:
        return f"blk.{parts[1]}.{layers[parts[2]]}{dot}{kind}"
    return name


def _sizes(c: ModelConfig) -> dict[str, int]:
    return {
        "D": c.dim, "Q": c.n_heads * c.head_dim, "K": c.n_kv_heads * c.head_dim, "H": c.head_dim, "F": c.ffn_dim,
        "V": c.vocab_size, "S": c.mhc_streams, "T": c.mhc_streams + 2,
    }  # fmt: skip
