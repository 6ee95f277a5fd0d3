"""Reads JSON from clients: tables of fields, each with a reader that checks kind, range and size.

A field is read, or it is a hint (accepted without effect and named), or a constraint (refused unless its value asks for
nothing); see `unsupported`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ternrun.server.fields.ignored import current
from ternrun.server.fields.unsupported import ELSEWHERE, HARMLESS, Kind
from ternrun.server.http.errors import ApiError

FieldReader = Callable[[Any], Any]  # raises ValueError that says what the field must be
Schema = Mapping[str, Any]  # JSON Schema (2020-12), as OpenAPI 3.1 has it

Reader = TypeVar("Reader", bound=FieldReader)

NO_DEFAULTS: Mapping[str, Any] = {}

_SCHEMAS: dict[FieldReader, Schema] = {}


def json_schema(schema: Schema) -> Callable[[Reader], Reader]:
    """Attach a JSON Schema to a reader. The reader may refuse more, but accepts nothing else.

    Readers are made once, with the tables, so the schemas are never released.
    """

    def note(read: Reader) -> Reader:
        _SCHEMAS[read] = schema
        return read

    return note


def schema_of(read: FieldReader) -> Schema:
    """The schema of a reader; {} if it has none."""
    return _SCHEMAS.get(read, {})


class FieldError(ValueError):
    """A wrong value inside a field, at the path `at` (such as `[1].name`)."""

    def __init__(self, at: str, why: str) -> None:
        super().__init__(why)
        self.at = at


@dataclass(frozen=True, slots=True)
class FieldTable:
    """The fields of one route. `read`: name -> (reader, default). The others: name -> values that ask for nothing."""

    read: Mapping[str, tuple[FieldReader, Any]]
    hints: Kind = field(default_factory=dict)
    constraints: Kind = field(default_factory=dict)

    def parse(self, body: Any, *, defaults: Mapping[str, Any] = NO_DEFAULTS, within: str = "") -> dict[str, Any]:
        """The value of every field of `read`, checked; its default (`defaults` first) if it is absent or null.

        `within` is the path of an object inside the body. Raises ApiError naming a field.
        """
        if not isinstance(body, dict):
            raise ApiError(f"{within or 'the body'}{':' if within else ''} must be a JSON object", param=within or None)
        prefix = f"{within}." if within else ""
        for name, value in body.items():
            if name not in self.read and value is not None:
                self._pass_over(name, value, prefix)
        values = {name: defaults.get(name, default) for name, (_, default) in self.read.items()}
        for name, (read, _) in self.read.items():
            if body.get(name) is not None:
                try:
                    values[name] = read(body[name])
                except ValueError as error:
                    path = prefix + name + (error.at if isinstance(error, FieldError) else "")
                    raise ApiError(f"{path}: {error}", param=path) from None
        return values

    def _pass_over(self, name: str, value: Any, prefix: str) -> None:
        """Handle a field that is not read. Raises ApiError."""
        if name in self.constraints:
            if not _among(value, self.constraints[name]):
                raise ApiError(
                    f"{prefix}{name}: this server does not support it, and an answer without it would be wrong",
                    param=prefix + name, code="unsupported",
                )  # fmt: skip
        elif name not in self.hints:
            current().unknown(prefix + name, [*self.read, *self.hints])
        elif self.hints[name] is ELSEWHERE:
            return
        elif self.hints[name] is HARMLESS:
            current().harmless(prefix + name)
        elif not _among(value, self.hints[name]):
            current().hint(prefix + name)


def _among(value: Any, same: tuple[Any, ...]) -> bool:
    return any(type(value) is type(one) and value == one for one in same)


def number(low: float, high: float) -> FieldReader:
    """A number from low to high."""

    @json_schema({"type": "number", "minimum": low, "maximum": high})
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return float(value)

    return read


def integer(low: int, high: int) -> FieldReader:
    """A whole number from low to high; 3.0 counts as one."""

    @json_schema({"type": "integer", "minimum": low, "maximum": high})
    def read(value: Any) -> int:
        exact = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not exact or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return read


@json_schema({"type": "boolean"})
def boolean(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004
    return value


@json_schema({"type": "string"})
def string(value: Any) -> str:
    """A string; its length is bounded by the body's."""
    if not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004
    return value


