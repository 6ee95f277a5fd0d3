"""The sampling fields of every API, derived from `SamplingParams`: its names, its ranges, and its defaults.

An API states defaults of its own by name; `OVERRIDES` holds what clients may send beyond the plain range.
"""

from __future__ import annotations

from typing import Any

from ternrun.runtime.config import SamplingParams, sampling_ranges
from ternrun.server.fields.reading import FieldReader, boolean, integer, logit_bias, number, optional, stop_strings
from ternrun.server.fields.sampler_chain import breakers, samplers

Fields = dict[str, tuple[FieldReader, Any]]

UNLIMITED = 2**24  # the context ends it


def _reader(kind: type, low: float, high: float) -> FieldReader:
    return integer(int(low), int(high)) if kind is int else number(low, high)


_RANGES = sampling_ranges()
_OVERRIDES: dict[str, FieldReader] = {
    "top_k": optional(_reader(*_RANGES["top_k"]), -1, 0),  # OpenAI-compatible clients turn it off by -1
    "seed": optional(_reader(*_RANGES["seed"]), -1),
    "stop": stop_strings,
    "logit_bias": logit_bias,
    "ignore_eos": boolean,
    "samplers": samplers,
    "dry_sequence_breakers": breakers,
}
READERS: dict[str, FieldReader] = {name: _reader(*bounds) for name, bounds in _RANGES.items()} | _OVERRIDES
_DEFAULTS = SamplingParams()

#: Fields of llama.cpp's samplers, which every API of llama.cpp's kind reads with the same defaults.
CHAIN = (
    "top_n_sigma", "xtc_probability", "xtc_threshold", "dry_multiplier", "dry_base", "dry_allowed_length",
    "dry_penalty_last_n", "dry_sequence_breakers", "samplers", "dynatemp_range", "dynatemp_exponent", "mirostat",
    "mirostat_tau", "mirostat_eta", "min_keep",
)  # fmt: skip


def sampling_fields(*names: str, **defaults: Any) -> Fields:
    """Fields by name: `names` with the defaults of SamplingParams, `defaults` with those of an API."""
    stated = defaults | {name: getattr(_DEFAULTS, name) for name in names}
    return {name: (READERS[name], default) for name, default in stated.items()}
