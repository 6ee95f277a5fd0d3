"""The options of `load` and of a request as typed keyword arguments; defaults are those of the records they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypedDict

from ternrun.runtime.config import Device, KvType, SamplingParams


class EngineOptions(TypedDict, total=False):
    """Fields of `ternrun.runtime.config.EngineConfig`."""

    threads: int
    device: Device
    context: int
    max_batch: int
    prefill_chunk: int
    kv_tokens: int
    kv_type: KvType
    speculate: bool


class SamplingOptions(TypedDict, total=False):
    """Fields of `ternrun.runtime.config.SamplingParams`; lists do for its tuples, a string for a tuple of one."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    repeat_last_n: int
    logit_bias: Mapping[int, float] | Sequence[tuple[int, float]]
    seed: int | None
    stop: str | Sequence[str]
    stop_ids: Sequence[int]
    ignore_eos: bool
    logprobs: int | None
    sampled_logprobs: bool
    min_tokens: int
    allowed_token_ids: Sequence[int]
    include_stop: bool
    top_n_sigma: float
    xtc_probability: float
    xtc_threshold: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: str | Sequence[str]
    samplers: str | Sequence[str]
    dynatemp_range: float
    dynatemp_exponent: float
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    min_keep: int


def sampling_params(options: SamplingOptions, defaults: Mapping[str, Any] = MappingProxyType({})) -> SamplingParams:
    """The record for these keyword arguments, and for what they leave out, `defaults` before the record's own.

    Raises ConfigError for an unknown name or a value out of range.
    """
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
    values: dict[str, Any] = {**defaults, **given}
    for name in ("stop", "dry_sequence_breakers", "samplers"):
        if isinstance(values.get(name), str):
            values[name] = (values[name],)
    if isinstance(values.get("logit_bias"), Mapping):
        values["logit_bias"] = tuple(values["logit_bias"].items())
    return SamplingParams.from_dict(values)
