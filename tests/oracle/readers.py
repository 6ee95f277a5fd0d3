"""One model, three readers: torch, ternrun and llama.cpp on files of every family, trained on real text.

    python -m tests.oracle.readers DATA [--steps 250] [--positions 10240]

DATA is a folder made by `ternrun train data`. Each family is trained for some steps, exported as TQ2_0 and read again
on the validation part, in windows that begin anew. Printed, a row a family: at how many positions torch and ternrun
have the same likeliest token, how far their logits lie apart in ranges of the logits (median and largest), the same of
torch and itself where its sums are taken in another order, the same of torch and the numpy reference on the file, both
in double precision, and the perplexities of ternrun and llama.cpp. Needs what `tests/oracle/llama.py` needs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ternrun.loader.model import open_model
from ternrun.train.config import GROUP_SIZE, TrainConfig
from ternrun.train.evaluate.parity import compare_logits, open_runtime, runtime_logits, split_windows, torch_logits
from ternrun.train.export.gguf import export, round_dense
from ternrun.train.loop.trainer import Trainer
from ternrun.train.model.decoder import Decoder
from ternrun.train.model.gguf_mapping import architecture
from tests.oracle.llama import Oracle
from tests.oracle.perplexity import logprobs
from tests.train.double import reference_double, torch_double
from tests.train.runs import train
from tests.train.test_export import FAMILIES

SHAPE = {"dim": 256, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "ffn_dim": 512, "context": 256}
WRITTEN = ("attn_output", "ffn_down", "attn_norm", "ffn_norm", "output_norm")  # rows are channels of the stream
OPENED = {"bitnet", "llama", "qwen3"}  # architectures of ours that llama.cpp knows


def trained(family: str, data: Path, steps: int, folder: Path) -> Trainer:
    """A model of the family after `steps`."""
    tables: dict[str, dict[str, Any]] = {
        "model": SHAPE | FAMILIES[family],
        "data": {"path": str(data), "batch": 8},
        "optim": {"steps": steps, "warmup_steps": 20, "decay_steps": steps // 2},
        "run": {"validate_every": steps, "validate_windows": 64, "save_every": steps},
    }
    return train(TrainConfig.from_dict(tables), folder)


def reordered(model: Decoder) -> Decoder:
    """The same model with the channels of the residual stream in another order, which only takes sums differently."""
    state, other = model.state_dict(), Decoder(model.config)
    blocks = torch.arange(model.config.dim).view(-1, min(model.config.dim, GROUP_SIZE))  # scales of groups stay theirs
    order = torch.cat([block[torch.randperm(len(block))] for block in blocks])
    for name, weight in state.items():
        if name.endswith(
            ("attn_output.weight", "ffn_down.weight", "attn_norm.weight", "ffn_norm.weight", "output_norm.weight")
        ):
            state[name] = weight[order]
        elif weight.ndim == 2 and "mhc" not in name:
            state[name] = weight[:, order]
    other.load_state_dict(state)
    return other


def row(family: str, trainer: Trainer, path: Path, positions: int) -> str:
    """One line of the table."""
    model = round_dense(trainer.run.model)
    export(model, trainer.run.corpus.tokenizer, path)
    windows = list(split_windows(np.asarray(trainer.run.corpus.val[:positions]), model.config.context))
    theirs = [torch_logits(model, ids) for ids in windows]
    with open_runtime(path, model.config.context) as runtime:
        ours = [runtime_logits(runtime, ids) for ids in windows]
    other = reordered(model)
    found = compare_logits(zip(theirs, ours, strict=True))
    itself = compare_logits((a, torch_logits(other, ids)) for a, ids in zip(theirs, windows, strict=True))
    with open_model(path) as file:
        double = compare_logits((torch_double(model, ids), reference_double(file.weights, ids)) for ids in windows)
    perplexity = [np.exp(-np.concatenate([_scored(a, ids) for a, ids in zip(ours, windows, strict=True)]).mean())]
    if architecture(model.config) in OPENED:
        oracle = Oracle(path, context=model.config.context)
        perplexity.append(np.exp(-logprobs(oracle, [ids.tolist() for ids in windows]).mean()))
    cells = [family, architecture(model.config), f"{found.same_argmax:.2%}", f"{found.median:.0e}, {found.largest:.0e}"]
    cells += [f"{pair.same_argmax:.2%}, {pair.largest:.0e}" for pair in (itself, double)]
    cells += [f"{p:.3f}" for p in perplexity] + [""] * (2 - len(perplexity))
    return f"| {' | '.join(cells)} |"


def _scored(logits: NDArray[np.float32], ids: NDArray[np.int32]) -> NDArray[np.float64]:
    """Log-probabilities of every id but the first."""
    wide = logits[:-1].astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    return wide[np.arange(len(ids) - 1), ids[1:]] - np.log(np.exp(wide).sum(-1))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--positions", type=int, default=10_240)
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=list(FAMILIES))
    args = parser.parse_args()
    for family in args.families:
        with tempfile.TemporaryDirectory() as folder:
            trainer = trained(family, args.data, args.steps, Path(folder))
            print(row(family, trainer, Path(folder) / "model.gguf", args.positions), flush=True)


if __name__ == "__main__":
    main()
