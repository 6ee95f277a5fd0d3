"""The sampling fields of llama.cpp's own routes, with llama.cpp's defaults."""

from __future__ import annotations

from ternrun.server.fields.reading import (
    flag,
    number,
    optional,
    stops,
    whole,
    worded_bias,
)
from ternrun.server.fields.sampler_chain import CHAIN
from ternrun.server.fields.sampling import UNLIMITED, Fields

SAMPLING: Fields = {  # llama.cpp's defaults
    "temperature": (number(0, 100), 0.8),
    "top_k": (optional(whole(0, UNLIMITED), -1, 0), 40),
    "top_p": (number(0, 1), 0.95),
    "min_p": (number(0, 1), 0.05),
    "typical_p": (number(0, 1), 1.0),
    "repeat_penalty": (number(0.01, 100), 1.0),
    "repeat_last_n": (whole(-1, UNLIMITED), 64),
    "presence_penalty": (number(-100, 100), 0.0),
    "frequency_penalty": (number(-100, 100), 0.0),
    "seed": (optional(whole(0, 2**64 - 1), -1), None),
    "stop": (stops, ()),
    "ignore_eos": (flag, False),
    "logit_bias": (worded_bias, ()),
    **CHAIN,
}
