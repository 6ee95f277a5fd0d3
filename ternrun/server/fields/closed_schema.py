"""JSON schemas whose objects have only the properties that the schema names.

JSON Schema allows other properties, and models would add some without end. llama.cpp, vLLM and OpenAI's strict mode
forbid them too, unless the schema has `additionalProperties`.
"""

from __future__ import annotations

from typing import Any

_ONE = ("items", "additionalProperties", "contains")
_LISTS = ("anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "$defs", "definitions", "patternProperties")
_OPEN = ("additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "$ref", "anyOf", "oneOf", "if")


def closed(schema: Any) -> Any:
    """A copy of a schema whose objects allow no other properties than the named ones.

    Objects with additionalProperties and combinations of schemas stay as they are. Raises RecursionError for deep
    nesting.
    """
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    for name in _ONE:
        if isinstance(made.get(name), dict):
            made[name] = closed(made[name])
    for name in _LISTS:
        if isinstance(made.get(name), list):
            made[name] = [closed(one) for one in made[name]]
    for name in _NAMED:
        if isinstance(made.get(name), dict):
            made[name] = {key: closed(one) for key, one in made[name].items()}
    if isinstance(made.get("properties"), dict) and not any(name in made for name in _OPEN):
        made["additionalProperties"] = False
    return made
