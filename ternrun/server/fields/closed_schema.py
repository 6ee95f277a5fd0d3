"""JSON schemas as clients mean them: an object has the properties that its schema names, and no others.

JSON Schema itself allows any others. Models without end add some, so llama.cpp, vLLM and OpenAI's strict mode rule them
out, too, unless the schema has `additionalProperties`.
"""

from __future__ import annotations

from typing import Any

_ONE = ("items", "additionalProperties", "contains")
_LISTS = ("anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "$defs", "definitions", "patternProperties")
_OPEN = ("additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "$ref", "anyOf", "oneOf", "if")


def closed(schema: Any) -> Any:
    """A copy of a schema whose objects allow no properties that it does not name, but where it says so, or where it is
    put together from several schemas. Raises RecursionError for one that is nested too deeply."""
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
