"""What the engine asks of a device: load weights once, then run batches of tokens through them.

A backend knows tensors, positions and cache blocks; it knows nothing of text, requests or sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.config import EngineConfig, ModelConfig
from ternrun.runtime.weights import Weights

Progress = Callable[[int, int], None]  # how many are done, of how many
Idle = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """T tokens of up to S sequences, run in one step; a sequence's tokens stand in order of position.

    Their keys and values are written to the cache at (block_tables[slots[t], positions[t] // block_size],
    positions[t] % block_size); every earlier position of that sequence must have been written by this or an
    earlier step. Results do not depend on what else is in the batch.
    """

    tokens: NDArray[np.int32]  # (T,)
    positions: NDArray[np.int32]  # (T,)
    slots: NDArray[np.int32]  # (T,) row of block_tables each token belongs to
    block_tables: NDArray[np.int32]  # (S, blocks a sequence may reach)
    outputs: NDArray[np.int32]  # (n,) tokens of this batch whose results are wanted, ascending
    keep: NDArray[np.int32] | None = None  # (n,) how many of its largest logits each output needs; None or 0: all


class Model(Protocol):
    """Loaded weights with a KV cache of `n_blocks` blocks of `block_size` tokens."""

    config: ModelConfig
    engine: EngineConfig
    block_size: int
    n_blocks: int
    description: str  # what was chosen and why, for people

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """Run the batch; returns logits (n, vocab_size), a buffer that the next call overwrites.

        A logit that is not among the `keep` largest may be -inf instead; those that are hold what they always would.
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
        self, weights: Weights, engine: EngineConfig, progress: Progress | None = None, idle: Idle | None = None
    ) -> Model:
        """`progress` hears of kernels that have to be compiled first, which happens once on a machine.

        `idle` is called once, when what is left to do needs no Python: a thread started there gets in nobody's way.
        Raises LoadError for weights this backend cannot run, MissingExtra where its package is absent.
        """
        ...
