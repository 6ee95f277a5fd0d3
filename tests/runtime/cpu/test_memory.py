"""Memory for kernels: pages gathered into huge ones, in place."""

from __future__ import annotations

import numpy as np

from ternrun.runtime.cpu import memory
from ternrun.runtime.cpu.memory import HUGE, address, collapse_huge_pages, small_pages


def test_neighbours_share_huge_pages() -> None:
    whole = small_pages(6 * HUGE)
    start = -address(whole) % HUGE  # of the first huge page within
    at = address(whole) + start
    third, middle = HUGE // 3, start + HUGE // 3
    parts = [whole[middle : middle + 2 * HUGE], whole[start : start + third], whole[start + 4 * HUGE :][:HUGE]]
    found = memory.huge_page_ranges(parts)
    assert found == [(at, at + 2 * HUGE), (at + 4 * HUGE, at + 5 * HUGE)]


def test_less_than_a_huge_page_stays_as_it_is() -> None:
    assert memory.huge_page_ranges([small_pages(HUGE // 2)]) == []
    assert memory.huge_page_ranges([]) == []


def test_gathered_bytes_are_the_same() -> None:
    data = small_pages(5 * HUGE)
    data[:] = np.random.default_rng(0).integers(0, 256, data.size, np.uint8)
    before = data.copy()
    collapse_huge_pages([data])
    assert np.array_equal(data, before)
    data[7] ^= 1
    assert data[7] != before[7]
