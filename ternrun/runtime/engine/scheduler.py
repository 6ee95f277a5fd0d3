"""Chooses which tokens of which sequences the next step runs.

Sequences are admitted first come, first served. Sequences of one group (one client's list of prompts) never take all
places: among those that wait, the one whose group runs least comes first. A step carries one token of every generating
sequence plus up to `prefill_chunk` prompt tokens, oldest prompt first. A long prompt therefore delays the others by one
chunk per step.

Blocks are taken when they are needed: a prompt's at admission, then one at a time. If no block is left, the youngest
sequence gives its blocks back and waits at the head of the queue. It is computed again later, which costs time and
changes no result. Reserving prompt + max_tokens at admission would be simpler, but most requests end long before their
limit. Nothing deadlocks: the pool holds at least one full context, and the oldest sequence is preempted last. A
sequence that drops its middle waits behind all others (`restart`), because an answer without an end would otherwise
stay the oldest forever.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import NamedTuple

from ternrun.runtime.backend.protocol import Batch
from ternrun.runtime.engine.pooling import pooled
from ternrun.runtime.engine.request import Sequence
from ternrun.runtime.kv_cache import KVCache

NONE, FIRST = range(0), range(1)

STEP_WAIT = 0.002  # seconds that a step may wait for constraints
IDLE_WAIT = 0.01  # when no sequence can run


class Chunk(NamedTuple):
    """Tokens of one sequence in one step, at positions start, start + 1, ...; the last `drafted` of them are drafts.

    `scored` and `sampled` are ranges within the chunk. Results are needed after the tokens at `scored` (for
    log-probabilities or pooling) and at `sampled`.
    """

    sequence: Sequence
    start: int
    tokens: list[int]
    drafted: int
    scored: range
    sampled: range

    @property
    def cost(self) -> int:
        """Tokens beyond the one that every running sequence may add. It keeps a step within chunk + max_batch."""
        return self.drafted if len(self.tokens) - self.drafted == 1 else len(self.tokens)


class Scheduler:
    """The queue, the running sequences and their blocks."""

    def __init__(self, cache: KVCache, max_batch: int, prefill_chunk: int, *, whole: bool = False) -> None:
        """`whole`: the whole prompt of a sequence must be in one step; `prefill_chunk` is large enough."""
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # oldest first
        self._cache = cache
        self._max_batch = max_batch
        self._prefill_chunk = prefill_chunk
        self._whole = whole

    def schedule(self) -> list[Chunk]:
        """The chunks of the next step. The list is empty only if every sequence waits for its constraint."""
        chunks: list[Chunk] = []
        budget = self._prefill_chunk
        unready = self._unready()
        for sequence in tuple(self.running):
            if sequence in unready:
                continue
            if self._hold(sequence) and (budget or sequence.pending == 1):
                chunks.append(self._chunk(sequence, budget))
                budget -= chunks[-1].cost
        while budget and len(self.running) < self._max_batch and (head := self._next()):
            if (self._whole and head.pending > budget) or not self._admit(head):
                break
            chunks.append(self._chunk(self.running[-1], budget))
            budget -= chunks[-1].cost
        if not chunks and unready and unready[0].constraint:
            unready[0].constraint.ready(IDLE_WAIT)
        return chunks

    def max_multi_steps(self, chunks: list[Chunk], most: int) -> int:
        """The number of greedy steps, at most `most`, that these chunks can run without a decision in between.

        Makes room for their tokens. Returns 1 if there is no room or if a sequence needs more than its largest logit.
        """
        if len(chunks) < len(self.running):
            return 1
        for chunk in chunks:
            sequence = chunk.sequence
            if len(chunk.tokens) > 1 or chunk.scored or not (chunk.sampled and sequence.greedy) or sequence.young:
                return 1
            most = min(most, sequence.limit - len(sequence.ids), sequence.draft.rest if sequence.draft else most)
        rooms = (self._cache.extend(c.sequence.table, len(c.sequence.ids) + most - 1) for c in chunks)
        return most if most > 1 and all(rooms) else 1

    def remove(self, sequence: Sequence) -> None:
        """Remove a running or waiting sequence and free its blocks."""
        (self.running if sequence in self.running else self.waiting).remove(sequence)
        self._cache.release(sequence.table)

    def restart(self, sequence: Sequence) -> None:
        """Queue a running sequence again, because its ids changed: behind all that wait, which get its blocks first."""
        self.remove(sequence)
        sequence.table = self._cache.table()
        sequence.preempted = False  # it waits for its turn, not for lost blocks
        self.waiting.append(sequence)

    def _unready(self) -> list[Sequence]:
        """Sequences whose constraint does not know yet which tokens are allowed.

        Waits a little for them, because a missed step costs more.
        """
        asked = [sequence for sequence in self.running if sequence.constraint and sequence.pending == 1]
        end = time.monotonic() + STEP_WAIT if asked else 0.0
        return [s for s in asked if s.constraint and not s.constraint.ready(max(0.0, end - time.monotonic()))]

    def _admit(self, sequence: Sequence) -> bool:
        """Move the head of the queue to the running sequences if there is room for all of its prompt."""
        covered = self._cache.attach(sequence.table, sequence.ids, sequence.reusable)
        if not self._cache.extend(sequence.table, len(sequence.ids)):
            self._cache.release(sequence.table)
            return False
        sequence.computed = covered
        if len(sequence.ids) + sequence.dropped == len(sequence.request.ids):
            sequence.cached = covered
        if sequence.constraint:
            sequence.constraint.ready()  # it begins now, beside the prompt
        self.waiting.remove(sequence)
        self.running.append(sequence)
        return True

    def _next(self) -> Sequence | None:
        """The sequence to admit next: a preempted one, or else the first of those whose group runs least."""
        if not self.waiting or self.waiting[0].preempted:
            return self.waiting[0] if self.waiting else None
        held = Counter(id(s.request.group) for s in self.running if s.request.group is not None)
        most = max(1, self._max_batch * 3 // 4)  # of a group
        fewest = min(((held[id(s.request.group)], i) for i, s in enumerate(self.waiting)), default=(most, 0))
        return self.waiting[fewest[1]] if fewest[0] < most else None

    def _hold(self, sequence: Sequence) -> bool:
        """Make room for the next token by preempting younger sequences. Returns False if the sequence itself is
        preempted.
        """
        while sequence in self.running:
            if self._cache.extend(sequence.table, len(sequence.ids)):
                return True
            youngest = self.running.pop()
            self._cache.release(youngest.table)
            youngest.preempted = True
            self.waiting.appendleft(youngest)
        return False

    def _chunk(self, sequence: Sequence, budget: int) -> Chunk:
        start, ids = sequence.computed, sequence.ids
        known = len(ids)
        plain = sequence.draft is None and sequence.request.prompt_logprobs is None
        if plain and start == known - 1 and known < sequence.limit:
            return Chunk(sequence, start, ids[start:], 0, NONE, FIRST)  # the usual case
        end = min(known, start + max(budget, 1))
        guess = self._guess(sequence, budget) if sequence.pending == 1 else []
        last = known - 1  # the first position whose result is sampled
        score_from, score_to = start, start
        if sequence.request.pooling:
            wanted = pooled(sequence.request)
            score_from = max(start, wanted.start)
            score_to = max(score_from, min(end, wanted.stop))
        elif sequence.request.prompt_logprobs is not None:
            score_from = max(start, sequence.scored)
            score_to = max(score_from, min(end, len(sequence.request.ids) - 1))
        sample_to = end + len(guess) if end == known and known < sequence.limit else last
        return Chunk(
            sequence, start, ids[start:end] + guess, len(guess),
            range(score_from - start, score_to - start), range(last - start, sample_to - start),
        )  # fmt: skip

    def _guess(self, sequence: Sequence, budget: int) -> list[int]:
        """Draft tokens: as many as the request still needs and the cache has room for. Never preempts for drafts."""
        known = len(sequence.ids)
        most = min(sequence.limit - known - 1, budget)
        guess = sequence.draft(sequence.ids, most)[:most] if sequence.draft and most > 0 else []
        return guess if self._cache.extend(sequence.table, known + len(guess)) else []


def batch(chunks: list[Chunk]) -> Batch:
    """The chunks as the backend's `Batch`, one slot for each chunk, in order."""
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    outputs: list[int] = []
    top_logits: list[int] = []
    for slot, chunk in enumerate(chunks):
        first, n = len(tokens), len(chunk.tokens)
        tokens += chunk.tokens
        positions += range(chunk.start, chunk.start + n)
        slots += [slot] * n
        if chunk.scored:  # scoring needs all logits
            outputs += range(first + chunk.scored.start, first + chunk.scored.stop)
            top_logits += [0] * len(chunk.scored)
        outputs += range(first + chunk.sampled.start, first + chunk.sampled.stop)
        top_logits += [chunk.sequence.top_logits] * len(chunk.sampled)
    return Batch(tokens, positions, slots, [chunk.sequence.table.row for chunk in chunks], outputs, top_logits)
