"""The sampling settings of a request as llama.cpp's server reports them."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ternrun.runtime.config import SamplingParams
from ternrun.server.fields.llamacpp_sampling import SAMPLING
from ternrun.server.fields.sampling_params import UNLIMITED

if TYPE_CHECKING:
    from ternrun.api import Model


def settings(model: Model, params: SamplingParams) -> dict[str, Any]:
    """The sampling of a request, under llama.cpp's names."""
    named = {name: value for name, value in asdict(params).items() if name in SAMPLING}
    banned = dict.fromkeys(model.tokenizer.eos_ids, -math.inf) if params.ignore_eos else {}
    biases = {**dict(params.logit_bias), **banned}
    bias = [{"id": i, "bias": value if value > -math.inf else None} for i, value in biases.items()]
    limit = -1 if params.max_tokens == UNLIMITED else params.max_tokens
    return named | {"n_predict": limit, "n_ctx": model.context, "logit_bias": bias, "n_probs": params.logprobs or 0}
