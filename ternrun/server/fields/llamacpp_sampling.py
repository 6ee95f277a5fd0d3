"""The sampling fields of llama.cpp's own routes, with llama.cpp's defaults."""

from __future__ import annotations

from ternrun.server.fields.reading import (
    boolean,
    integer,
    number,
    optional,
    stop_strings,
    worded_bias,
)
from ternrun.server.fields.sampler_chain import CHAIN
from ternrun.server.fields.sampling import UNLIMITED, Fields

SAMPLING: Fields = {  # llama.cpp's defaults
    "temperature": (number(0, 100), 0.8),
    "top_k": (optional(integer(0, UNLIMITED), -1, 0), 40),
    "top_p": (number(0, 1), 0.95),
    "min_p": (number(0, 1), 0.05),
    "typical_p": (number(0, 1), 1.0),
    "repeat_penalty": (number(0.01, 100), 1.0),
    "repeat_last_n": (integer(-1, UNLIMITED), 64),
    "presence_penalty": (number(-100, 100), 0.0),
    "frequency_penalty": (number(-100, 100), 0.0),
    "seed": (optional(integer(0, 2**64 - 1), -1), None),
    "stop": (stop_strings, ()),
    "ignore_eos": (boolean, False),
    "logit_bias": (worded_bias, ()),
    **CHAIN,
}
