"""The engine's view of a grammar: the set of allowed next tokens, which follows the accepted ones."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Constraint(Protocol):
    """The constraint of one sequence. Computing the set may take long, so it runs elsewhere.

    The engine asks whether it is ready and runs other sequences until it is.
    """

    def ready(self, wait: float = 0.0) -> bool:
        """Whether `allowed` can answer, after at most `wait` seconds. The first call starts the work. Never raises."""
        ...

    def allowed(self) -> NDArray[np.bool_] | None:
        """The mask (vocab_size,) of allowed tokens, including end tokens if the text may end; None if it must end.

        Call it only when `ready`. Raises UsageError if the grammar has no continuation or is too costly.
        """
        ...

    def accept(self, token: int) -> None:
        """Accept a token and start computing what may follow it. Never raises."""
        ...

    def close(self) -> None:
        """End the sequence. A second call does nothing; a call before any other is fine."""
        ...
