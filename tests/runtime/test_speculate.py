"""Lookup drafts: what they guess, and that they stop where guessing does not pay."""

from __future__ import annotations

import random

from ternrun.runtime.speculate import ALLOWANCE, COST, LENGTH, NGRAM, START, Lookup


def test_what_followed_the_same_tokens_last_time_is_guessed() -> None:
    ids = [1, 2, 3, 4, 5, 6, 7, 9, 1, 2, 3]
    assert Lookup()(ids, 10) == [4, 5, 6, 7]
    assert Lookup()(ids, 2) == [4, 5]
    assert Lookup()([1, 2, 3, 8, 1, 2, 3, 9, 0, 1, 2, 3], 1) == [9]  # the latest place


def test_nothing_known_is_nothing_guessed() -> None:
    assert Lookup()([1, 2, 3, 4], 4) == []
    assert Lookup()([1], 4) == []
    assert Lookup()([1, 2, 3, 1, 2, 3][: NGRAM + 1], 4) == []


def test_a_text_that_repeats_takes_fewer_steps() -> None:
    text = list(range(100, 140)) * 6
    assert steps(text[:50], text) < 190 / 3


def test_guesses_that_fail_cost_no_more_than_is_allowed() -> None:
    rng = random.Random(0)
    text = [rng.randrange(3) for _ in range(4000)]  # every n-gram has come up, and says nothing of what follows
    drafter, at, lost, taken = Lookup(), 50, 0.0, 0
    while at < len(text):
        guess = drafter(text[:at], LENGTH)
        right = agreeing(guess, text[at:])
        lost += COST * len(guess) - min(right, len(text) - at - 1)
        at += 1 + right
        taken += 1
    assert lost <= START + ALLOWANCE * taken + COST * LENGTH


def agreeing(guess: list[int], text: list[int]) -> int:
    return next((i for i, (g, t) in enumerate(zip(guess, text, strict=False)) if g != t), min(len(guess), len(text)))


def steps(prompt: list[int], text: list[int]) -> int:
    """Steps that a model which says `text` takes with these guesses."""
    drafter, at, taken = Lookup(), len(prompt), 0
    while at < len(text):
        at += 1 + agreeing(drafter(text[:at], LENGTH), text[at:])
        taken += 1
    return taken
