"""Copies keys and values out of a running engine's cache and into it: whole blocks of a prefix of token ids.

Published blocks never change, and unpublished ones have no reader. So only taking and releasing blocks runs between two
steps of the engine; copying runs beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import UsageError
from ternrun.runtime.backend.protocol import CacheBlocks
from ternrun.runtime.engine.driver import Driver
from ternrun.runtime.engine.engine import Engine
from ternrun.runtime.kv_cache import BlockTable


class Blocks(NamedTuple):
    """n cache blocks, in order, with the keys and values of `tokens` tokens."""

    cache: CacheBlocks
    row: NDArray[np.int32]  # (n,)
    tokens: int

    def read(self, layer: int) -> NDArray[np.uint8]:
        """A copy (n, bytes of a block) of one layer's blocks."""
        return self.cache.read(layer, self.row)

    def write(self, layer: int, data: NDArray[np.uint8]) -> None:
        """Replace one layer's blocks by `data` (n, bytes of a block)."""
        self.cache.write(layer, self.row, data)


@contextmanager
def cached_blocks(driver: Driver, ids: Sequence[int]) -> Iterator[Blocks]:
    """The blocks that the cache has of a prefix of `ids`, for reading; possibly none. Raises UsageError."""
    with _given_back(driver, driver.call(lambda engine: engine.cache.find(ids))) as blocks:
        yield blocks


@contextmanager
def new_blocks(driver: Driver, ids: Sequence[int]) -> Iterator[Blocks]:
    """Blocks for all of `ids`, which fill them, for writing. The cache publishes them if the block ends without an
    error.

    Raises UsageError if they do not fit.
    """

    def take(engine: Engine) -> BlockTable:
        table = engine.cache.table()
        if len(ids) > engine.context or not engine.cache.extend(table, len(ids)):
            raise UsageError(f"the cache has no room for {len(ids)} tokens more")
        return table

    table = driver.call(take)
    with _given_back(driver, table) as blocks:
        yield blocks
        driver.call(lambda engine: engine.cache.publish(table, ids, len(ids)))


@contextmanager
def _given_back(driver: Driver, table: BlockTable) -> Iterator[Blocks]:
    model = driver.engine.model
    assert model.cache_blocks is not None
    try:
        yield Blocks(model.cache_blocks, table.row[: table.count], table.count * model.block_size)
    finally:
        with suppress(UsageError):  # closed: the cache is gone
            driver.call(lambda engine: engine.cache.release(table))
