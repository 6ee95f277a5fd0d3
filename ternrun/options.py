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
    """Fields of `ternrun.runtime.config.SamplingParams`; lists do for its tuples, one string for one stop string."""

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


def sampling_params(options: SamplingOptions, defaults: Mapping[str, Any] = MappingProxyType({})) -> SamplingParams:
    """The record for these keyword arguments, and for what they leave out, `defaults` before the record's own.

    Raises ConfigError for an unknown name or a value out of range.
    """
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
    values: dict[str, Any] = {**defaults, **given}
    if isinstance(values.get("stop"), str):
        values["stop"] = (values["stop"],)
    if isinstance(values.get("logit_bias"), Mapping):
        values["logit_bias"] = tuple(values["logit_bias"].items())
    return SamplingParams.from_dict(values)
