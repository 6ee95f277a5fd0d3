"""Fields of other servers that this one has not: refused, unless they hold a value that asks for nothing.

Clients made for those servers send them so with every request.
"""

from __future__ import annotations

from typing import Any

Unsupported = dict[str, tuple[Any, ...]]  # name -> values that ask for nothing

LLAMA: Unsupported = {  # llama.cpp's samplers, on its own routes and on OpenAI's
    "dynatemp_range": (0, 0.0), "dynatemp_exponent": (1, 1.0), "xtc_probability": (0, 0.0),
    "xtc_threshold": (0.1,), "dry_multiplier": (0, 0.0), "dry_base": (1.75,), "dry_allowed_length": (2,),
    "dry_penalty_last_n": (-1,), "dry_sequence_breakers": (), "mirostat": (0,), "mirostat_tau": (5, 5.0),
    "mirostat_eta": (0.1,), "top_n_sigma": (-1, -1.0), "min_keep": (0,), "samplers": (),
}  # fmt: skip

VLLM: Unsupported = {
    "min_tokens": (0,), "use_beam_search": (False,), "length_penalty": (1, 1.0), "early_stopping": (False,),
    "include_stop_str_in_output": (False,), "skip_special_tokens": (True,), "spaces_between_special_tokens": (True,),
    "bad_words": ([],), "return_token_ids": (False,), "return_tokens_as_token_ids": (False,), "priority": (0,),
}  # fmt: skip
