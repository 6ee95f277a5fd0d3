"""Draft tokens without a draft model: the tokens that followed the last occurrence of the same n-gram.

Prompt lookup decoding (Saxena 2023; llama.cpp's lookup, vLLM's n-gram): code and edits repeat themselves. The model
verifies drafts in the pass that computes the next token, so they change the speed and never the result.

The cost of a draft depends on model and processor, so it is measured: the proposer is called before every step, and the
time between two calls is the time of the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

NGRAM = 3  # tokens that must have come before in the same order
COST = 0.4  # of a plain step, that each guessed token is thought to add until it was measured
ALLOWANCE = 0.03  # of all steps that guessing may lose in the long run
CAP = 10.0  # what past success counts for at most
FRESH = 0.2  # weight of the newest time
PATIENCE = 4  # nothing repeated for this many times the skipped tokens
FOREIGN = 4.0  # times a plain step; longer ones hold others' prompts, too


class NgramProposer:
    """Proposes drafts for one sequence, and stops while drafts cost more than they gain."""

    def __init__(self, length: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """`length`: the number of tokens of a draft, which the backend states (`Model.draft_tokens`)."""
        self._length = length
        self._seen: dict[tuple[int, ...], int] = {}  # where the continuation of each n-gram begins, latest first
        self._indexed = 0
        self._balance = COST * length  # steps gained less steps spent; at first, one guess may be lost
        self._guess: list[int] = []
        self._from = 0  # tokens there were when it was last asked
        self._matched = 0  # and when they had last come up before
        self._clock, self._asked = clock, 0.0
        self._plain = 0.0  # seconds of a step without a guess; 0: not known yet
        self._cost = COST  # of a guessed token, in plain steps

    def __call__(self, ids: list[int], most: int) -> list[int]:
        """At most `most` tokens that may follow `ids`; none if the n-gram is new or drafts do not pay.

        The first step is always without a draft, as the baseline for later times.
        """
        now = self._clock()
        self._settle(ids, now - self._asked if self._asked else 0.0)
        where = self._find(ids)
        self._guess, self._from, self._asked = [], len(ids), now
        if where or not self._matched:
            self._matched = len(ids)
        if where and self._plain and self._balance >= self._cost * self._length:
            self._guess = ids[where : where + min(self._length, most)]
        return self._guess

    @property
    def rest(self) -> int:
        """Tokens that may be generated before the next call is useful: until the balance allows a draft.

        If nothing has repeated for long, a repetition may be noticed somewhat later.
        """
        missing = self._cost * self._length - self._balance
        return math.ceil(missing / ALLOWANCE) if missing > 0 else (self._from - self._matched) // PATIENCE

    def _settle(self, ids: list[int], seconds: float) -> None:
        """Update the balance: one step for each accepted token, minus the extra time of the drafts."""
        plain = 1 if self._guess else max(1, len(ids) - self._from)  # steps without a guess may have been several
        self._balance += ALLOWANCE * plain
        if self._guess:
            self._balance += self._right(ids) - self._spent(seconds) * len(self._guess)
        elif seconds and (not self._plain or seconds < FOREIGN * self._plain * plain):
            self._plain += (FRESH if self._plain else 1.0) * (seconds / plain - self._plain)
        self._balance = min(self._balance, CAP)

    def _spent(self, seconds: float) -> float:
        """The cost of each token of the last draft, in steps; the earlier estimate if this step's time says nothing."""
        if seconds > FOREIGN * self._plain:
            return self._cost
        measured = max(seconds / self._plain - 1.0, 0.0) / len(self._guess)
        self._cost += FRESH * (measured - self._cost)
        return measured

    def _right(self, ids: list[int]) -> int:
        """The number of steps that the last draft saved."""
        right = 0
        for guessed, came in zip(self._guess, ids[self._from :], strict=False):
            if guessed != came:
                break
            right += 1
        return min(right, len(ids) - self._from - 1)

    def _find(self, ids: list[int]) -> int:
        """The position after the last occurrence of the final n-gram; 0 if it is new."""
        for end in range(max(self._indexed, NGRAM), len(ids)):
            self._seen[tuple(ids[end - NGRAM : end])] = end
        self._indexed = max(self._indexed, len(ids))
        return self._seen.get(tuple(ids[-NGRAM:]), 0)
