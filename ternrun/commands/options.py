"""Flags that commands share. Defaults are those of the records in `runtime/config.py`: none is written here.

Only flags that were given end up in `args`, so a record sees exactly what the user said.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from ternrun.commands.inputs import typed
from ternrun.errors import UsageError
from ternrun.runtime.config import EngineConfig, SamplingParams


class Flag(NamedTuple):
    """How one field of a record is spelt on the command line."""

    names: tuple[str, ...]
    kind: Callable[[str], Any]
    metavar: str
    help: str
    more: Mapping[str, Any] = {}


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


LONGEST = 2**24  # tokens: the most that SamplingParams takes; a context ends before

APPEND = {"action": "append"}
SWITCH = {"action": "store_true"}
OFF = {"action": "store_false"}

SAMPLING = {
    "max_tokens": Flag(("-n", "--max-tokens"), length, "N", "tokens to generate at most; -1: to the context's end"),
    "temperature": Flag(
        ("--temp", "--temperature"), float, "X", "0 always takes the likeliest token; more is more random"
    ),
    "top_k": Flag(("--top-k",), some, "N", "choose among the N likeliest tokens; 0: off"),
    "top_p": Flag(("--top-p",), float, "X", "choose among the likeliest tokens that make up this probability; 1: off"),
    "min_p": Flag(("--min-p",), float, "X", "drop tokens less likely than X times the likeliest; 0: off"),
    "typical_p": Flag(("--typical-p",), float, "X", "locally typical sampling; 1: off"),
    "repeat_penalty": Flag(("--repeat-penalty",), float, "X", "divide the logits of recent tokens; 1: off"),
    "presence_penalty": Flag(("--presence-penalty",), float, "X", "subtract from tokens that occurred"),
    "frequency_penalty": Flag(("--frequency-penalty",), float, "X", "subtract per time a token occurred"),
    "repeat_last_n": Flag(("--repeat-last-n",), int, "N", "tokens the penalties look back on; -1: all"),
    "logit_bias": Flag(("--logit-bias",), bias, "ID=X", "add X to a logit, -inf bans the token; repeatable", APPEND),
    "seed": Flag(("-s", "--seed"), seed, "N", "the same seed gives the same text; -1: any"),
    "stop": Flag(("--stop",), text, "TEXT", "end before this text; repeatable", APPEND),
    "ignore_eos": Flag(("--ignore-eos",), bool, "", "go on past the model's own end token", SWITCH),
    "logprobs": Flag(("--logprobs",), int, "N", "report log-probabilities, with the N likeliest tokens (needs --json)"),
}

ENGINE = {
    "threads": Flag(("-t", "--threads"), threads, "N", "threads; 0: one per physical core"),
    "device": Flag(("--device",), device, "NAME", "auto or cpu, which are the same"),
    "context": Flag(("-c", "--context"), int, "N", "tokens a text may reach; 0: the model's own, at most 8192"),
    "kv_type": Flag(("--kv-type",), str, "TYPE", "keys and values kept as f16, f32 or int8"),
    "speculate": Flag(("--no-speculate",), bool, "", "do not guess tokens ahead (changes the speed only)", OFF),
}


def add_flags(
    parser: argparse.ArgumentParser,
    title: str,
    record: type[Any],
    table: Mapping[str, Flag],
    own: Mapping[str, str] = {},
) -> None:
    """Add a group of flags for some fields of a record; the help tells the record's defaults, or the command's own."""
    group = parser.add_argument_group(title)
    defaults = {f.name: f.default for f in fields(record)}
    for name, flag in table.items():
        default = defaults[name]
        told = isinstance(default, (int, float, str)) and default != "" and not flag.more
        shown = f" (default {own.get(name, default)})" if told or name in own else ""
        typed: dict[str, Any] = {} if flag.kind is bool else {"type": flag.kind, "metavar": flag.metavar}
        group.add_argument(
            *flag.names, dest=name, default=argparse.SUPPRESS, help=flag.help + shown, **typed, **flag.more
        )


def given(args: argparse.Namespace, record: type[SamplingParams] | type[EngineConfig]) -> dict[str, Any]:
    """What the user said of a record's fields, checked by the record. Raises ConfigError."""
    known = {f.name for f in fields(record)}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in vars(args).items() if k in known}
    record.from_dict(values)
    return values
