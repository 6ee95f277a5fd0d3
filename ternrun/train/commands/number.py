"""Whole numbers on a command line, refused where they are too small to mean anything."""

from __future__ import annotations

from argparse import ArgumentTypeError


def natural(text: str) -> int:
    """A whole number from 0."""
    return _from(0, text)


def positive(text: str) -> int:
    """A whole number from 1."""
    return _from(1, text)


def _from(low: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if number < low:
        raise ArgumentTypeError(f"{text!r} is not a whole number from {low}")
    return number
