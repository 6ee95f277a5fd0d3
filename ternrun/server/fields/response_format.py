"""Fields that ask for a form of the answer, and the grammar of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from ternrun.grammar.compiler import Kind
from ternrun.runtime.sampling.constraint import Constraint
from ternrun.server.fields.closed_schema import closed
from ternrun.server.fields.ignored import pass_over
from ternrun.server.fields.reading import FieldError, FieldReader

Start = Callable[[], Constraint]
Fields = dict[str, tuple[FieldReader, Any]]


_NAMED_SCHEMA = ("name", "description", "strict", "schema", "value")
FORMATS = {  # types, and the keys beside `type`
    "text": (), "json_object": ("schema", "value"), "json_schema": ("json_schema", *_NAMED_SCHEMA),
    "json": ("schema", "value"), "regex": ("value",),
}  # fmt: skip


class Source(NamedTuple):
    """A grammar to compile. `at` is its path within the field."""

    kind: Kind
    text: str
    at: str = ""


ANY_OBJECT = Source("json_schema", '{"type": "object"}')


def schema(value: Any, at: str = "") -> Source:
    """A JSON schema: an object, or true or false. `at` is its path within the field."""
    if not isinstance(value, (dict, bool)):
        raise FieldError(at, "must be a JSON schema, an object")
    try:
        return Source("json_schema", json.dumps(closed(value)), at)
    except RecursionError:
        raise FieldError(at, "it is nested too deeply") from None


def response_format(value: Any, at: str = "", field: str = "response_format") -> Source | None:
    """OpenAI's field: {'type': 'text' | 'json_object' | 'json_schema'}. `at` and `field` are its path.

    It may hold `schema` (llama.cpp) or `value` (text-generation-inference) directly. `grammar` and `regex` are Hugging
    Face's types.
    """
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in FORMATS:
        wrong = f"must be one of {', '.join(FORMATS)}"
        raise FieldError(f"{at}.type" if isinstance(value, dict) else at, wrong)
    pass_over(value, ("type", *FORMATS[kind]), field)
    if kind == "text":
        return None
    if kind == "regex":
        return _regex(value.get("value"))._replace(at=f"{at}.value")
    inner, here = value, at
    if value.get("json_schema") is not None:
        inner, here = value["json_schema"], f"{at}.json_schema"
        if not isinstance(inner, dict):
            raise FieldError(here, 'must be an object such as {"name": "answer", "schema": {...}}')
        pass_over(inner, _NAMED_SCHEMA, f"{field}.json_schema")
    name = next((name for name in ("schema", "value") if inner.get(name) is not None), None)
    if name is not None:
        return schema(inner[name], f"{here}.{name}")
    if kind == "json_schema":
        raise FieldError(f"{here}.schema" if inner is not value else f"{at}.json_schema", "it is missing")
    return ANY_OBJECT


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


def _any_object(value: Any) -> Source | None:
    return ANY_OBJECT if value else None


def _structured(value: Any) -> Source | None:
    if not isinstance(value, dict):
        raise ValueError(f"must be an object with one of {', '.join(_STRUCTURED)}")  # noqa: TRY004
    given = [name for name in _STRUCTURED if value.get(name) is not None]
    if value.get("structural_tag") is not None:
        raise FieldError(".structural_tag", "this server does not support it, and an answer without it would be wrong")
    if len(given) != 1:
        raise ValueError(f"must be an object with one of {', '.join(_STRUCTURED)}")
    pass_over(value, (*_STRUCTURED, *_STRUCTURED_HINTS), "structured_outputs")
    (name,) = given
    try:
        source = _STRUCTURED[name](value[name])
    except ValueError as error:
        raise FieldError(f".{name}", str(error)) from None
    return source and source._replace(at=f".{name}")


_STRUCTURED: dict[str, Callable[[Any], Source | None]] = {
    "json": _guided_json, "regex": _regex, "choice": _choice, "grammar": _grammar, "json_object": _any_object,
}  # fmt: skip
_STRUCTURED_HINTS = ("disable_fallback", "disable_any_whitespace", "disable_additional_properties",
                     "whitespace_pattern")  # fmt: skip


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
