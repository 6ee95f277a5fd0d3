"""What the engine asks of a device: load weights once, then run batches of tokens through them.

A backend knows tensors, positions and cache blocks; it knows nothing of text, requests or sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.config import EngineConfig, ModelConfig
from ternrun.runtime.weights import Weights

ProgressCallback = Callable[[int, int], None]  # how many are done, of how many
Idle = Callable[[], None]


class Batch(NamedTuple):
    """T tokens of up to S sequences, run in one step; a sequence's tokens stand in order of position.

    Their keys and values are written to the cache at (block_tables[slots[t]][positions[t] // block_size],
    positions[t] % block_size); every earlier position of that sequence must have been written by this or an
    earlier step. Results do not depend on what else is in the batch.

    Lists, since most steps have few tokens: numpy would take longer to begin than a loop does.
    """

    tokens: list[int]  # T
    positions: list[int]  # T
    slots: list[int]  # T: which of block_tables each token belongs to
    block_tables: list[NDArray[np.int32]]  # S, each (blocks a sequence may reach,); one that is read-only never changes
    outputs: list[int]  # n tokens of this batch whose results are wanted, ascending
    top_logits: list[int] | None = None  # n: how many of its largest logits each output needs; None or 0: all


class SparseLogits(Protocol):
    """A row of logits of which only those are known that can be among the largest; all others count as -inf."""

    best: int  # id of the largest, the lowest among equals; -1 where there is none, or not a finite number

    def read(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Token ids (n,), ascending, and their logits (n,)."""
        ...

    def full_logits(self) -> NDArray[np.float32]:
        """All logits (vocab_size,)."""
        ...


LogitsRow = NDArray[np.float32] | SparseLogits
LogitsRows = NDArray[np.float32] | Sequence[SparseLogits]  # (n, vocab_size), or n of them


class CacheBlocks(Protocol):
    """Reads and writes the bytes of cache blocks, so that keys and values can be saved and restored.

    Equal tokens have equal bytes in every model of the same weights whose `kind` is equal.
    """

    kind: str
    layers: int
    block_bytes: int  # bytes of one block in one layer

    def read(self, layer: int, blocks: NDArray[np.int32]) -> NDArray[np.uint8]:
        """A copy (n, block_bytes) of n blocks of one layer, in host memory."""
        ...

    def write(self, layer: int, blocks: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Replace n blocks of one layer by `data` (n, block_bytes)."""
        ...


class Model(Protocol):
    """Loaded weights with a KV cache of `n_blocks` blocks of `block_size` tokens."""

    config: ModelConfig
    engine_config: EngineConfig
    block_size: int
    n_blocks: int
    description: str  # what was chosen and why, for people

    draft_tokens: int  # guessed tokens that one sequence verifies at the least cost a token; 0: guessing does not pay

    @property
    def cache_blocks(self) -> CacheBlocks | None:
        """Access to the cache's bytes; None if they cannot be saved."""
        ...

    def forward(self, batch: Batch) -> LogitsRows:
        """Run the batch; returns n rows of logits (vocab_size,), in a buffer that the next call overwrites.

        A row may lack logits that are not among its `top_logits` largest; the others are exact.
        """
        ...

    def decode(self, batch: Batch, steps: int, stops: frozenset[int]) -> list[list[int]]:
        """Run the batch, one token of each sequence, all of them wanted; then go on with the largest logits, `steps`
        times in all. Returns the tokens chosen for each sequence, in its order, equally many.

        It ends after a step that chose one of `stops`, and before one whose logits are not finite numbers; there may be
        none where the model is not ready. Block tables must reach over all the tokens.
        """
        ...

    def embed(self, batch: Batch) -> NDArray[np.float32]:
        """Run the batch; returns final-norm hidden states (n, dim), a buffer that the next call overwrites."""
        ...

    def close(self) -> None:
        """Stop worker threads and free memory; the model is unusable afterwards."""
        ...


class Backend(Protocol):
    """A device's module: `ternrun.runtime.cpu`, `ternrun.runtime.cuda`."""

    name: str

    def load(
        self, weights: Weights, engine: EngineConfig, progress: ProgressCallback | None = None, idle: Idle | None = None
    ) -> Model:
        """`progress` hears of kernels that have to be compiled first, which happens once on a machine.

        `idle` is called once, when what is left to do needs no Python: a thread started there gets in nobody's way.
        Raises LoadError for weights this backend cannot run, MissingExtra where its package is absent.
        """
        ...
