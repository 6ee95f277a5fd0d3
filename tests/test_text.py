from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ternrun.text import StopMatcher


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    for end in range(1, len(text) + 1):
        hits = [stop for stop in stops if text[:end].endswith(stop)]
        if hits:
            return text[: end - max(map(len, hits))], True
    return text, False


def held_longer_than_needed(text: str, stops: list[str]) -> str:
    """What no continuation could turn into part of a stop string."""
    held = max((n for stop in stops for n in range(len(stop)) if text.endswith(stop[:n])), default=0)
    return text[: len(text) - held]


few = st.text("ab", min_size=1, max_size=5)


@settings(max_examples=500, derandomize=True, deadline=None)
@given(pieces=st.lists(st.text("abc", max_size=4), max_size=12), stops=st.lists(few, max_size=4))
def test_equals_a_search_of_the_whole_text(pieces: list[str], stops: list[str]) -> None:
    matcher, out, seen, stopped = StopMatcher(stops), "", "", False
    for piece in pieces:
        seen += piece
        text, stopped = matcher.push(piece)
        out += text
        if stopped:
            break
        assert out == held_longer_than_needed(seen, stops)  # nothing is held back without need, nothing let out early
    if not stopped:
        out += matcher.flush()
    assert (out, stopped) == naive("".join(pieces), stops)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    pieces=st.lists(st.text("abc", max_size=4), max_size=12),
    stops=st.lists(few, min_size=1, max_size=4),
    least=st.integers(0, 6),
    include=st.booleans(),
)
def test_the_first_pieces_pass_and_the_stop_string_may_stay(
    pieces: list[str], stops: list[str], least: int, include: bool
) -> None:
    matcher, out, stopped = StopMatcher(stops, least=least, include=include), "", False
    for piece in pieces:
        text, stopped = matcher.push(piece)
        out += text
        if stopped:
            break
    out += "" if stopped else matcher.flush()
    first = "".join(pieces[:least])
    want, ended = naive("".join(pieces[least:]), stops)
    assert (out, stopped) == (first + want + (matcher.found if include else ""), ended)
    assert bool(matcher.found) == ended
    if ended:
        assert (first + want + matcher.found) == "".join(pieces)[: len(first + want + matcher.found)]


@pytest.mark.parametrize("stop", ["a" * 1023 + "b", "ab" * 512])
def test_hostile_stop_strings_take_linear_time(stop: str) -> None:
    matcher = StopMatcher([stop] * 64)
    start = time.process_time()
    for _ in range(256):
        matcher.push("aaaa")
    assert time.process_time() - start < 2
