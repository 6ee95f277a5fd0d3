"""The configuration of a model, of an engine, and of one request's sampling: three frozen records.

Each default is stated here once; the command line and the server read it from these classes. Unknown keys and values
out of range raise ConfigError, which names them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal, Self

from ternrun.errors import ConfigError

Activation = Literal["silu", "gelu", "relu2"]
RopeStyle = Literal["neox", "norm"]  # halves rotated together / adjacent pairs rotated together
KvType = Literal["f16", "f32", "int8"]
Device = Literal["auto", "cpu", "cuda"]
DEFAULT_CONTEXT = 8192  # tokens a sequence may reach unless more are asked for
Pooling = Literal["none", "mean", "cls", "last"]  # hidden states of a text: all, their mean, the first, the last


class _Record:
    """Adds `from_dict`, which names the unknown key and the nearest known one."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        for key in values:
            if key not in known:
                from difflib import get_close_matches

                near = get_close_matches(key, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"{cls.__name__} has no option {key!r}{hint}")
        return cls(**values)

    def _range(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        whole = type(self).__annotations__[name].startswith("int")
        ok = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not ok or not low <= value <= high:
            raise ConfigError(f"{name} must be a {'whole ' * whole}number from {low} to {high}, not {value!r}")

    def _flag(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be True or False, not {value!r}")

    def _choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig(_Record):
    """Rotary position embedding of the first `dim` elements of each head (arXiv 2104.09864).

    `scaling` and `frequency_factors` change the angles of every layer without a base of its own; `attention_factor`
    multiplies cos and sin there (YaRN, arXiv 2309.00071: 1 + 0.1 ln(factor), already computed).
    """

    dim: int
    base: float = 10000.0
    local_base: float = 0.0  # base of sliding-window layers where it differs (gemma3); 0: the same
    local_factor: float = 1.0  # positions of sliding-window layers with a base of their own are divided by it
    style: RopeStyle = "neox"
    scaling: Literal["none", "linear", "yarn"] = "none"
    factor: float = 1.0
    original_context: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    frequency_factors: tuple[float, ...] = ()  # divisors, one per pair (llama-3's rope_freqs)

    def __post_init__(self) -> None:
        yarn = self.scaling == "yarn"
        for name, low, high in (
            ("dim", 0, 65536), ("base", 1.001, 10**12), ("local_base", 0, 10**12),
            ("local_factor", 1e-6, 10**6), ("factor", 1e-6, 10**6),
            ("original_context", int(yarn), 2**31), ("beta_fast", 1e-3, 10**6), ("beta_slow", 1e-3, 10**6),
            ("attention_factor", 1e-3, 1e3),
        ):  # fmt: skip
            self._range(name, low, high)
        self._choice("style", ("neox", "norm"))
        self._choice("scaling", ("none", "linear", "yarn"))
        if self.dim % 2:
            raise ConfigError(f"rope dim must be even, not {self.dim}")
        if self.frequency_factors and len(self.frequency_factors) != self.dim // 2:
            raise ConfigError(f"rope needs {self.dim // 2} frequency factors, got {len(self.frequency_factors)}")
        if not all(1e-6 <= f <= 1e6 for f in self.frequency_factors):
            raise ConfigError("rope frequency factors must be positive numbers")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig(_Record):
    """Shape and wiring of one decoder. Architectures are values of this record, not classes.

    The weights tell which optional tensors exist (biases, q/k norms, sub-norms, post-norms, an own head). This record
    holds the rest.
    """

    architecture: str
    vocab_size: int
    context_length: int
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn_dim: int
    norm_eps: float
    rope: RopeConfig
    activation: Activation = "silu"
    embedding_scale: float = 1.0
    attention_scale: float = 0.0  # 0: 1 / sqrt(head_dim)
    sliding_window: int = 0  # tokens a sliding layer sees, itself included; 0: none
    sliding_layers: tuple[bool, ...] = ()  # one per layer; empty: none slides
    logit_softcap: float = 0.0  # logits = cap * tanh(logits / cap); 0: none
    attention_softcap: float = 0.0  # the same for scaled attention scores (gemma2)
    residual_scale: float = 1.0  # factor on what a sublayer adds to the residual stream (granite)
    logit_scale: float = 1.0  # factor on logits, before a softcap (granite)
    rope_layers: tuple[bool, ...] = ()  # per layer whether it rotates queries and keys (smollm3); empty: all do
    wide_qk_norm: bool = False  # norms of q and k span all heads of a token, not each head (olmo2)
    mhc_streams: int = 1  # residual streams (mHC-lite, arXiv 2601.05732)
    pooling: Pooling = "none"
    causal: bool = True  # a token sees only what is before it; else a text is computed whole, and nothing generated

    def __post_init__(self) -> None:
        for name, high in (
            ("vocab_size", 2**24), ("context_length", 2**31), ("dim", 2**17), ("n_layers", 1024),
            ("n_heads", 4096), ("n_kv_heads", 4096), ("head_dim", 4096), ("ffn_dim", 2**19),
        ):  # fmt: skip
            self._range(name, 1, high)
        self._range("norm_eps", 0, 1)
        self._range("sliding_window", 0, 2**31)
        for name in ("embedding_scale", "attention_scale", "logit_softcap", "attention_softcap"):
            self._range(name, 0, 10**6)
        for name in ("residual_scale", "logit_scale"):
            self._range(name, 1e-6, 10**6)
        self._flag("wide_qk_norm")
        self._choice("activation", ("silu", "gelu", "relu2"))
        self._choice("pooling", ("none", "mean", "cls", "last"))
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(f"{self.n_heads} query heads cannot share {self.n_kv_heads} key/value heads evenly")
        if self.rope.dim > self.head_dim:
            raise ConfigError(f"rope dim {self.rope.dim} exceeds head dim {self.head_dim}")
        if self.sliding_layers and len(self.sliding_layers) != self.n_layers:
            raise ConfigError(f"sliding_layers must name all {self.n_layers} layers")
        if self.rope_layers and len(self.rope_layers) != self.n_layers:
            raise ConfigError(f"rope_layers must name all {self.n_layers} layers")
        if self.mhc_streams not in (1, 2, 4):
            raise ConfigError(f"mhc_streams must be 1, 2 or 4, not {self.mhc_streams}")

    @property
    def scale(self) -> float:
        """Factor on query-key products."""
        return self.attention_scale or 1 / math.sqrt(self.head_dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig(_Record):
    """How one engine runs one model."""

    threads: int = 0  # 0: one per physical core that this process may use
    device: Device = "auto"
    context: int = 0  # tokens a sequence may reach; 0: the model's own, at most 8192
    max_batch: int = 16  # sequences that decode together
    prefill_chunk: int = 128  # prompt tokens a step
    kv_tokens: int = 0  # tokens the KV cache holds for all sequences; 0: one full context
    kv_type: KvType = "f16"
    speculate: bool = True  # guess tokens from what was said before and verify them in one pass; changes no result

    def __post_init__(self) -> None:
        self._range("threads", 0, 1024)
        self._range("context", 0, 2**24)
        self._range("max_batch", 1, 4096)
        self._range("prefill_chunk", 1, 4096)
        self._range("kv_tokens", 0, 2**31)
        self._choice("device", ("auto", "cpu", "cuda"))
        self._choice("kv_type", ("f16", "f32", "int8"))
        self._flag("speculate")


SAMPLERS = {  # names that llama.cpp knows them by -> ours
    "penalties": "penalties", "dry": "dry", "top_n_sigma": "top_n_sigma", "top-n-sigma": "top_n_sigma",
    "top_k": "top_k", "top-k": "top_k", "typ_p": "typical_p", "typical_p": "typical_p", "typical": "typical_p",
    "typical-p": "typical_p", "typ-p": "typical_p", "typ": "typical_p", "top_p": "top_p", "top-p": "top_p",
    "nucleus": "top_p", "min_p": "min_p", "min-p": "min_p", "xtc": "xtc", "temperature": "temperature",
    "temp": "temperature",
}  # fmt: skip
MAX_SAMPLERS = 32
MAX_TEXTS = 64  # stop strings or sequence breakers of one request
MAX_TEXT = 1024  # characters of each
MAX_ALLOWED = 2**18  # ids of `allowed_token_ids`

_COUNT = 2**24  # more tokens than any context holds
_SAMPLING_RANGES: tuple[tuple[str, float, float], ...] = (
    ("max_tokens", 0, _COUNT), ("temperature", 0, 100), ("top_k", 0, _COUNT), ("top_p", 0, 1), ("min_p", 0, 1),
    ("typical_p", 0, 1), ("repeat_penalty", 0.01, 100), ("presence_penalty", -100, 100),
    ("frequency_penalty", -100, 100), ("repeat_last_n", -1, _COUNT), ("min_tokens", 0, _COUNT),
    ("top_n_sigma", -100, 10**6), ("xtc_probability", 0, 1), ("xtc_threshold", 0, 1), ("dry_multiplier", 0, 10**4),
    ("dry_base", 0, 100), ("dry_allowed_length", 0, _COUNT), ("dry_penalty_last_n", -1, _COUNT),
    ("dynatemp_range", 0, 100), ("dynatemp_exponent", 0, 100), ("mirostat", 0, 2), ("mirostat_tau", 0, 100),
    ("mirostat_eta", 0, 100), ("min_keep", 0, _COUNT),
)  # fmt: skip
_MAX_SEED = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams(_Record):
    """How one request turns logits into tokens. `temperature` 0 is greedy.

    Log-probabilities are those of the raw distribution, before penalties, temperature and filters, unless
    `sampled_logprobs` asks for those of the distribution that is drawn from.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_last_n: int = 64  # tokens the penalties look back on; -1: all of them
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()  # beside the model's own end tokens
    ignore_eos: bool = False
    logprobs: int | None = None  # likeliest tokens reported per position; None: no log-probabilities
    sampled_logprobs: bool = False
    min_tokens: int = 0  # neither end token, stop id nor stop string ends the text before it has so many
    allowed_token_ids: tuple[int, ...] = ()  # only these are generated; empty: any
    include_stop: bool = False  # the stop string that ended the text stays in it
    top_n_sigma: float = 0.0  # keep logits within so many standard deviations of the largest; 0 or less: off
    xtc_probability: float = 0.0  # how often XTC drops the likeliest tokens; 0: never
    xtc_threshold: float = 0.1  # XTC drops tokens at least as probable as this, but the last of them; above 0.5: off
    dry_multiplier: float = 0.0  # DRY's penalty for a token that goes on with a repetition; 0: off
    dry_base: float = 1.75  # its growth with every token that is repeated; below 1: off
    dry_allowed_length: int = 2  # tokens that may be repeated without a penalty
    dry_penalty_last_n: int = -1  # tokens DRY looks back on; -1: all of them
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")  # no repetition reaches across these
    samplers: tuple[str, ...] = ()  # the steps that run and their order, by the names of SAMPLERS; empty: the default
    dynatemp_range: float = 0.0  # temperature varies by so much either way, with the entropy; 0: off
    dynatemp_exponent: float = 1.0
    mirostat: int = 0  # version 1 or 2 in place of all steps but temperature; 0: off
    mirostat_tau: float = 5.0  # the surprise it aims at, in bits
    mirostat_eta: float = 0.1  # its learning rate
    min_keep: int = 0  # tokens that top-p, min-p, typical-p and XTC leave at least

    def __post_init__(self) -> None:
        for name, low, high in _SAMPLING_RANGES:
            self._range(name, low, high)
        if self.seed is not None:
            self._range("seed", 0, _MAX_SEED)
        if self.logprobs is not None:
            self._range("logprobs", 0, 1000)
        for name in ("stop", "stop_ids", "logit_bias", "allowed_token_ids", "dry_sequence_breakers", "samplers"):
            if not isinstance(getattr(self, name), tuple):
                raise ConfigError(f"{name} must be a tuple, not {getattr(self, name)!r}")
        for pair in self.logit_bias:
            if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[1], Real):
                raise ConfigError(f"logit_bias holds pairs of a token id and a number, not {pair!r}")
        self._texts("stop", "stop string")
        self._texts("dry_sequence_breakers", "sequence breaker")
        if len(self.allowed_token_ids) > MAX_ALLOWED:
            raise ConfigError(f"allowed_token_ids may hold at most {MAX_ALLOWED} token ids")
        if len(self.samplers) > MAX_SAMPLERS:
            raise ConfigError(f"samplers may hold at most {MAX_SAMPLERS} names")
        for name in self.samplers:
            if not isinstance(name, str) or name not in SAMPLERS:
                known = ", ".join(dict.fromkeys(SAMPLERS.values()))
                raise ConfigError(f"samplers: {name!r} is none of {known}")
        for name in ("ignore_eos", "sampled_logprobs", "include_stop"):
            self._flag(name)

    def _texts(self, name: str, what: str) -> None:
        texts = getattr(self, name)
        if any(not isinstance(s, str) or not s for s in texts):
            raise ConfigError(f"a {what} must be text, and not empty")
        if len(texts) > MAX_TEXTS or any(len(s) > MAX_TEXT for s in texts):
            raise ConfigError(f"at most {MAX_TEXTS} {what}s of at most {MAX_TEXT} characters each")


def sampling_ranges() -> dict[str, tuple[type, float, float]]:
    """(int or float, lowest, highest) of every field of SamplingParams that is a single number."""
    kinds = SamplingParams.__annotations__
    ranges = (*_SAMPLING_RANGES, ("seed", 0, _MAX_SEED))
    return {name: (int if kinds[name].startswith("int") else float, low, high) for name, low, high in ranges}
