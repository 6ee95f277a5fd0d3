"""Pools the hidden states of a text's tokens to one vector, over as many steps as the text takes."""

from __future__ import annotations

from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.runtime.engine.request import Request, Sequence


def pooled(request: Request) -> range:
    """The positions whose hidden states are needed."""
    n = len(request.ids)
    return {"cls": range(1), "last": range(n - 1, n)}.get(str(request.pooling), range(n))


def add_states(sequence: Sequence, rows: Items[NDArray[np.float32]], *, first: bool) -> None:
    """Add the states (dim,) of the next positions. `first`: the text begins, possibly again after preemption."""
    if first:
        sequence.hidden.clear()
    if sequence.request.pooling != "mean":
        sequence.hidden += [row.copy() for row in rows]  # the backend uses its buffer again
        return
    for row in rows:  # one by one, so that the size of the chunks does not show in the result
        if sequence.hidden:
            sequence.hidden[0] += row
        else:
            sequence.hidden.append(row.astype(np.float64))


def embedding_of(sequence: Sequence) -> NDArray[np.float32]:
    """The vector (dim,), or (tokens, dim) without pooling. Raises LoadError if a state is not finite."""
    states = np.stack(sequence.hidden)
    if sequence.request.pooling == "mean":
        states = states / len(sequence.request.ids)
    if not np.isfinite(states).all():
        raise LoadError("the model computed hidden states that are not numbers: its weights are damaged, or overflow")
    return (states if sequence.request.pooling == "none" else states[0]).astype(np.float32)