@json_schema({"type": "object"})
def json_object(value: Any) -> dict[str, Any]:
    """An object with any content."""
    if not isinstance(value, dict):
        raise ValueError("must be an object")  # noqa: TRY004
    return value


def any_value(value: Any) -> Any:
    """Any value; the caller checks it."""
    return value


_STOP: Schema = {"type": "string", "maxLength": 1024}


@json_schema({"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": 64}]})
def stop_strings(value: Any) -> tuple[str, ...]:
    """A string, or at most 64 strings of at most 1024 characters. Empty ones are dropped, as in llama.cpp."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or len(listed) > 64 or not all(isinstance(s, str) for s in listed):
        raise ValueError("must be a string or a list of at most 64 strings")
    if any(len(s) > 1024 for s in listed):
        raise ValueError("a stop string may have at most 1024 characters")
    return tuple(s for s in listed if s)


def token_ids(most: int) -> FieldReader:
    """A list of at most `most` integers. The engine checks them against the vocabulary."""

    @json_schema({"type": "array", "items": {"type": "integer"}, "maxItems": most})
    def read(value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or len(value) > most or not all(type(i) is int for i in value):
            raise ValueError(f"must be a list of at most {most} token ids")
        return tuple(value)

    return read


_BIAS: Schema = {"type": "number", "minimum": -100, "maximum": 100}


@json_schema(
    {
        "anyOf": [
            {"type": "object", "additionalProperties": {"anyOf": [_BIAS, {"const": False}]}, "maxProperties": 1024},
            {"type": "array", "items": {"type": "array", "minItems": 2, "maxItems": 2}, "maxItems": 1024},
        ]
    }
)
def logit_bias(value: Any) -> tuple[tuple[int, float], ...]:
    """OpenAI's {"id": bias}, or llama.cpp's [[id, bias], ...] where `false` bans the token; at most 1024 of them."""
    return tuple(_biases(value, int))


def _biases(value: Any, *kinds: type) -> list[Any]:
    items = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(items, list) or len(items) > 1024:
        raise ValueError("must hold at most 1024 pairs of token id and bias")
    if isinstance(value, dict):
        items = [(int(t) if t.isascii() and t.isdigit() and len(t) < 10 else t, bias) for t, bias in items]
    return [_bias(item, kinds) for item in items]


def _bias(item: Any, kinds: tuple[type, ...]) -> tuple[Any, float]:
    wrong = ValueError("must map token ids to numbers from -100 to 100")
    if not isinstance(item, (list, tuple)) or len(item) != 2:
        raise wrong
    token, value = item
    if type(token) not in kinds or (isinstance(token, str) and len(token) > 64):
        raise wrong
    if value is False:
        return token, -math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -100 <= value <= 100:
        raise wrong
    return token, float(value)


@json_schema(schema_of(logit_bias))
def worded_bias(value: Any) -> tuple[tuple[int | str, float], ...]:
    """As `logit_bias`, and llama.cpp's texts (64 characters at most) instead of ids: their tokens are biased."""
    return tuple(_biases(value, int, str))


def optional(read: FieldReader, off: Any, means: Any = None) -> FieldReader:
    """As `read`, but the value `off` means `means`; by default the same as an absent field."""

    @json_schema({"anyOf": [{"const": off}, schema_of(read)]})
    def either(value: Any) -> Any:
        return means if type(value) is type(off) and value == off else read(value)

    return either


def nested(table: FieldTable, where: str) -> FieldReader:
    """An object with its own table; `where` is the path of the field."""

    @json_schema({"type": "object", "properties": {name: schema_of(read) for name, (read, _) in table.read.items()}})
    def read(value: Any) -> dict[str, Any]:
        return table.parse(value, within=where)

    return read


@json_schema({"type": "array", "items": {"type": "string", "maxLength": 1024}, "maxItems": 64})
def string_list(value: Any) -> tuple[str, ...]:
    """At most 64 strings of at most 1024 characters."""
    if not isinstance(value, list) or len(value) > 64:
        raise ValueError("must be a list of at most 64 strings")
    for i, one in enumerate(value):
        if not isinstance(one, str) or not 0 < len(one) <= 1024:
            raise FieldError(f"[{i}]", "must be a string of 1 to 1024 characters")
    return tuple(value)


def any_value_like(schema: Schema) -> FieldReader:
    """Any value, with a schema for the documentation."""
    return json_schema(schema)(lambda value: value)
