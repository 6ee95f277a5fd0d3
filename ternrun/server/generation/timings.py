"""Timings of one answer, as llama.cpp's server reports them."""

from __future__ import annotations

import time
from typing import Any

from ternrun.server.generation.answer import Answer, Update
from ternrun.server.generation.submission import Answers


def timings(answers: Answers, answer: Answer) -> dict[str, Any]:
    """llama.cpp's timings: milliseconds and tokens per second. Waiting in the queue counts for the prompt."""
    prompt_n, n = len(answer.request.ids) - answer.cached, answer.generated
    prompt_s = (answer.first or time.perf_counter()) - answers.began
    decode_s = answer.last - answer.first
    return {
        "cache_n": answer.cached,
        "prompt_n": prompt_n,
        "prompt_ms": prompt_s * 1000,
        "prompt_per_second": prompt_n / prompt_s if prompt_s else 0.0,
        "predicted_n": n,
        "predicted_ms": decode_s * 1000,
        "predicted_per_second": (n - 1) / decode_s if decode_s > 0 else 0.0,
    }


def progress(answers: Answers, answer: Answer, update: Update) -> list[dict[str, Any]]:
    """llama.cpp's progress reports of the prompt, with milliseconds since the request."""
    so_far = {"total": len(answer.request.ids), "cache": answer.cached}
    time_ms = round((time.perf_counter() - answers.began) * 1000)
    return [{"prompt_progress": {**so_far, "processed": n, "time_ms": time_ms}} for n in update.processed]
