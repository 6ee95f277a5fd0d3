"""Flags that commands share. Defaults are those of the records in `runtime/config.py`: none is written here.

Only flags that were given end up in `args`, so a record sees exactly what the user said.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from ternrun.commands.values import bias, device, length, names, seed, some, text, threads
from ternrun.runtime.config import DEFAULT_CONTEXT, EngineConfig, SamplingParams


class Flag(NamedTuple):
    """How one field of a record is spelt on the command line."""

    names: tuple[str, ...]
    kind: Callable[[str], Any]
    metavar: str
    help: str
    more: Mapping[str, Any] = {}


APPEND = {"action": "append"}
SWITCH = {"action": "store_true"}
OFF = {"action": "store_false"}

SAMPLING = {
    "max_tokens": Flag(("-n", "--max-tokens"), length, "N", "tokens to generate at most; -1: to the context's end"),
    "min_tokens": Flag(("--min-tokens",), int, "N", "tokens to generate at least"),
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
    "include_stop": Flag(("--include-stop",), bool, "", "end behind the text of --stop", SWITCH),
    "ignore_eos": Flag(("--ignore-eos",), bool, "", "go on past the model's own end token", SWITCH),
    "samplers": Flag(
        ("--samplers",),
        names,
        "NAMES",
        "the steps of sampling in their order, separated by ; as in top_k;temperature (default: all)",
    ),
    "top_n_sigma": Flag(("--top-n-sigma",), float, "X", "keep logits within X deviations of the largest; 0: off"),
    "xtc_probability": Flag(("--xtc-probability",), float, "X", "how often XTC drops the likeliest tokens; 0: never"),
    "xtc_threshold": Flag(("--xtc-threshold",), float, "X", "XTC drops tokens this probable, but one; above 0.5: off"),
    "dry_multiplier": Flag(("--dry-multiplier",), float, "X", "DRY's penalty for going on with a repetition; 0: off"),
    "dry_base": Flag(("--dry-base",), float, "X", "its growth with every token that is repeated"),
    "dry_allowed_length": Flag(("--dry-allowed-length",), int, "N", "tokens that may be repeated without it"),
    "dry_penalty_last_n": Flag(("--dry-penalty-last-n",), int, "N", "tokens it looks back on; -1: all"),
    "dry_sequence_breakers": Flag(
        ("--dry-sequence-breaker",),
        text,
        "TEXT",
        "no repetition reaches across it; repeatable, in place of the defaults",
        APPEND,
    ),
    "dynatemp_range": Flag(("--dynatemp-range",), float, "X", "vary the temperature by X with the entropy; 0: off"),
    "dynatemp_exponent": Flag(("--dynatemp-exp",), float, "X", "how the entropy is mapped to the temperature"),
    "mirostat": Flag(("--mirostat",), int, "N", "version 1 or 2, in place of all samplers but temperature; 0: off"),
    "mirostat_tau": Flag(("--mirostat-ent",), float, "X", "the surprise it aims at, in bits"),
    "mirostat_eta": Flag(("--mirostat-lr",), float, "X", "its learning rate"),
    "min_keep": Flag(("--min-keep",), int, "N", "tokens that top-p, min-p, typical-p and XTC leave at least"),
    "logprobs": Flag(("--logprobs",), int, "N", "report log-probabilities, with the N likeliest tokens (needs --json)"),
}
CHAT_SAMPLING = {name: flag for name, flag in SAMPLING.items() if name != "logprobs"}

ENGINE = {
    "threads": Flag(("-t", "--threads"), threads, "N", "threads; 0: one per physical core"),
    "device": Flag(("--device",), device, "NAME", "auto or cpu, which are the same"),
    "context": Flag(
        ("-c", "--context"), int, "N", f"tokens a text may reach; 0: the model's own, at most {DEFAULT_CONTEXT}"
    ),
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
