"""What ternrun writes as ONNX: onnxruntime runs it, and read again it is the same model, bit for bit."""

import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ternrun.errors import UsageError
from ternrun.loader.default_model import FILE
from ternrun.loader.model import open_model
from ternrun.loader.onnx.recognize import recognize
from ternrun.loader.onnx.write import FORMS, write_onnx
from ternrun.onnx.format.reader import open_onnx
from ternrun.runtime.backend.protocol import Batch
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.cpu.model import CpuModel
from ternrun.runtime.cpu.weights.matrix import TernaryMatrix
from ternrun.runtime.weights import Weights
from tests.fakes import fake_weights
from tests.reference import dense, forward

IDS = np.array([1, 5, 9, 77, 300, 12, 44])


def by_onnxruntime(path: Path, weights: Weights) -> np.ndarray:
    """Logits of the first four tokens at once, then of the others one by one, through the graph's cache."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    c, rows = weights.config, []
    names = [f"{n}.{kind}" for n in range(c.n_layers) for kind in ("key", "value")]
    cache = [np.zeros((1, c.n_kv_heads, 0, c.head_dim), np.float32) for _ in names]
    at = 0
    for part in (IDS[:4], *np.split(IDS[4:], 3)):
        feed = {"input_ids": part[None], "attention_mask": np.ones((1, at + len(part)), np.int64)}
        feed |= {"position_ids": np.arange(at, at + len(part))[None]}
        feed |= {f"past_key_values.{name}": past for name, past in zip(names, cache, strict=True)}
        logits, *cache = session.run(None, feed)
        rows.append(logits[0])
        at += len(part)
    return np.concatenate(rows)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("arch", ["llama", "qwen3", "bitnet", "bitnet-b1.58"])
def test_read_again_it_is_the_same_model(arch: str, form: str, tmp_path: Path) -> None:
    weights = fake_weights(arch)
    write_onnx(tmp_path / "m.onnx", weights, form)
    found = recognize(open_onnx(tmp_path / "m.onnx"))
    assert found.weights.tensors.keys() == weights.tensors.keys()
    for name, tensor in weights.tensors.items():
        np.testing.assert_array_equal(dense(found.weights.tensors[name]), dense(tensor), err_msg=name)
    kinds = {t.type for name, t in found.weights.tensors.items() if "attn_q.weight" in name}
    assert kinds == {"HF_PACKED"}  # the ternary kernels take it
    np.testing.assert_array_equal(forward(found.weights, IDS), forward(weights, IDS))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("arch", ["llama", "bitnet-b1.58"])
def test_onnxruntime_runs_it(arch: str, form: str, tmp_path: Path) -> None:
    weights = fake_weights(arch, "Q8_0", head="F32")  # ordinary weights: BitNet's rounding of activations is not in it
    write_onnx(tmp_path / "m.onnx", weights, form)
    wanted = forward(weights, IDS, kv="f32")
    np.testing.assert_allclose(by_onnxruntime(tmp_path / "m.onnx", weights), wanted, atol=1e-5 * np.ptp(wanted))
    ternary = fake_weights(arch)
    write_onnx(tmp_path / "m.onnx", ternary, form)
    found, wanted = by_onnxruntime(tmp_path / "m.onnx", ternary), forward(ternary, IDS, kv="f32")
    np.testing.assert_allclose(found, wanted, atol=0.03 * np.ptp(wanted))
    assert (found.argmax(1) == wanted.argmax(1)).all()


@pytest.mark.parametrize("encoding", ["Q2_0", "PQ2_0", "TQ2_0", "IQ2_BN", "Q1_58"])
def test_scales_by_row_and_by_block(encoding: str, tmp_path: Path) -> None:
    weights = fake_weights("qwen3", encoding, tied=False)
    for form in FORMS:
        write_onnx(tmp_path / "m.onnx", weights, form)
        found = recognize(open_onnx(tmp_path / "m.onnx")).weights
        for name, tensor in weights.tensors.items():
            np.testing.assert_array_equal(dense(found.tensors[name]), dense(tensor), err_msg=name)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no ONNX form"):
        write_onnx(tmp_path / "m.onnx", fake_weights("gemma3"), "dense")
    with pytest.raises(UsageError, match="'fp4' is not a form"):
        write_onnx(tmp_path / "m.onnx", fake_weights("llama"), "fp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", FORMS)
def test_the_carried_model_through_onnx(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Logits of its GGUF file, bit for bit; both rates are printed, for a test cannot know how busy the machine is."""
    with open_model(FILE) as source:
        write_onnx(tmp_path / "m.onnx", source.weights, form)
        engine = EngineConfig(threads=1, context=128)
        by_gguf = CpuModel(source.weights, engine)
        by_onnx = CpuModel(recognize(open_onnx(tmp_path / "m.onnx")).weights, engine)
        rates, expected = [], None
        for model in (by_gguf, by_onnx):
            step(model, IDS.tolist(), 0)
            start = time.perf_counter()
            rows = np.stack([step(model, [int(IDS[i % len(IDS)])], len(IDS) + i)[0] for i in range(32)])
            rates.append(32 / (time.perf_counter() - start))
            expected = rows if expected is None else expected
            np.testing.assert_array_equal(rows, expected)
            assert isinstance(model.matrices["blk.0.attn_q.weight"], TernaryMatrix)
            model.close()
    with capsys.disabled():
        print(f"\n  {form}: {rates[1]:.0f} tokens a second, its GGUF file {rates[0]:.0f}, the same logits")


def step(model: CpuModel, ids: list[int], at: int) -> np.ndarray:
    blocks = np.arange(model.n_blocks, dtype=np.int32)
    outputs = list(range(len(ids)))
    return model.forward(Batch(ids, [at + i for i in outputs], [0] * len(ids), [blocks], outputs)).copy()
