"""Lookup drafts: what they guess, and that they stop where guessing does not pay."""

from __future__ import annotations

import random

import pytest

from ternrun.runtime.ngram_proposer import ALLOWANCE, CAP, COST, NGRAM, NgramProposer

LENGTH = 3  # tokens of a guess
START = COST * LENGTH  # steps that may be lost before the first success


def guess(ids: list[int], most: int) -> list[int]:
    """What is guessed after a plain step."""
    drafter = NgramProposer(LENGTH)
    assert drafter(ids[:-2], most) == drafter(ids[:-1], 0) == []
    return drafter(ids, most)


def test_what_followed_the_same_tokens_last_time_is_guessed() -> None:
    ids = [1, 2, 3, 4, 5, 6, 7, 9, 1, 2, 3]
    assert guess(ids, 10) == [4, 5, 6]
    assert guess(ids, 2) == [4, 5]
    assert guess([1, 2, 3, 8, 1, 2, 3, 9, 0, 1, 2, 3], 1) == [9]  # the latest place


def test_nothing_known_is_nothing_guessed() -> None:
    assert guess([1, 2, 3, 4], 4) == []
    assert guess([1], 4) == []
    assert guess([1, 2, 3, 1, 2, 3][: NGRAM + 1], 4) == []


class Decoding:
    """A model that says `text` from `start` on: a step takes one second, and `cost` more for each guessed token.

    Every seventh step takes `others` seconds more.
    """

    def __init__(self, text: list[int], start: int, cost: float, others: float = 0.0) -> None:
        self.now, self.steps, self.guessed = 1.0, 0, 0
        drafter, at = NgramProposer(LENGTH, lambda: self.now), start
        while at < len(text):
            guessed = drafter(text[:at], LENGTH)
            self.now += 1.0 + cost * len(guessed) + (0.0 if self.steps % 7 else others)
            self.steps += 1
            self.guessed += len(guessed)
            at += 1 + agreeing(guessed, text[at:])
        self.seconds, self.tokens = self.now - 1.0, len(text) - start


def agreeing(guess: list[int], text: list[int]) -> int:
    return next((i for i, (g, t) in enumerate(zip(guess, text, strict=False)) if g != t), min(len(guess), len(text)))


def test_a_text_that_repeats_takes_fewer_steps() -> None:
    text = list(range(100, 140)) * 6
    assert Decoding(text, 50, cost=0.3).steps < 190 / 3


@pytest.mark.parametrize("cost", [0.1, 0.4, 0.7, 0.95])
def test_guesses_that_fail_cost_no_more_than_is_allowed(cost: float) -> None:
    rng = random.Random(0)
    text = [rng.randrange(3) for _ in range(4000)]  # every n-gram has come up, and says nothing of what follows
    done = Decoding(text, 50, cost)
    assert done.seconds <= (1 + ALLOWANCE) * done.tokens + START + LENGTH * cost
    assert done.guessed


@pytest.mark.parametrize("cost", [0.1, 0.7])
def test_what_a_guess_costs_is_measured(cost: float) -> None:
    """Every other guess comes true to a half, which pays where it is cheap."""
    rng = random.Random(1)
    text = [t for _ in range(400) for t in (1, 2, 3, 4, rng.randrange(5, 30), rng.randrange(5, 30))]
    done = Decoding(text, 60, cost)
    assert done.seconds <= (1 + ALLOWANCE) * done.tokens + CAP
    assert (done.guessed > done.tokens / 3) == (cost < 0.3)


def test_steps_that_held_another_s_prompt_are_not_the_measure() -> None:
    text = list(range(100, 140)) * 6
    alone, beside = (Decoding(text, 50, 0.3, others) for others in (0.0, 500.0))
    assert beside.guessed == alone.guessed > 100
