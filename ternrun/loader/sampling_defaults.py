"""How a model's file would have it sampled: the keys `general.sampling.*` of GGUF, as llama.cpp writes and reads them.

What they say stands in for our defaults; whoever asks for something gets that. In `sequence`, samplers that ternrun
does not know are left out, as llama.cpp does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ternrun.errors import ConfigError, LoadError
from ternrun.loader.architectures.metadata import Keys
from ternrun.runtime.config import SAMPLERS, SamplingParams

PREFIX = "general.sampling"
Read = Callable[[Keys, str], Any]


def _number(keys: Keys, name: str) -> float:
    """A file holds float32: 1.1 and not 1.10000002384."""
    return float(f"{keys.number(name):.7g}")


def _samplers(keys: Keys, name: str) -> tuple[str, ...]:
    value = keys.raw(name)
    if not isinstance(value, str):
        keys.fail(name, "names separated by semicolons", value)
    return tuple(word for word in value.split(";") if word in SAMPLERS)


#: key: (field of SamplingParams, what reads it)
FIELDS: dict[str, tuple[str, Read]] = {
    "temp": ("temperature", _number),
    "top_k": ("top_k", Keys.integer),
    "top_p": ("top_p", _number),
    "min_p": ("min_p", _number),
    "xtc_probability": ("xtc_probability", _number),
    "xtc_threshold": ("xtc_threshold", _number),
    "penalty_repeat": ("repeat_penalty", _number),
    "penalty_last_n": ("repeat_last_n", Keys.integer),
    "mirostat": ("mirostat", Keys.integer),
    "mirostat_tau": ("mirostat_tau", _number),
    "mirostat_eta": ("mirostat_eta", _number),
    "sequence": ("samplers", _samplers),
}


def read_sampling(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of SamplingParams that the file states. Raises LoadError for values that cannot be."""
    keys = Keys(metadata, PREFIX)
    stated = {field: read(keys, name) for name, (field, read) in FIELDS.items() if name in keys}
    try:
        SamplingParams.from_dict(stated)
    except ConfigError as error:
        raise LoadError(f"metadata key {PREFIX}: {error}") from None
    return stated


def write_sampling(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that say so."""
    names = {field: name for name, (field, _) in FIELDS.items()}
    return {f"{PREFIX}.{names[field]}": value for field, value in fields.items()}
