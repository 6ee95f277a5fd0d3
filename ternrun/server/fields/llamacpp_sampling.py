"""The sampling fields of llama.cpp's own routes, with llama.cpp's defaults."""

from __future__ import annotations

from ternrun.server.fields.reading import worded_bias
from ternrun.server.fields.sampling_params import CHAIN, Fields, sampling_fields

SAMPLING: Fields = sampling_fields(
    *CHAIN, "typical_p", "repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty", "seed", "stop",
    "ignore_eos", temperature=0.8, top_k=40, top_p=0.95, min_p=0.05,
) | {"logit_bias": (worded_bias, ())}  # fmt: skip
