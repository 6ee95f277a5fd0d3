"""Values of flags: what a user types, checked and turned into what a record holds.

Each takes the word that was typed and raises ArgumentTypeError, whose message argparse puts behind the flag's name.
"""

from __future__ import annotations

import argparse
import math
import re

from ternrun.commands.inputs import typed
from ternrun.errors import UsageError

LONGEST = 2**24  # tokens: the most that SamplingParams takes; a context ends before


def names(word: str) -> tuple[str, ...]:
    """Names of samplers, separated by semicolons."""
    return tuple(name.strip() for name in word.split(";") if name.strip())


def bias(text: str) -> tuple[int, float]:
    """`ID=VALUE`, `ID+VALUE` or `ID-VALUE`; `ID=-inf` bans a token."""
    parts = re.fullmatch(r"(\d+)(?:=|(?=[+-]))(.+)", text)
    try:
        pair = (int(parts[1]), float(parts[2])) if parts else (0, math.nan)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=VALUE") from None
    if math.isnan(pair[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=VALUE")
    return pair


def whole(word: str) -> int:
    """A whole number."""
    try:
        return int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid int value: {word!r}") from None


def length(word: str) -> int:
    """A number of tokens; -1 and -2, as in llama.cpp: as many as the context holds."""
    return LONGEST if whole(word) in (-1, -2) else whole(word)


def some(word: str) -> int:
    """A number; -1, as in vLLM: off."""
    return 0 if whole(word) == -1 else whole(word)


def seed(word: str) -> int | None:
    """A seed; -1, as in llama.cpp: another one each time."""
    return None if whole(word) == -1 else whole(word)


def threads(word: str) -> int:
    """A number of threads; -1, as in llama.cpp: as many as are best. A fraction was meant for a temperature."""
    if re.fullmatch(r"\d*\.\d+", word):
        raise argparse.ArgumentTypeError(f"{word} is no number of threads; --temp {word} sets the temperature")
    return some(word)


def device(word: str) -> str:
    """What runs the model; none, as in llama.cpp: the CPU."""
    if word not in ("auto", "cpu", "none"):
        raise argparse.ArgumentTypeError(f"this version of ternrun runs on the CPU only: auto or cpu, not {word!r}")
    return "cpu" if word == "none" else word


def text(word: str) -> str:
    """What is not UTF-8 would come as lone surrogates, which no text of a model holds."""
    try:
        return typed(word, "it")
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
