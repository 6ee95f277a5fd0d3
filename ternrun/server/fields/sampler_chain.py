"""Readers of llama.cpp's order of samplers and of DRY's sequence breakers."""

from __future__ import annotations

from typing import Any

from ternrun.runtime.config import MAX_SAMPLERS, MAX_TEXT, MAX_TEXTS, SAMPLERS
from ternrun.server.fields.reading import (
    FieldError,
    json_schema,
)

LETTERS = {  # as llama.cpp abbreviates an order of samplers
    "e": "penalties", "d": "dry", "s": "top_n_sigma", "k": "top_k", "y": "typical_p", "p": "top_p", "m": "min_p",
    "x": "xtc", "t": "temperature",
}  # fmt: skip


@json_schema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": MAX_SAMPLERS}]})
def samplers(value: Any) -> tuple[str, ...]:
    """The names of samplers in the order in which they run, or llama.cpp's letters for them ("kpt")."""
    names = SAMPLERS if isinstance(value, list) else LETTERS
    if not isinstance(value, (list, str)) or not 0 < len(value) <= MAX_SAMPLERS:
        raise ValueError(f"must be a list of 1 to {MAX_SAMPLERS} names of samplers")
    for i, name in enumerate(value):
        if not isinstance(name, str) or name not in names:
            known = ", ".join(dict.fromkeys(SAMPLERS.values()))
            raise FieldError(
                f"[{i}]", f"must be one of {known}" + ("" if names is SAMPLERS else ", or of their letters")
            )
    return tuple(names[name] for name in value)


_BREAKER = {"type": "string", "maxLength": MAX_TEXT}


@json_schema({"type": "array", "items": _BREAKER, "maxItems": MAX_TEXTS})
def breakers(value: Any) -> tuple[str, ...]:
    """DRY's sequence breakers; an empty list means none."""
    if not isinstance(value, list) or len(value) > MAX_TEXTS:
        raise ValueError(f"must be a list of at most {MAX_TEXTS} strings")
    for i, one in enumerate(value):
        if not isinstance(one, str) or not 0 < len(one) <= MAX_TEXT:
            raise FieldError(f"[{i}]", f"must be a string of 1 to {MAX_TEXT} characters")
    return tuple(value)
