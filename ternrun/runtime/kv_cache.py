"""The block pool: which cache block holds which tokens of which sequence. The backend holds keys and values.

A block is in one of three states: free; referenced by one or more tables; or idle, which means that no table references
it, but its contents are known and can be reused until it is evicted (least recently used first). Full, computed blocks
are published under the digest of all tokens up to their end (a hash chain), so an equal prefix of a later sequence
finds them.

Tables change only through the cache's methods. Assertions guard against wrong use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class BlockTable:
    """The blocks of one sequence: tokens [i * block_size, (i + 1) * block_size) are in block row[i], i < count.

    The array `row` is replaced, never changed, so a copy stays valid.
    """

    row: NDArray[np.int32]  # (blocks a sequence may reach,); 0 from `count` on
    count: int = 0
    published: int = 0  # leading blocks that were found in the cache or offered to it
    digests: list[bytes] = field(default_factory=list)  # of the first full blocks; outlives `release`


class KVCache:
    """The block pool. Not thread-safe: only the engine's thread uses it."""

    def __init__(self, n_blocks: int, block_size: int, tokens_per_sequence: int) -> None:
        self.n_blocks = n_blocks
        self.block_size = block_size
        self._empty = np.zeros(-(-tokens_per_sequence // block_size), np.int32)
        self._empty.setflags(write=False)
        self._free = list(range(n_blocks))[::-1]
        self._references = [0] * n_blocks
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._block: dict[bytes, int] = {}  # digest -> published block
        self._digest: dict[int, bytes] = {}  # the inverse

    @property
    def available(self) -> int:
        """The number of blocks that `extend` can provide now."""
        return len(self._free) + len(self._idle)

    def table(self) -> BlockTable:
        """A new table without blocks."""
        return BlockTable(self._empty)

    def find(self, ids: Sequence[int]) -> BlockTable:
        """A new table with the published blocks of a prefix of `ids`."""
        table = self.table()
        self.attach(table, ids, len(ids))
        return table

    def forget(self, ids: Sequence[int]) -> int:
        """Free the published blocks of a prefix of `ids`. Returns how many tokens they hold.

        Blocks that a sequence references stay.
        """
        table = self.find(ids)
        row = table.row[: table.count].tolist()
        self.release(table)
        forgotten = [block for block in row if block in self._idle]
        for block in forgotten:
            del self._idle[block]
            self._unpublish(block)
        self._free += forgotten
        return len(forgotten) * self.block_size

    def attach(self, table: BlockTable, ids: Sequence[int], limit: int) -> int:
        """Reference the published blocks of a prefix of ids[:limit]. Returns how many tokens they hold.

        The table must be empty. Only whole blocks are reused, so a block with two readers is never written.
        """
        assert table.count == 0
        found: list[int] = []
        for index in range(min(limit, len(ids)) // self.block_size):
            block = self._block.get(self._chain(table, ids, index))
            if block is None:
                break
            self._references[block] += 1
            self._idle.pop(block, None)
            found.append(block)
        self._append(table, found)
        table.published = table.count
        return table.count * self.block_size

    def extend(self, table: BlockTable, n_tokens: int) -> bool:
        """Grow the table to hold n_tokens, evicting idle blocks when no block is free.

        Returns False and changes nothing if too few blocks are available.
        """
        missing = -(-n_tokens // self.block_size) - table.count
        if missing <= 0:
            return True
        if missing > self.available:
            return False
        taken = [self._free.pop() if self._free else self._evict() for _ in range(missing)]
        for block in taken:
            self._references[block] = 1
        self._append(table, taken)
        return True

    def publish(self, table: BlockTable, ids: Sequence[int], n_tokens: int) -> None:
        """Publish the full blocks of the first n_tokens of `ids`. Their keys and values must be written.

        If another sequence published the same tokens first, its block stays the published one.
        """
        full = n_tokens // self.block_size
        assert full <= table.count
        for index in range(table.published, full):
            digest, block = self._chain(table, ids, index), int(table.row[index])
            if digest not in self._block:
                self._block[digest] = block
                self._digest[block] = digest
            table.published = index + 1

    def release(self, table: BlockTable) -> None:
        """Release all blocks of the table, which is empty afterwards.

        Blocks become idle from the last to the first, so that eviction shortens a chain from its end.
        """
        for block in table.row[: table.count][::-1].tolist():
            self._references[block] -= 1
            if self._references[block] == 0:
                if block in self._digest:
                    self._idle[block] = None
                else:
                    self._free.append(block)
        table.row = self._empty
        table.count = table.published = 0

    def _append(self, table: BlockTable, blocks: list[int]) -> None:
        row = table.row.copy()
        row[table.count : table.count + len(blocks)] = blocks
        row.setflags(write=False)
        table.row = row
        table.count += len(blocks)

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)
        self._unpublish(block)
        return block

    def _unpublish(self, block: int) -> None:
        del self._block[self._digest.pop(block)]

    def _chain(self, table: BlockTable, ids: Sequence[int], index: int) -> bytes:
        """The digest of tokens [0, (index + 1) * block_size), kept in the table; 128 bits rule out collisions."""
        size = self.block_size
        while len(table.digests) <= index:
            n = len(table.digests)
            above = table.digests[-1] if n else b""
            tokens = np.array(ids[n * size : (n + 1) * size], np.int32).tobytes()
            table.digests.append(blake2b(above + tokens, digest_size=16).digest())
        return table.digests[index]
