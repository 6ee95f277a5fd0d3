"""ternrun beside onnxruntime on one decoder's graph, two threads each.

python -m tests.oracle.onnx_beside compare FILE...     teacher-forced argmax of both on three texts
python -m tests.oracle.onnx_beside levels FILE...      the same with onnxruntime's activations in float32
python -m tests.oracle.onnx_beside rounding GGUF...    ternary models: what rounding activations to 8 bits changes
python -m tests.oracle.onnx_beside speed FILE...       tokens a second of both, in turns: a prompt, and behind it

With --general, ternrun runs the graph operator by operator though it recognizes it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnxruntime

from ternrun.loader.model import open_model
from ternrun.loader.onnx.folder import stated_width
from ternrun.loader.onnx.write import write_onnx
from ternrun.onnx.format.reader import open_onnx
from ternrun.onnx.runtime.graph_decoder import GraphDecoder
from ternrun.onnx.runtime.graph_model import GraphModel
from ternrun.runtime.backend.protocol import Batch
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.cpu.model import CpuModel
from tests import reference
from tests.smollm2 import smollm2

REST = 0.1  # seconds
TEXTS = (
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n",
    "The history of the steam engine begins long before the industrial revolution. In the first century, Hero of "
    "Alexandria described a device that turned when water in it was heated, and nobody put it to use for",
    "Water boils at 100 degrees Celsius at sea level. At higher altitudes the pressure is lower, and so",
)


def _texts(vocab_size: int) -> list[list[int]]:
    """Tokens of TEXTS; of a smaller vocabulary, such as they are."""
    with open_model(smollm2()) as source:
        return [[i % vocab_size for i in source.tokenizer.encode(t)] for t in TEXTS]


class Reference:
    """The graph in onnxruntime on two threads, its cache kept here."""

    def __init__(self, path: Path) -> None:
        self.path, self.past, self.at = path, {}, 0
        self.session = self._session(reuse=True)
        self.inputs = {i.name: i for i in self.session.get_inputs()}

    def _session(self, reuse: bool) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.enable_mem_reuse = reuse
        return onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])

    def run(self, ids: list[int]) -> np.ndarray:
        total = self.at + len(ids)
        feed: dict[str, np.ndarray] = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, total), np.int64)}
        if "position_ids" in self.inputs:
            feed["position_ids"] = np.arange(self.at, total)[None]
        for name, value in self.inputs.items():
            if name.startswith("past_"):
                kind = np.float16 if "float16" in value.type else np.float32
                heads, width = value.shape[1], value.shape[3] if isinstance(value.shape[3], int) else 64
                feed[name] = self.past.get(name, np.zeros((1, heads, 0, width), kind))
        try:
            logits, *present = self.session.run(None, feed)
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:  # the graph states sizes as equal that are not
            self.session = self._session(reuse=False)
            logits, *present = self.session.run(None, feed)
        names = [o.name.replace("present", "past_key_values") for o in self.session.get_outputs()[1:]]
        self.past = dict(zip(names, present, strict=True))
        self.at = total
        return logits[0].astype(np.float32)


def _ours(path: Path, recognized: bool = True):
    engine = EngineConfig(threads=2, context=1024)
    if recognized:
        return CpuModel(open_model(path).weights, engine)
    return GraphModel(GraphDecoder(open_onnx(path), context=1024, width=stated_width(path.with_suffix(""))), engine)


def _step(model, ids: list[int], at: int, keep: list[int] | None = None):
    """Rows of logits of all tokens; where `keep` is given, only as much of them."""
    n, blocks = len(ids), np.arange(model.n_blocks, dtype=np.int32)
    return model.forward(Batch(ids, list(range(at, at + n)), [0] * n, [blocks], list(range(n)), keep))


def _likeliest(row) -> int:
    return int(row.argmax()) if isinstance(row, np.ndarray) else row.best


def compare(path: Path, recognized: bool = True) -> None:
    ours, same, total, furthest = _ours(path, recognized), 0, 0, 0.0
    for ids in _texts(ours.config.vocab_size):
        theirs, mine = Reference(path).run(ids), _step(ours, ids, 0)
        same += int((theirs.argmax(1) == mine.argmax(1)).sum())
        total += len(ids)
        furthest = max(furthest, float(np.abs(theirs - mine).max() / np.ptp(theirs)))
    print(f"{path.name}: argmax equal at {same} of {total} positions, largest difference {furthest:.2g} of the range")


def levels(path: Path) -> None:
    """onnxruntime with activations as the file has them, and as float32: how far each is from the other and from us."""
    model = onnx.load(path)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    with tempfile.TemporaryDirectory() as folder:
        exact = Path(folder) / path.name
        onnx.save(model, exact)
        for one, other in ((path, exact), (exact, None), (path, None)):
            ours, same, total, furthest = None if other else _ours(path), 0, 0, 0.0
            for ids in _texts(1 << 30):
                a = Reference(one).run(ids)
                b = Reference(other).run(ids) if other else _step(ours, ids, 0)
                same, total = same + int((a.argmax(1) == b.argmax(1)).sum()), total + len(ids)
                furthest = max(furthest, float(np.abs(a - b).max() / np.ptp(a)))
            names = ["onnxruntime, float32" if f == exact else "onnxruntime" if f else "ternrun" for f in (one, other)]
            print(f"{' | '.join(names)}: argmax equal at {same} of {total}, largest difference {furthest:.2g}")


def rounding(path: Path) -> None:
    """The plain-numpy reference with activations as they are and in 8 bits, beside onnxruntime (dense) and ternrun."""
    with tempfile.TemporaryDirectory() as folder, open_model(path) as model:
        dense = Path(folder) / "dense.onnx"
        write_onnx(dense, model.weights, "dense")
        ids = _own_text(model)
        ours = np.array(_step(CpuModel(model.weights, EngineConfig(threads=2, context=1024)), ids, 0))
        theirs, rounded = Reference(dense).run(ids), reference.forward(model.weights, ids)
        with mock.patch.object(reference, "ternary_linear", lambda t, x: x @ reference.dense(t).T):
            exact = reference.forward(model.weights, ids)
    pairs = {
        "onnxruntime | reference, float32": (theirs, exact), "ternrun | reference, 8 bits": (ours, rounded),
        "reference, float32 | 8 bits": (exact, rounded), "onnxruntime | ternrun": (theirs, ours),
    }  # fmt: skip
    for name, (a, b) in pairs.items():
        same, furthest = int((a.argmax(1) == b.argmax(1)).sum()), np.abs(a - b).max() / np.ptp(a)
        print(f"{path.name}, {name}: argmax equal at {same} of {len(ids)}, largest difference {furthest:.2g}")


def _own_text(model) -> list[int]:
    """A model of code reads this file; one without a tokenizer, numbers."""
    if model.weights.config.vocab_size > 5000:
        return [i for text in _texts(model.weights.config.vocab_size) for i in text][:140]
    return model.tokenizer.encode(Path(__file__).read_text())[:140]


def speed(path: Path, recognized: bool = True) -> None:
    """Both in turns, the median of five: a prompt of 128 tokens with all its logits, then greedy decoding behind it.

    Each waits until the other's threads have come to rest: onnxruntime's spin for a while after a run.
    """
    reference, ours = Reference(path), _ours(path, recognized)
    ids = [i for text in _texts(ours.config.vocab_size) for i in text]
    prompt = (ids * 128)[:128]

    def theirs(ids: list[int], at: int) -> np.ndarray:
        if not at:
            reference.past, reference.at = {}, 0
        return reference.run(ids)

    def mine(ids: list[int], at: int):
        return _step(ours, ids, at, [1] if len(ids) == 1 else None)

    tokens = 200 if _quick(mine, prompt) else 24  # a small model's time would be too short to measure
    rates: dict[str, list[list[float]]] = {"prompt": [[], []], "decode": [[], []]}
    for _ in range(6):  # the first warms up
        for i, run in enumerate((theirs, mine)):
            time.sleep(REST)
            start = time.perf_counter()
            token = _likeliest(run(prompt, 0)[-1])
            begun = time.perf_counter()
            for at in range(len(prompt), len(prompt) + tokens):
                token = _likeliest(run([token], at)[-1])
            rates["prompt"][i].append(len(prompt) / (begun - start))
            rates["decode"][i].append(tokens / (time.perf_counter() - begun))
    for name, both in rates.items():
        a, b = (float(np.median(r[1:])) for r in both)
        print(f"{path.name} {name}: {b:.1f} tokens a second, onnxruntime {a:.1f}: {b / a:.2f} times")


def _quick(run, prompt: list[int]) -> bool:
    """Whether a token takes less than half a millisecond; the width of a graph that is not recognized is unknown."""
    run(prompt, 0)
    run(prompt[:1], len(prompt))
    start = time.perf_counter()
    run(prompt[:1], len(prompt) + 1)
    return time.perf_counter() - start < 5e-4


if __name__ == "__main__":
    task, *files = sys.argv[1:]
    for file in files:
        if not file.startswith("--"):
            if task in ("levels", "rounding"):
                {"levels": levels, "rounding": rounding}[task](Path(file))
            else:
                {"compare": compare, "speed": speed}[task](Path(file), "--general" not in files)
