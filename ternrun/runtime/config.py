"""What a model is, how an engine runs it, how a request samples: three frozen records.

Field defaults live here once; the command line and the server take theirs from these classes.
Unknown keys and values out of range are refused by name (`ConfigError`).
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

    `scaling` and `frequency_factors` change the angles of every layer that has no base of its own;
    `attention_factor` multiplies cos and sin there (YaRN, arXiv 2309.00071: 1 + 0.1 ln(factor), ready-made).
    """

    dim: int
    base: float = 10000.0
    local_base: float = 0.0  # base of sliding-window layers where it differs (gemma3); 0: the same
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
            ("dim", 0, 65536), ("base", 1.001, 10**12), ("local_base", 0, 10**12), ("factor", 1e-6, 10**6),
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

    Which optional tensors exist (biases, q/k norms, sub-norms, post-norms, an own head) is read from
    the weights; what cannot be read from them stands here.
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
    logit_softcap: float = 0.0
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
        for name in ("embedding_scale", "attention_scale", "logit_softcap"):
            self._range(name, 0, 10**6)
        self._choice("activation", ("silu", "gelu", "relu2"))
        self._choice("pooling", ("none", "mean", "cls", "last"))
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(f"{self.n_heads} query heads cannot share {self.n_kv_heads} key/value heads evenly")
        if self.rope.dim > self.head_dim:
            raise ConfigError(f"rope dim {self.rope.dim} exceeds head dim {self.head_dim}")
        if self.sliding_layers and len(self.sliding_layers) != self.n_layers:
            raise ConfigError(f"sliding_layers must name all {self.n_layers} layers")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams(_Record):
    """How one request turns logits into tokens. `temperature` 0 is greedy.

    Log-probabilities are of the raw distribution, before penalties, temperature and filters, unless
    `sampled_logprobs` asks for those of the one that is drawn from.
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

    def __post_init__(self) -> None:
        self._range("max_tokens", 0, 2**24)
        self._range("temperature", 0, 100)
        self._range("top_k", 0, 2**24)
        self._range("top_p", 0, 1)
        self._range("min_p", 0, 1)
        self._range("typical_p", 0, 1)
        self._range("repeat_penalty", 0.01, 100)
        self._range("presence_penalty", -100, 100)
        self._range("frequency_penalty", -100, 100)
        self._range("repeat_last_n", -1, 2**24)
        if self.seed is not None:
            self._range("seed", 0, 2**64 - 1)
        if self.logprobs is not None:
            self._range("logprobs", 0, 1000)
        for name in ("stop", "stop_ids", "logit_bias"):
            if not isinstance(getattr(self, name), tuple):
                raise ConfigError(f"{name} must be a tuple, not {getattr(self, name)!r}")
        for pair in self.logit_bias:
            if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[1], Real):
                raise ConfigError(f"logit_bias holds pairs of a token id and a number, not {pair!r}")
        if any(not isinstance(s, str) or not s for s in self.stop):
            raise ConfigError("a stop string must be text, and not empty")
        if len(self.stop) > 64 or any(len(s) > 1024 for s in self.stop):
            raise ConfigError("at most 64 stop strings of at most 1024 characters each")
        self._flag("ignore_eos")
        self._flag("sampled_logprobs")
