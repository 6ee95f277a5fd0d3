"""Other programs' flags in ternrun's own words, before argparse sees them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence

from ternrun.commands.line.spellings import SPELLINGS, Idle, Refused, Rule, Same
from ternrun.errors import UsageError

NUMBER = re.compile(r"-\d*\.?\d+(e-?\d+)?|-inf", re.IGNORECASE)
WORDS = re.compile(r"-[A-Za-z][A-Za-z-]*")  # `-ngl` is one flag; `-n20` and `-m./x` are a flag and its value
SETTING = re.compile(r"\d+|on|off|auto|all|true|false", re.IGNORECASE)

Flags = Mapping[str, bool]  # a command's own flags, and whether a value follows


def rewrite(arguments: Sequence[str], flags: Flags) -> tuple[list[str], list[str]]:
    """The arguments in the command's own flags, and a note for each one that changes nothing.

    Raises UsageError for a flag that the command does not have, with the nearest one that it has, and for one whose
    effect ternrun cannot give.
    """
    written: list[str] = []
    notes: list[str] = []
    rest = deque(arguments)
    while rest:
        word = rest.popleft()
        name, joined, value = word.partition("=")
        known = _spelt(name, flags) if _is_flag(word, flags) else None
        if known is None:
            written.append(word)
        elif known in flags:
            written.append(known + joined + value)
            if flags[known] and not joined:
                written.extend(_value(rest, flags))
        else:
            _translate(name, _rule(known, flags), joined + value, rest, flags, written, notes)
    return written, notes


def _translate(
    name: str, rule: Rule | None, joined: str, rest: deque[str], flags: Flags, written: list[str], notes: list[str]
) -> None:
    """Write one flag of another program. `joined` is "=VALUE", or empty. Raises UsageError."""
    if isinstance(rule, Same):
        value = [joined[1:]] if joined else _value(rest, flags) if flags[rule.flag] else []
        written.extend([rule.flag, rule.prefix + value[0], *value[1:]] if value else [rule.flag])
    elif isinstance(rule, Idle):
        given = [joined[1:]] if joined else _value(rest, flags, rule.values) if rule.values else []
        if rule.values == 1 and not given:
            raise UsageError(f"argument {name}: expected one argument")
        if rule.only and given and given[0].lower() not in rule.only:
            raise UsageError(f"{name} {given[0]} is not supported: {rule.why}")
        notes.append(f"{name} has no effect: {rule.why}")
    elif isinstance(rule, Refused):
        raise UsageError(f"{name} is not supported: {rule.advice}")
    else:
        raise UsageError(f"unrecognized arguments: {name}{nearest(name, flags)}")


def nearest(name: str, flags: Flags) -> str:
    """`; did you mean X?`, where a flag of the command is near, in its own spelling or another program's."""
    from difflib import get_close_matches

    own = [flag for flag in flags if len(flag) > 2]
    other = [flag for flag in SPELLINGS if len(flag) > 2 and isinstance(_rule(flag, flags), Same)]
    plain = "--" + name.lstrip("-").lower().replace("_", "-")
    found = [flag for flag in own if flag.startswith(plain)] or get_close_matches(plain, [*own, *other], 1)
    if not found:
        return ""
    rule = None if found[0] in flags else _rule(found[0], flags)
    return f"; did you mean {rule.flag if isinstance(rule, Same) else found[0]}?"


def _is_flag(word: str, flags: Flags) -> bool:
    """As argparse has it: a negative number, a lone dash and what holds a space are no flags."""
    if len(word) < 2 or word[0] != "-" or NUMBER.fullmatch(word):
        return False
    name = word.partition("=")[0]
    return " " not in name or name in flags


def _spelt(name: str, flags: Flags) -> str | None:
    """The name as a table has it, else as it is; None where it is a short flag with its value joined on."""
    dashed = "-" * (len(name) - len(name.lstrip("-"))) + name.lstrip("-").replace("_", "-")
    for spelling in (name, dashed):
        if spelling in flags or _rule(spelling, flags):
            return spelling
    if name[1] != "-" and flags.get(name[:2]) and not WORDS.fullmatch(name):
        return None
    return name


def _rule(name: str, flags: Flags) -> Rule | None:
    """The first rule that applies to the command."""
    needs = ((rule, rule.flag if isinstance(rule, Same) else rule.where) for rule in SPELLINGS.get(name, ()))
    return next((rule for rule, needed in needs if needed in flags), None)


def _value(rest: deque[str], flags: Flags, values: int | str = 1) -> list[str]:
    """The next word, taken from `rest`, where it is a value; of a flag that may have one, a number or on, off, auto."""
    if not rest or _is_flag(rest[0], flags) or (values == "?" and not SETTING.fullmatch(rest[0])):
        return []
    return [rest.popleft()]
