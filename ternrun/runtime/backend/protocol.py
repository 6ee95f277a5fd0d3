"""The interface of a backend: it loads weights once and then runs batches of tokens.

A backend knows tensors, positions and cache blocks. It knows nothing of text, requests or sampling.
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
    """T tokens of up to S sequences for one step. The tokens of a sequence are in order of position.

    The backend writes keys and values to the cache at (block_tables[slots[t]][positions[t] // block_size], positions[t]
    % block_size). This or an earlier step must write every earlier position of the sequence. A token's result does not
    depend on the other tokens of the batch.

    The fields are lists, because most steps have few tokens, and a loop over them ends before numpy starts.
    """

    tokens: list[int]  # T
    positions: list[int]  # T
    slots: list[int]  # T: which of block_tables each token belongs to
    block_tables: list[NDArray[np.int32]]  # S, each (blocks a sequence may reach,); one that is read-only never changes
    outputs: list[int]  # n tokens of this batch whose results are wanted, ascending
    top_logits: list[int] | None = None  # n: how many of its largest logits each output needs; None or 0: all


class SparseLogits(Protocol):
    """A row of logits that holds only those that can be among the largest. All others count as -inf."""

    best: int  # id of the largest logit, the lowest id among equals; -1 if no logit is finite

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
        """Run the batch, one token of each sequence, then continue with the largest logits: `steps` steps in all.

        Returns the chosen tokens of each sequence, in order, equally many. Ends after a step that chose one of `stops`,
        and before a step whose logits are not finite. The lists are empty if the model is not ready for this. Block
        tables must cover all tokens.
        """
        ...

    def embed(self, batch: Batch) -> NDArray[np.float32]:
        """Run the batch; returns final-norm hidden states (n, dim), a buffer that the next call overwrites."""
        ...

    def close(self) -> None:
        """Stop worker threads and free memory; the model is unusable afterwards."""
        ...


class Backend(Protocol):
    """The module of a device, such as `ternrun.runtime.cpu`."""

    name: str

    def load(
        self, weights: Weights, engine: EngineConfig, progress: ProgressCallback | None = None, idle: Idle | None = None
    ) -> Model:
        """Load weights. `progress` is called for each compiled kernel, which happens once on a machine.

        `idle` is called once, when the rest of the work needs no Python, so that a thread started there disturbs
        nobody. Raises LoadError for weights that this backend cannot run, and MissingExtra if its package is absent.
        """
        ...
