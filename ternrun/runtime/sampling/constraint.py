"""What a grammar is to the engine: a set of tokens that may come next, and somebody who is told which one came."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Constraint(Protocol):
    """One sequence's. Working the set out may take long, so it happens elsewhere: the engine asks whether it is ready,
    and runs other sequences until it is."""

    def ready(self, wait: float = 0.0) -> bool:
        """Whether `allowed` can tell, within `wait` seconds. The first call begins the work. Never raises."""
        ...

    def allowed(self) -> NDArray[np.bool_] | None:
        """(vocab_size,) tokens that may come next, end tokens included where the text may end; None where it must.

        Only to be called when `ready`. Raises UsageError where the grammar leads nowhere or is too costly.
        """
        ...

    def accept(self, token: int) -> None:
        """That token came. What may come after it is worked out from now on. Never raises."""
        ...

    def close(self) -> None:
        """The sequence has ended. May be called twice, and before anything else."""
        ...
