"""How a model's file would have it sampled: the keys `general.sampling.*` of GGUF, as llama.cpp writes and reads them.

What they say stands in for our defaults; whoever asks for something gets that. Keys of samplers that ternrun has not
(mirostat, xtc, an order of samplers) are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ternrun.errors import ConfigError, LoadError
from ternrun.loader.keys import Keys
from ternrun.runtime.config import SamplingParams

PREFIX = "general.sampling"
#: key: (field of SamplingParams, whether it is a whole number)
FIELDS = {
    "temp": ("temperature", False),
    "top_k": ("top_k", True),
    "top_p": ("top_p", False),
    "min_p": ("min_p", False),
    "penalty_repeat": ("repeat_penalty", False),
    "penalty_last_n": ("repeat_last_n", True),
}


def read_sampling(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of SamplingParams that the file states. Raises LoadError for values that cannot be."""
    keys = Keys(metadata, PREFIX)
    stated = {
        field: keys.integer(name) if whole else _rounded(keys.number(name))
        for name, (field, whole) in FIELDS.items()
        if name in keys
    }
    try:
        SamplingParams.from_dict(stated)
    except ConfigError as error:
        raise LoadError(f"metadata key {PREFIX}: {error}") from None
    return stated


def write_sampling(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that say so."""
    names = {field: name for name, (field, _) in FIELDS.items()}
    return {f"{PREFIX}.{names[field]}": value for field, value in fields.items()}


def _rounded(number: float) -> float:
    """A file holds float32: 1.1 and not 1.10000002384."""
    return float(f"{number:.7g}")
