"""Fields that ask for an answer of a given form, and the grammar that each of them means."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ternrun.grammar.compiler import Kind
from ternrun.runtime.constraint import Constraint
from ternrun.server.fields import Read
from ternrun.server.problems import ApiError
from ternrun.server.service import Service

Start = Callable[[], Constraint]
Fields = dict[str, tuple[Read, Any]]


class Source(NamedTuple):
    """A grammar to compile."""

    kind: Kind
    text: str


ANY_OBJECT = Source("json_schema", '{"type": "object"}')


def schema(value: Any) -> Source:
    """A JSON schema: an object, or true or false."""
    if not isinstance(value, (dict, bool)):
        raise ValueError("must be a JSON schema, an object")  # noqa: TRY004
    try:
        return Source("json_schema", json.dumps(value))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def response_format(value: Any) -> Source | None:
    """OpenAI's: {"type": "text" | "json_object" | "json_schema"}; `schema` may stand in it directly (llama.cpp)."""
    wrong = ValueError(
        'must be {"type": "text"}, {"type": "json_object"} or {"type": "json_schema", "json_schema": ...}'
    )
    kind = value.get("type") if isinstance(value, dict) else None
    known = {"text": (), "json_object": ("schema",), "json_schema": ("json_schema", "schema")}.get(str(kind))
    if known is None or not set(value) <= {"type", *known}:
        raise wrong
    if kind == "text":
        return None
    inner = value.get("json_schema", value)
    if not isinstance(inner, dict) or (
        inner is not value and not set(inner) <= {"name", "description", "strict", "schema"}
    ):
        raise wrong
    if inner.get("schema") is None:
        if kind == "json_schema":
            raise ValueError("json_schema.schema is missing")
        return ANY_OBJECT
    return schema(inner["schema"])


def ollama_format(value: Any) -> Source | None:
    """Ollama's: "json" or a JSON schema."""
    if value == "":
        return None
    if value == "json":
        return ANY_OBJECT
    if not isinstance(value, dict):
        raise ValueError('must be "json" or a JSON schema')  # noqa: TRY004
    return schema(value)


def _grammar(value: Any) -> Source | None:
    if not isinstance(value, str):
        raise ValueError("must be a grammar: GBNF or Lark, as text")  # noqa: TRY004
    return Source("gbnf", value) if value else None  # llguidance tells Lark from GBNF


def _regex(value: Any) -> Source:
    if not isinstance(value, str):
        raise ValueError("must be a regular expression, as text")  # noqa: TRY004
    return Source("regex", value)


def _choice(value: Any) -> Source:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
        raise ValueError("must be a list of texts, not empty")
    return Source("lark", "start: " + " | ".join(json.dumps(v) for v in value))


def _guided_json(value: Any) -> Source:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("must be a JSON schema") from None
    return schema(value)


def _structured(value: Any) -> Source | None:
    readers = {"json": _guided_json, "regex": _regex, "choice": _choice, "grammar": _grammar}
    given = [name for name, held in value.items() if held is not None] if isinstance(value, dict) else []
    if len(given) != 1 or given[0] not in readers:
        raise ValueError(f"must be an object with one of {', '.join(readers)}")
    return readers[given[0]](value[given[0]])


LLAMA: Fields = {"json_schema": (schema, None), "grammar": (_grammar, None)}
OPENAI: Fields = {  # with llama.cpp's and vLLM's names for what OpenAI's API has not
    "response_format": (response_format, None),
    **LLAMA,
    "guided_json": (_guided_json, None),
    "guided_regex": (_regex, None),
    "guided_choice": (_choice, None),
    "guided_grammar": (_grammar, None),
    "structured_outputs": (_structured, None),
}
OLLAMA: Fields = {"format": (ollama_format, None)}


async def constraint(service: Service, values: Mapping[str, Any], fields: Fields) -> Start | None:
    """What the engine needs for the form that a request asks for; None where it asks for none. Raises ApiError."""
    asked = {name: values[name] for name in fields if values[name] is not None}
    if not asked:
        return None
    if len(asked) > 1:
        raise ApiError(f"only one of {', '.join(asked)} can be asked for at once", param=list(asked)[1])
    ((name, source),) = asked.items()
    return await service.compile(source.kind, source.text, name)
