"""Fields that clients of other servers send and that this server does not act upon.

A *hint* influences how an answer is made, and the answer is right without it. A *constraint* states what an answer must
be, so an answer without it would be wrong, and it is refused. Unknown fields count as hints. Each name lists the values
that ask for nothing, which are always accepted. `HARMLESS` marks a hint that changes no answer on any server; strict
servers accept it too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Kind = dict[str, tuple[Any, ...]]

HARMLESS: tuple[Any, ...] = (object(),)
ELSEWHERE: tuple[Any, ...] = (object(),)  # it has its effect before the table is read: it is no hint


def _harmless(names: Iterable[str]) -> Kind:
    return dict.fromkeys(names, HARMLESS)


INNER_HINTS = frozenset((  # keys of messages, parts and tools that change no answer on any server
    "cache_control", "reasoning", "reasoning_details", "annotations", "citations", "refusal", "status", "index",
    "title", "eager_input_streaming", "defer_loading", "input_examples",
))  # fmt: skip

ACCOUNTS = _harmless((  # whose request it is, where it is kept, what it costs
    "user", "metadata", "client_metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "prediction", "cache_prompt", "request_id", "cache_salt", "priority", "timeout",
))  # fmt: skip

MODEL: Kind = {"model": ELSEWHERE, "user": HARMLESS}
LLAMA_IDLE = _harmless(("timings_per_token", "backend_sampling"))  # where llama.cpp runs, and what it tells of that

LLAMA_HINTS: Kind = {
    **LLAMA_IDLE, **MODEL, **_harmless(("cache_prompt",)),
    "reasoning_format": ("none", "auto"), "reasoning_budget": (), "reasoning_in_content": (False,),
    "thinking_forced_open": (False,), "speculative.n_max": (), "speculative.n_min": (), "speculative.p_min": (),
    "chat_format": (), "parse_tool_calls": (), "n_cache_reuse": (0,), "n_probs_top": (),
}  # fmt: skip
LLAMA_CONSTRAINTS: Kind = {
    "n_indent": (0,), "lora": ([],), "image_data": ([],), "multimodal_data": ([],), "grammar_lazy": (False,),
    "preserved_tokens": ([],), "grammar_triggers": ([],),
}  # fmt: skip

VLLM_HINTS: Kind = {
    "length_penalty": (1, 1.0), "early_stopping": (False,), "spaces_between_special_tokens": (True,),
    "mm_processor_kwargs": ({},), "vllm_xargs": ({},), "guided_decoding_backend": (), "guided_whitespace_pattern": (),
    "include_reasoning": (True,),
}  # fmt: skip
VLLM_CONSTRAINTS: Kind = {
    "use_beam_search": (False,), "logits_processors": ([],), "kv_transfer_params": ({},), "prompt_embeds": ([],),
    "logprob_token_ids": ([],), "truncate_prompt_tokens": (-1,), "repetition_detection": (),
}  # fmt: skip

OPENAI_HINTS: Kind = {**ACCOUNTS, **LLAMA_HINTS, **VLLM_HINTS}
OPENAI_HINTS.pop("model")
OPENAI_CONSTRAINTS: Kind = {**LLAMA_CONSTRAINTS, **VLLM_CONSTRAINTS}

TEMPLATE_CONSTRAINTS: Kind = {"documents": ([],), "chat_template": ("",)}

CHAT_HINTS: Kind = {
    **OPENAI_HINTS, "reasoning_effort": ("none",), "reasoning": ({},), "verbosity": ("medium",), "thinking": (),
    "thinking_budget": (), "enable_thinking": (False,), "web_search_options": ({},), "include": ([],),
    "moderation": (),
}  # fmt: skip
CHAT_CONSTRAINTS: Kind = {
    **OPENAI_CONSTRAINTS, "add_special_tokens": (False,), "echo": (False,), "best_of": (1,), "suffix": ("",),
    "functions": ([],), "function_call": ("none", "auto"), "modalities": (["text"],), "audio": (),
    **TEMPLATE_CONSTRAINTS, "prompt": (),
}  # fmt: skip

RESPONSES_HINTS: Kind = {
    **ACCOUNTS, "reasoning": ({},), "include": ([],), "truncation": ("disabled",), "max_tool_calls": (),
    "context_management": ([],), "top_logprobs": (0,), "stream_options": HARMLESS, "moderation": (),
}  # fmt: skip
RESPONSES_CONSTRAINTS: Kind = {
    "previous_response_id": (), "conversation": (), "background": (False,), "prompt": (), "modalities": (["text"],),
    "audio": (),
}  # fmt: skip

ANTHROPIC_HINTS: Kind = {
    **_harmless(("metadata", "service_tier", "anthropic_version", "anthropic_beta", "betas", "inference_geo", "speed",
                 "user_profile_id")),
    "thinking": ({"type": "disabled"},), "context_management": ({},), "cache_control": (),
    "container": (),
}  # fmt: skip

ANTHROPIC_CONSTRAINTS: Kind = {"mcp_servers": ([],)}

OLLAMA_HINTS: Kind = {**_harmless(("keep_alive",)), "think": (False,), "shift": (True,), "truncate": (True,)}
OLLAMA_CONSTRAINTS: Kind = {"images": ([],), "logprobs": (False,), "top_logprobs": (0,)}
OLLAMA_TEXT_CONSTRAINTS: Kind = {**OLLAMA_CONSTRAINTS, "template": ("",), "context": ([],)}
OLLAMA_RUNNER: Kind = {  # what the server was started with decides
    **_harmless(("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "use_mlock", "numa",
                 "low_vram", "f16_kv", "vocab_only", "draft_num_predict")),
    "num_keep": (0,), "tfs_z": (1, 1.0), "penalize_newline": (True, False), "logits_all": (False,),
}  # fmt: skip

OLLAMA_EMBED_HINTS = _harmless(("keep_alive", "options"))
OLLAMA_SHOW_HINTS: Kind = {**_harmless(("options",)), "system": ("",), "template": ("",)}

TGI_HINTS: Kind = {"watermark": (False,), "return_tensors": ()}
TGI_CONSTRAINTS: Kind = {"best_of": (1,), "adapter_id": ()}
