"""Both in double precision: the torch model, and the numpy reference on its exported file.

In float32 the last bit of a sum decides now and then to which int8 value an activation is rounded, and two right
programs part there. In float64 that happens a billion times more seldom: what differs then, differs in meaning.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from ternrun.runtime.weights import Weights
from ternrun.train.model.decoder import Decoder
from tests import reference


@torch.no_grad()
def torch_double(model: Decoder, ids: NDArray[Any]) -> NDArray[np.float64]:
    """(T, V) of one sequence of ids (T,); parameters, and what files hold of them, stay float32."""
    batch = torch.from_numpy(ids.astype(np.int64))[None]
    with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        logits: NDArray[np.float64] = model.logits(batch, torch.float64)[0].numpy()
    return logits


def reference_double(weights: Weights, ids: NDArray[Any]) -> NDArray[np.float64]:
    """(T, V) of one sequence of ids (T,)."""
    with mock.patch.object(reference, "REAL", np.float64):
        return reference.forward(weights, ids, kv="f32").astype(np.float64)
