"""Drafts without a draft model: what followed the last time the same tokens came up, in the prompt or the output.

Prompt-lookup decoding (Saxena 2023; llama.cpp's lookup, vLLM's n-gram): code and edits repeat themselves. A guess is
verified in the same pass that computes the next token, so it changes the speed, never the result.
"""

from __future__ import annotations

NGRAM = 3  # tokens that must have come before in the same order
LENGTH = 4  # tokens of a guess; with the token before them they make one tile of the kernels and one token more
COST = 0.3  # of a plain step, that each guessed token adds (measured: docs/performance.md)
ALLOWANCE = 0.03  # of all steps that guessing may lose in the long run
START = COST * LENGTH  # steps that may be lost before the first success: one guess
CAP = 10.0  # what past success counts for at most


class Lookup:
    """The drafter of one sequence: told all its tokens at every step, it keeps account of what guessing gained."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, ...], int] = {}  # where the continuation of each n-gram begins, latest first
        self._indexed = 0
        self._balance = START  # steps gained less steps spent
        self._guess: list[int] = []
        self._from = 0

    def __call__(self, ids: list[int], most: int) -> list[int]:
        """At most `most` tokens that may follow `ids`; none where nothing is known or guessing does not pay."""
        self._settle(ids)
        where = self._find(ids)
        self._guess, self._from = [], len(ids)
        if where and self._balance >= COST * LENGTH:
            self._guess = ids[where : where + min(LENGTH, most)]
        return self._guess

    def _settle(self, ids: list[int]) -> None:
        """Book the last guess: a step for each token that came true, less what computing all of it cost."""
        right = 0
        for guessed, came in zip(self._guess, ids[self._from :], strict=False):
            if guessed != came:
                break
            right += 1
        gained = min(right, len(ids) - self._from - 1) if self._guess else 0
        self._balance += gained - COST * len(self._guess) + ALLOWANCE
        self._balance = min(self._balance, CAP)

    def _find(self, ids: list[int]) -> int:
        """Where the last tokens occurred before, just behind them; 0 where they did not."""
        for end in range(max(self._indexed, NGRAM), len(ids)):
            self._seen[tuple(ids[end - NGRAM : end])] = end
        self._indexed = max(self._indexed, len(ids))
        return self._seen.get(tuple(ids[-NGRAM:]), 0)
