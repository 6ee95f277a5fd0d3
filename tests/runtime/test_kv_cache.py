"""The block pool against a model of it: nothing leaks, nothing is used twice, nothing wrong is reused."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ternrun.runtime.kv_cache import BlockTable, KVCache

BLOCK = 2
N_BLOCKS = 7
CONTEXT = 8


class Machine(RuleBasedStateMachine):
    """Sequences over three tokens come, grow, publish and go; `written` is what a backend would have in each block."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = KVCache(N_BLOCKS, BLOCK, CONTEXT)
        self.live: list[tuple[BlockTable, list[int], int]] = []  # table, ids, tokens computed
        self.written: dict[tuple[int, int], tuple[int, ...]] = {}  # (block, offset) -> all tokens up to there

    @rule(ids=st.lists(st.integers(0, 2), min_size=1, max_size=CONTEXT), reuse=st.booleans())
    def start(self, ids: list[int], reuse: bool) -> None:
        table, before = self.cache.table(), self.cache.available
        limit = len(ids) - 1 if reuse else 0
        covered = self.cache.attach(table, ids, limit)
        assert covered % BLOCK == 0
        assert covered <= limit
        fits = -(-len(ids) // BLOCK) - table.count <= self.cache.available
        assert self.cache.extend(table, len(ids)) == fits
        if not fits:
            self.cache.release(table)
            assert self.cache.available == before
            return
        self.live.append((table, ids, covered))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), n=st.integers(1, CONTEXT))
    def compute(self, data: st.DataObject, n: int) -> None:
        at = data.draw(st.integers(0, len(self.live) - 1))
        table, ids, done = self.live[at]
        end = min(done + n, len(ids))
        for position in range(done, end):
            self.written[int(table.row[position // BLOCK]), position % BLOCK] = tuple(ids[: position + 1])
        self.cache.publish(table, ids, end)
        self.live[at] = (table, ids, end)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), token=st.integers(0, 2))
    def grow(self, data: st.DataObject, token: int) -> None:
        table, ids, _ = data.draw(st.sampled_from(self.live))
        if len(ids) < CONTEXT and self.cache.extend(table, len(ids) + 1):
            ids.append(token)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        table, _, _ = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        self.cache.release(table)
        assert table.count == 0

    @rule(ids=st.lists(st.integers(0, 2), min_size=1, max_size=CONTEXT))
    def forget(self, ids: list[int]) -> None:
        found, before = self.cache.find(ids), self.cache.available
        known = found.count
        self.cache.release(found)
        gone = self.cache.forget(ids)
        left = self.cache.find(ids)
        assert gone == (known - left.count) * BLOCK
        held = {block for table, _, _ in self.live for block in table.row[: table.count].tolist()}
        assert held.issuperset(left.row[: left.count].tolist())
        self.cache.release(left)
        assert self.cache.available >= before

    @invariant()
    def every_block_is_in_one_place(self) -> None:
        held = Counter(block for table, _, _ in self.live for block in table.row[: table.count].tolist())
        assert len(held) + self.cache.available == N_BLOCKS
        assert all(0 <= block < N_BLOCKS for block in held)
        for table, _, _ in self.live:
            row = table.row[: table.count].tolist()
            assert len(set(row)) == len(row)

    @invariant()
    def every_sequence_reads_its_own_past(self) -> None:
        for table, ids, done in self.live:
            for position in range(done):
                block = int(table.row[position // BLOCK])
                assert self.written[block, position % BLOCK] == tuple(ids[: position + 1])

    def teardown(self) -> None:
        for table, _, _ in self.live:
            self.cache.release(table)
        assert self.cache.available == N_BLOCKS


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True)
TestKVCache = Machine.TestCase


def filled(cache: KVCache, ids: list[int]) -> BlockTable:
    table = cache.table()
    cache.attach(table, ids, len(ids))
    assert cache.extend(table, len(ids))
    cache.publish(table, ids, len(ids))
    return table


def test_a_published_prefix_is_found_by_whole_blocks_only() -> None:
    cache = KVCache(8, 4, 32)
    first = filled(cache, list(range(10)))
    second = cache.table()
    assert cache.attach(second, list(range(10)), 9) == 8
    assert second.row[:2].tolist() == first.row[:2].tolist()
    third = cache.table()
    assert cache.attach(third, list(range(10)), 7) == 4
    fourth = cache.table()
    assert cache.attach(fourth, [9, *range(1, 10)], 9) == 0


def test_a_row_is_replaced_never_changed() -> None:
    cache = KVCache(8, 2, 16)
    table = filled(cache, [1, 2])
    before = table.row
    cache.extend(table, 4)
    assert before.tolist() == [table.row[0], *[0] * 7]
    assert before is not table.row
    with pytest.raises(ValueError, match="read-only"):
        table.row[0] = 1


def test_a_block_is_not_found_without_the_blocks_before_it() -> None:
    cache = KVCache(8, 2, 16)
    filled(cache, [1, 2, 3, 4])
    table = cache.table()
    assert cache.attach(table, [3, 4], 2) == 0
    assert cache.attach(table, [9, 9, 3, 4], 4) == 0


def test_the_least_recently_used_chain_goes_first_and_from_its_end() -> None:
    cache = KVCache(4, 2, 8)
    old, new = [1, 1, 1, 1], [2, 2, 2, 2]
    for ids in (old, new):
        cache.release(filled(cache, ids))
    assert cache.extend(cache.table(), 2)  # evicts the end of `old`
    assert cache.attach(cache.table(), old, 4) == 2
    assert cache.attach(cache.table(), new, 4) == 4


def test_unpublished_blocks_are_not_reused() -> None:
    cache = KVCache(4, 2, 8)
    table = cache.table()
    assert cache.extend(table, 4)
    cache.release(table)
    assert cache.attach(cache.table(), [0, 0, 0, 0], 4) == 0
