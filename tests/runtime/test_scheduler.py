"""The scheduler without a model: which sequences run, how many tokens of each, and what happens to their blocks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ternrun.runtime.config import SamplingParams
from ternrun.runtime.engine.context_shift import ContextShift
from ternrun.runtime.engine.request import Request, Sequence
from ternrun.runtime.engine.scheduler import FIRST, NONE, Chunk, Scheduler, batch
from ternrun.runtime.kv_cache import KVCache

BLOCK = 4
OF_REQUEST = {"group", "pooling", "prompt_logprobs", "shift"}
TOKEN = 7  # the token that every sequence of these tests generates


class World:
    """A scheduler, its cache, and `step`, which plays the part of the engine and of the model."""

    def __init__(self, *, blocks: int = 64, context: int = 64, max_batch: int = 8, chunk: int = 16, **options: bool):
        self.cache = KVCache(blocks, BLOCK, context)
        self.scheduler = Scheduler(self.cache, max_batch, chunk, **options)
        self.context = context
        self._ids = itertools.count()

    def add(self, ids: list[int], max_tokens: int = 20, **fields: Any) -> Sequence:
        """Queue a sequence. `fields` are those of Request and of Sequence."""
        of_request = {name: fields.pop(name) for name in OF_REQUEST & fields.keys()}
        request = Request(ids, SamplingParams(max_tokens=max_tokens), **of_request)
        sequence = Sequence(
            id=next(self._ids), request=request, table=self.cache.table(), seed=0,
            limit=min(len(ids) + max_tokens, self.context), stops=frozenset(), bias=None, ids=list(ids), **fields,
        )  # fmt: skip
        self.scheduler.waiting.append(sequence)
        return sequence

    def step(self) -> list[Chunk]:
        """Schedule, compute all chunks and accept TOKEN where one is sampled. Drafts are always wrong."""
        chunks = self.scheduler.schedule()
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.computed = chunk.start + len(chunk.tokens) - chunk.drafted
            reason = sequence.accept(TOKEN) if chunk.sampled else None
            self.cache.publish(sequence.table, sequence.ids, sequence.computed)
            if reason and sequence.shift(self.context):
                self.scheduler.restart(sequence)
            elif reason:
                self.scheduler.remove(sequence)
        return chunks

    def finish(self, steps: int = 1000) -> None:
        """Run until every sequence ends."""
        for _ in range(steps):
            if not (self.scheduler.running or self.scheduler.waiting):
                return
            self.step()
        raise AssertionError("the sequences do not end")


class Unready:
    """A constraint that is ready once `open` is set."""

    def __init__(self) -> None:
        self.open = False
        self.asked = 0

    def ready(self, wait: float = 0.0) -> bool:
        self.asked += 1
        return self.open

    def allowed(self) -> NDArray[np.bool_] | None:
        return None

    def accept(self, token: int) -> None:
        raise AssertionError("the scheduler accepts no tokens")

    def close(self) -> None:
        raise AssertionError("the scheduler closes nothing")


class Draft:
    """Proposes the same token `n` times."""

    def __init__(self, n: int, rest: int = 0) -> None:
        self.n, self.rest = n, rest

    def __call__(self, ids: list[int], most: int) -> list[int]:
        return [1] * min(self.n, most)


def sizes(chunks: list[Chunk]) -> list[tuple[int, int]]:
    """(id, tokens) of each chunk."""
    return [(chunk.sequence.id, len(chunk.tokens)) for chunk in chunks]


# --- chunked prefill ---


def test_prompt_is_split_into_chunks_and_sampled_after_the_last() -> None:
    world = World(chunk=8)
    sequence = world.add(list(range(20)))
    steps = [world.step() for _ in range(4)]
    assert [(c.start, c.tokens, len(c.sampled)) for (c,) in steps] == [
        (0, list(range(8)), 0),
        (8, list(range(8, 16)), 0),
        (16, list(range(16, 20)), 1),
        (20, [TOKEN], 1),
    ]
    assert sequence.ids[20:] == [TOKEN, TOKEN]


def test_decoding_sequences_run_in_every_step_of_a_long_prompt() -> None:
    world = World(chunk=8)
    world.add([1, 2, 3])
    world.step()
    world.add(list(range(24)))
    assert [sizes(world.step()) for _ in range(4)] == [
        [(0, 1), (1, 8)],
        [(0, 1), (1, 8)],
        [(0, 1), (1, 8)],
        [(0, 1), (1, 1)],
    ]


def test_prompts_share_the_chunk_in_order_of_arrival() -> None:
    world = World(chunk=10)
    for i in range(3):
        world.add([i] * 6)
    assert sizes(world.step()) == [(0, 6), (1, 4)]
    assert sizes(world.step()) == [(0, 1), (1, 2), (2, 6)]


def test_step_never_exceeds_chunk_and_one_token_of_each_sequence() -> None:
    world = World(chunk=6, max_batch=4, blocks=32)
    for n in (17, 1, 9, 4, 12):
        world.add([n] * n, 11, draft=Draft(3))
    while world.scheduler.running or world.scheduler.waiting:
        assert sum(n for _, n in sizes(world.step())) <= 6 + 4


def test_whole_prompt_waits_for_a_step_that_has_room_for_it() -> None:
    world = World(chunk=8, whole=True)
    world.add([1] * 6, 0, pooling="mean")
    world.add([2] * 6, 0, pooling="mean")
    assert sizes(world.step()) == [(0, 6)]
    assert sizes(world.scheduler.schedule())[-1] == (1, 6)


def test_scored_positions_are_reported_once() -> None:
    world = World(chunk=4)
    sequence = world.add(list(range(10)), 0, prompt_logprobs=0)
    found: list[int] = []
    for _ in range(3):
        (chunk,) = world.scheduler.schedule()
        found += [chunk.start + i for i in chunk.scored]
        sequence.computed = chunk.start + len(chunk.tokens)
        sequence.scored = chunk.start + chunk.scored.stop
    assert found == list(range(9))  # nothing follows the last token


# --- order of the batch ---


def test_at_most_max_batch_sequences_run_and_the_next_follows_when_one_ends() -> None:
    world = World(max_batch=2)
    for n in (1, 3, 2):
        world.add([n], n)
    assert sizes(world.step()) == [(0, 1), (1, 1)]  # 0 ends here
    assert sizes(world.step()) == [(1, 1), (2, 1)]


def test_prompt_without_room_in_the_cache_keeps_those_behind_it_waiting() -> None:
    world = World(blocks=4)
    world.add([1] * 9, 3)
    world.add([2] * 9)
    world.add([3])
    assert sizes(world.step()) == [(0, 9)]
    assert [s.id for s in world.scheduler.waiting] == [1, 2]
    assert world.cache.available == 1


def test_groups_run_in_turn_and_leave_a_quarter_of_the_places() -> None:
    world = World(max_batch=4)
    first, second = object(), object()
    for group in (first, first, first, first, second):
        world.add([1], group=group)
    world.step()
    assert [s.request.group for s in world.scheduler.running] == [first, second, first, first]
    alone = World(max_batch=4)
    for _ in range(4):
        alone.add([1], group=first)
    assert len(alone.step()) == 3


def test_batch_lists_slots_outputs_and_their_logits() -> None:
    world = World(chunk=8)
    world.add([1, 2, 3], top_logits=1)
    world.step()
    world.add([4, 5, 6], prompt_logprobs=0, top_logits=5)
    made = batch(world.scheduler.schedule())
    assert made.tokens == [TOKEN, 4, 5, 6]
    assert made.positions == [3, 0, 1, 2]
    assert made.slots == [0, 1, 1, 1]
    assert made.outputs == [0, 1, 2, 3]
    assert made.top_logits == [1, 0, 0, 5]  # scores need all logits
    assert [row.tolist() for row in made.block_tables] == [s.table.row.tolist() for s in world.scheduler.running]


# --- preemption and waiting ---


def test_youngest_sequence_gives_its_blocks_and_returns_before_later_ones() -> None:
    world = World(blocks=4, context=16, max_batch=3)
    old, young, late = (world.add([i] * 5, 8) for i in range(3))
    world.step()
    assert [s.id for s in world.scheduler.running] == [0, 1]
    while young in world.scheduler.running:
        world.step()
    assert young.preempted
    assert young.table.count == 0
    assert len(young.ids) > 5  # its tokens stay
    assert list(world.scheduler.waiting) == [young, late]
    assert old in world.scheduler.running
    world.finish()
    assert all(s.ids[5:] == [TOKEN] * 8 for s in (old, young, late))
    assert world.cache.available == 4


def test_sequence_whose_constraint_is_not_ready_waits_and_others_run() -> None:
    world, constraint = World(), Unready()
    world.add([1, 2], constraint=constraint)
    world.add([3, 4])
    assert sizes(world.step()) == [(0, 2), (1, 2)]  # the prompt needs no constraint
    assert constraint.asked  # but starts its work
    assert sizes(world.step()) == [(1, 1)]
    constraint.open = True
    assert sizes(world.step()) == [(0, 1), (1, 1)]


def test_step_is_empty_while_every_sequence_waits_for_its_constraint() -> None:
    world = World()
    sequence = world.add([1, 2], constraint=Unready())
    world.step()
    assert world.step() == []
    assert sequence in world.scheduler.running


@pytest.mark.parametrize("steps", [0, 1])
def test_removed_sequence_frees_its_blocks_whether_it_waits_or_runs(steps: int) -> None:
    world = World(blocks=8)
    sequence = world.add([1] * 9)
    for _ in range(steps):
        world.step()
    world.scheduler.remove(sequence)
    assert not world.scheduler.running
    assert not world.scheduler.waiting
    assert world.cache.available == 8


# --- reuse of prefixes ---


def test_computed_prefix_is_attached_and_not_scheduled_again() -> None:
    world = World()
    world.add(list(range(10)), 1)
    world.step()
    sequence = world.add([*range(10), 11, 12])
    (chunk,) = world.step()
    assert (chunk.start, chunk.tokens) == (8, [8, 9, 11, 12])  # two whole blocks are there
    assert sequence.cached == 8


def test_last_token_of_a_known_prompt_is_computed_again() -> None:
    world = World()
    world.add(list(range(8)), 1)
    world.step()
    world.add(list(range(8)))
    (chunk,) = world.step()
    assert (chunk.start, len(chunk.tokens)) == (4, 4)  # a result is wanted after it


def test_sequence_that_scores_its_prompt_takes_nothing_from_the_cache() -> None:
    world = World()
    world.add(list(range(10)), 1)
    world.step()
    sequence = world.add(list(range(10)), prompt_logprobs=0)
    (chunk,) = world.step()
    assert (chunk.start, sequence.cached) == (0, 0)


def test_two_running_sequences_share_the_blocks_of_their_prefix() -> None:
    world = World(blocks=16)
    world.add(list(range(8)))
    world.step()
    world.add([*range(8), 9])
    world.step()
    first, second = (s.table.row[:2].tolist() for s in world.scheduler.running)
    assert first == second
    assert 16 - world.cache.available == 4  # two in common, one of each


# --- context shift ---


def test_sequence_that_shifts_starts_again_behind_those_that_wait() -> None:
    world = World(blocks=4, context=16, max_batch=1)
    endless = world.add([1] * 8, 100, shift=ContextShift(keep=2))
    while len(endless.ids) < 15:
        world.step()
    other = world.add([2] * 4, 2)
    world.step()  # fills the context
    assert list(world.scheduler.waiting) == [other, endless]
    assert not world.scheduler.running
    assert (endless.computed, endless.dropped, endless.preempted) == (0, 7, False)
    assert endless.ids == [1, 1, *[TOKEN] * 7]
    assert sizes(world.step()) == [(1, 4)]
    world.step()
    (chunk,) = world.step()
    assert chunk.sequence is endless
    assert len(chunk.tokens) + endless.table.published * BLOCK >= 9


def test_tokens_before_the_dropped_ones_come_from_the_cache_after_a_shift() -> None:
    world = World(context=16)
    endless = world.add(list(range(8)), 100, shift=ContextShift(keep=8))
    while not endless.dropped:
        world.step()
    (chunk,) = world.step()
    assert chunk.start == 8
    assert endless.cached == 0  # what the prompt had at first


# --- drafts ---


def test_drafts_follow_the_known_token_and_cost_their_number() -> None:
    world = World(chunk=8)
    world.add([1, 2], draft=Draft(3))
    world.step()
    (chunk,) = world.scheduler.schedule()
    assert (chunk.tokens, chunk.drafted, chunk.sampled) == ([TOKEN, 1, 1, 1], 3, range(4))
    assert chunk.cost == 3


def test_draft_ends_where_the_request_does() -> None:
    world = World()
    world.add([1, 2], 3, draft=Draft(9))
    world.step()
    (chunk,) = world.scheduler.schedule()
    assert chunk.drafted == 1  # of the two tokens that are left, one is sampled anyway


def test_draft_without_room_in_the_cache_is_dropped_and_preempts_nothing() -> None:
    world = World(blocks=2, context=8)
    world.add([1] * 3, 5, draft=Draft(3))
    other = world.add([2] * 3, 5)
    world.step()
    assert [chunk.drafted for chunk in world.scheduler.schedule()] == [0, 0]
    assert other in world.scheduler.running
    world.scheduler.remove(other)  # frees a block
    assert [chunk.drafted for chunk in world.scheduler.schedule()] == [3]


# --- several steps in one call ---


def greedy_pair(**options: Any) -> tuple[World, list[Chunk]]:
    """Two greedy sequences whose prompts are computed, and the chunks of their next step."""
    world = World(**options)
    for i in range(2):
        world.add([i, 2, 3], greedy=True)
    world.step()
    return world, world.scheduler.schedule()


def test_greedy_sequences_may_take_many_steps_and_have_room_for_them() -> None:
    world, chunks = greedy_pair()
    assert world.scheduler.max_multi_steps(chunks, 8) == 8
    assert all(s.table.count * BLOCK >= len(s.ids) + 7 for s in world.scheduler.running)


def test_the_nearest_limit_bounds_the_steps() -> None:
    world, chunks = greedy_pair()
    chunks[1].sequence.limit = len(chunks[1].sequence.ids) + 5
    assert world.scheduler.max_multi_steps(chunks, 8) == 5


def test_a_draft_that_is_due_bounds_the_steps() -> None:
    world, chunks = greedy_pair()
    chunks[0].sequence.draft = Draft(3, rest=4)
    assert world.scheduler.max_multi_steps(chunks, 8) == 4


@pytest.mark.parametrize("what", ["sampled", "scored", "prompt", "waiting for a constraint", "no room"])
def test_single_steps_where_a_decision_or_a_block_is_needed(what: str) -> None:
    world, chunks = greedy_pair(blocks=2 if what == "no room" else 64, context=8 if what == "no room" else 64)
    if what == "sampled":
        chunks[0].sequence.greedy = False
    elif what == "scored":
        chunks[0] = chunks[0]._replace(scored=FIRST)
    elif what == "prompt":
        chunks[0] = chunks[0]._replace(tokens=[1, 2], sampled=NONE)
    elif what == "waiting for a constraint":
        chunks = chunks[:1]
    assert world.scheduler.max_multi_steps(chunks, 4 if what == "no room" else 8) == 1
