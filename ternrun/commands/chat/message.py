'''A message as it is typed: one line, lines that end with a backslash, or any lines between two `"""`.'''

from __future__ import annotations

import re
from collections.abc import Callable

FENCE = '"""'
_OPENED = re.compile(r'(/[^"]*\s)?\s*"""')  # at the start of a message, or of what a command takes


def read_message(ask: Callable[[bool], str]) -> str:
    """Read lines until the message is whole, and return them joined by newlines, without the marks.

    `ask` reads one line and raises EOFError at the end of input; its argument says whether a message has begun. The end
    of input also ends a message that has begun. Raises what `ask` raises.
    """
    line = ask(False)
    if (opened := _OPENED.match(line)) is None:
        return _joined(line, ask)
    return (opened[1] or "") + _block(line[opened.end() :], ask)


def _joined(line: str, ask: Callable[[bool], str]) -> str:
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        try:
            lines.append(ask(True))
        except EOFError:
            break
    return "\n".join(lines)


def _block(line: str, ask: Callable[[bool], str]) -> str:
    """The lines up to the closing mark; a mark that stands alone on its line adds no empty line."""
    lines = [line]
    while not lines[-1].rstrip().endswith(FENCE):
        try:
            lines.append(ask(True))
        except EOFError:
            break
    else:
        lines[-1] = lines[-1].rstrip().removesuffix(FENCE)
        if not lines[-1] and len(lines) > 1:
            lines.pop()
    if not lines[0] and len(lines) > 1:
        lines.pop(0)
    return "\n".join(lines)
