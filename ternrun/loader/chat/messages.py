"""Messages as templates see them: plain data, with the fields that transformers adds and leaves out.

Source: transformers 5.24, `utils/chat_template_utils.py`.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from ternrun.errors import TemplateError

# built-in types, and how a value of a derived type becomes one of them without its own methods
_PLAIN: Mapping[type, Callable[[Any], Any]] = {
    bool: bool, int: int.__int__, float: float.__float__, str: str.__str__, list: list, tuple: tuple, dict: dict,
    Mapping: dict,
}  # fmt: skip
# a message's reasoning comes under one of these; templates read the first, gpt-oss's the second
_REASONING = ("reasoning_content", "thinking", "reasoning")


def prepare_messages(messages: Sequence[Any]) -> list[Any]:
    """Messages without fields that are None, whose reasoning stands under each name that templates read."""
    return [_prepare(message) for message in map(as_mapping, messages)]


def pack_names(names: Mapping[str, Any]) -> bytes:
    """`names` and all they hold as plain data, pickled. Raises TemplateError for what is nested too deeply."""
    packed = io.BytesIO()
    try:
        _PlainPickler(packed, protocol=5).dump(names)
    except RecursionError as e:
        raise TemplateError("the chat template does not fit these messages: they are nested too deeply") from e
    return packed.getvalue()


def as_mapping(value: Any) -> Any:
    """The fields of a dataclass or of a pydantic model, as a dictionary; any other value as it is."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    dump = None if isinstance(value, (Mapping, type)) else getattr(value, "model_dump", None)
    return dump() if callable(dump) else value


def _prepare(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message
    found = {key: value for key, value in message.items() if value is not None}
    reasoning = next((found[name] for name in _REASONING if name in found), None)
    return found if reasoning is None else {"thinking": reasoning, **found, "reasoning_content": reasoning}


class _PlainPickler(pickle.Pickler):
    """Pickles every value that is not of a built-in type as one that is: the worker knows no other types."""

    def reducer_override(self, value: Any) -> Any:
        """What makes the plain value, and its argument. Called for all but exact built-in types."""
        if isinstance(value, type) and value in _PLAIN:
            return NotImplemented
        value = as_mapping(value)
        if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
            value = value.item()  # a number of numpy's
        for kind, convert in _PLAIN.items():
            if isinstance(value, kind):
                return (dict if kind is Mapping else kind), (convert(value),)
        return str, (f"<{type(value).__name__}>",)
