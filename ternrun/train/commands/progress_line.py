"""What a command tells while it works: a line on standard error, for standard output holds results alone."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print one line at once."""
    print(text, file=sys.stderr, flush=True)
