"""Typed reading of a model's metadata: nothing in it is trusted to be there, of the right type, or finite.

Ranges that belong to the model's shape are checked once, by `ModelConfig` itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np

from ternrun.errors import LoadError

T = TypeVar("T")


class Keys:
    """The keys `prefix.*` of one model. A missing key gives `default`, or LoadError where there is none."""

    def __init__(self, metadata: Mapping[str, Any], prefix: str) -> None:
        self.metadata = metadata
        self.prefix = prefix

    def __contains__(self, name: str) -> bool:
        return f"{self.prefix}.{name}" in self.metadata

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number; a list of equal ones, one per layer, counts as one."""
        value = self._value(name, default)
        if isinstance(value, (list, np.ndarray)):
            value = self._uniform(name, value)
        if type(value) is not int or abs(value) >= 1 << 63:
            self.fail(name, "a whole number", value)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._value(name, default)
        if type(value) not in (int, float) or not abs(value) < 1e38:
            self.fail(name, "a finite number", value)
        return float(value)

    def text(self, name: str, choices: Mapping[str, T], default: str | None = None) -> T:
        """What the key's word stands for in `choices`."""
        value = self._value(name, default)
        if not isinstance(value, str) or value not in choices:
            self.fail(name, "one of " + ", ".join(choices), value)
        return choices[value]

    def raw(self, name: str) -> Any:
        """The value as it stands, unchecked; None where the key is missing."""
        return self.metadata.get(f"{self.prefix}.{name}")

    def fail(self, name: str, wanted: str, value: object) -> NoReturn:
        """Raises the LoadError that says what the key must be."""
        raise LoadError(f"metadata key {self.prefix}.{name} must be {wanted}, not {repr(value)[:60]}")

    def _value(self, name: str, default: T | None) -> Any:
        value = self.metadata.get(f"{self.prefix}.{name}")
        if value is None:  # JSON's null counts as missing
            value = default
        if value is None:
            raise LoadError(f"metadata key {self.prefix}.{name} is missing")
        return value.item() if isinstance(value, np.generic) else value

    def _uniform(self, name: str, values: Sequence[Any] | np.ndarray[Any, Any]) -> Any:
        """A value given per layer, if it is the same in all of them."""
        listed = np.asarray(values)
        if listed.ndim != 1 or not listed.size or (listed != listed[0]).any():
            self.fail(name, "the same in every layer", values)
        return listed[0].item()


def hf_keys(table: Mapping[str, Any]) -> Keys:
    """Return the keys of a config.json, or of a table in it."""
    return Keys({f"config.json.{key}": value for key, value in table.items()}, "config.json")
