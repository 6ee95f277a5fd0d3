"""Make tests/data/smollm2_logits.npz: llama.cpp's log-probabilities on SmolLM2-135M-Instruct.

    python -m tests.oracle.logits TINYSHAKESPEARE.txt HUMANEVAL.jsonl COMMIT     # COMMIT: llama.cpp's

Made from the float32 copy of the file's weights (see exact.py). Two parts:

* Teacher forcing: 32 prompts of at most 64 tokens, each with the 64 likeliest next tokens, found one by one. Sequence s
  is `ids[start[s]:start[s + 1]]`; its first `prompt[s]` ids are the prompt. Rows of `chosen`, `top_ids` and
  `top_logprobs` stand for the positions i = 0 ... len - 2 of sequence 0, then of sequence 1, and so on (sequence s has
  rows start[s] - s up to start[s + 1] - s - 1, that one excluded): the log-probability of ids[i + 1] after ids[:i + 1],
  and the five likeliest tokens there with theirs.
* Perplexity: `text_ids` are the first 16,384 ids of tinyshakespeare (no begin token), in 16 windows of 1,024. Each
  window is a sequence of its own; its first token is given, the other 1,023 are scored. `window_nll[w]` is the mean
  negative log-probability of a window, in nats; perplexity = exp(mean of window_nll).

`noise` is how far llama.cpp on the file as it is (8-bit activations) strays from the above: share of equal likeliest
tokens, mean |difference| of `chosen`, and the perplexity it has.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracle.exact import write_exact
from tests.oracle.llama import Oracle, oracle_version
from tests.smollm2 import smollm2
from tests.texts import HERE, read

MADE, LONGEST, WINDOW, WINDOWS = 64, 64, 1024, 16
SENTENCES = [
    "The capital of France is",
    "Water boils at",
    "Once upon a time, in a village by the sea,",
    "Photosynthesis is the process by which",
    "The three laws of motion were formulated by",
    "In 1969, two astronauts",
    "A good recipe for pancakes needs",
    "The difference between a list and a tuple in Python is",
]
QUESTIONS = [
    "What is gravity?",
    "Name three colours.",
    "Translate 'good morning' into French.",
    "Write a haiku about rain.",
    "What is 12 times 12?",
    "Who wrote Hamlet?",
    "Explain recursion to a child.",
    "List the planets.",
]


def prompts(oracle: Oracle, shakespeare: str, humaneval: list[str]) -> list[list[int]]:
    """Eight each of sentences, questions in the chat format, Python functions, and old English."""
    asked = [f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n" for q in QUESTIONS]
    scenes = shakespeare.split("\n\n")[40:360:40]
    return [oracle.encode(text)[:LONGEST] for text in [*SENTENCES, *asked, *humaneval[:8], *scenes]]


def score(oracle: Oracle, ids: list[int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of every position but the last: log-probability of the next id, and the five likeliest with theirs."""
    rows = oracle.logprobs(ids)[:-1]
    top = np.argsort(-rows, axis=1)[:, :5]
    return rows[np.arange(len(rows)), ids[1:]], top, np.take_along_axis(rows, top, axis=1)


def mean_nll(oracle: Oracle, text_ids: list[int]) -> list[float]:
    """Of each window."""
    windows = [text_ids[at : at + WINDOW] for at in range(0, WINDOW * WINDOWS, WINDOW)]
    return [-float(score(oracle, window)[0].mean()) for window in windows]


def main(shakespeare: Path, humaneval: Path, commit: str) -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        exact_file = Path(folder) / "exact.gguf"
        write_exact(smollm2(), exact_file)
        text = read(shakespeare)
        tasks = [json.loads(line)["prompt"] for line in read(humaneval).splitlines()]
        exact = Oracle(exact_file, context=LONGEST + MADE, sequences=32)
        begun = prompts(exact, text, tasks)
        sequences = [p + m for p, m in zip(begun, exact.greedy(begun, MADE), strict=True)]
        exact = Oracle(exact_file, context=WINDOW)
        chosen, top, top_logprobs = zip(*(score(exact, ids) for ids in sequences), strict=True)
        text_ids = exact.encode(text, bos=False)[: WINDOW * WINDOWS]
        nll = mean_nll(exact, text_ids)
        del exact
    rough = Oracle(smollm2(), context=WINDOW)
    rough_chosen, rough_top, _ = zip(*(score(rough, ids) for ids in sequences), strict=True)
    noise = {
        "argmax": float(np.mean(np.concatenate(top)[:, 0] == np.concatenate(rough_top)[:, 0])),
        "logprob": float(np.abs(np.concatenate(chosen) - np.concatenate(rough_chosen)).mean()),
        "perplexity": float(np.exp(np.mean(mean_nll(rough, text_ids)))),
    }
    about = oracle_version() | {"llama.cpp": commit, "noise": noise, "perplexity": float(np.exp(np.mean(nll)))}
    np.savez_compressed(
        HERE / "smollm2_logits.npz",
        about=json.dumps(about),
        ids=np.concatenate(sequences).astype(np.uint16),
        start=np.cumsum([0, *map(len, sequences)]),
        prompt=np.array([len(p) for p in begun]),
        chosen=np.concatenate(chosen).astype(np.float32),
        top_ids=np.concatenate(top).astype(np.uint16),
        top_logprobs=np.concatenate(top_logprobs).astype(np.float32),
        text_ids=np.array(text_ids, np.uint16),
        window_nll=np.array(nll),
    )
    print(json.dumps(about, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
