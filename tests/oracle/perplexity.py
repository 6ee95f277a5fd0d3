"""What llama.cpp makes of given token ids with any GGUF file it can open.

    python -m tests.oracle.perplexity MODEL.gguf --ids FILE [--window N] [--out FILE.npz]

FILE is a JSON list of id lists. Each list is cut into windows of N ids (default: one window), each a sequence of its
own whose first id is given. Prints `{"perplexity", "mean_nll", "scored"}`; --out keeps `logprobs`, the natural-log
probability of every scored id, in order.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.oracle.llama import Oracle


def logprobs(oracle: Oracle, sequences: list[list[int]]) -> NDArray[np.float64]:
    """Of every id but the first of each sequence, given those before it."""
    return np.concatenate([oracle.logprobs(ids)[np.arange(len(ids) - 1), ids[1:]] for ids in sequences if len(ids) > 1])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--ids", type=Path, required=True)
    parser.add_argument("--window", type=int)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lists: list[list[int]] = json.loads(args.ids.read_text())
    window = args.window or max(map(len, lists))
    sequences = [ids[at : at + window] for ids in lists for at in range(0, len(ids), window)]
    found = logprobs(Oracle(args.model, context=window), sequences)
    print(
        json.dumps({"perplexity": float(np.exp(-found.mean())), "mean_nll": -float(found.mean()), "scored": found.size})
    )
    if args.out:
        np.savez_compressed(args.out, logprobs=found)


if __name__ == "__main__":
    main()
