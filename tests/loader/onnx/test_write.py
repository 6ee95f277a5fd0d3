"""What ternrun writes as ONNX: onnxruntime runs it, and read again it is the same model, bit for bit."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ternrun.errors import UsageError
from ternrun.loader.onnx.reader import open_onnx
from ternrun.loader.onnx.recognition.recognise import recognise
from ternrun.loader.onnx.write import FORMS, write_onnx
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
    found = recognise(open_onnx(tmp_path / "m.onnx"))
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
        found = recognise(open_onnx(tmp_path / "m.onnx")).weights
        for name, tensor in weights.tensors.items():
            np.testing.assert_array_equal(dense(found.tensors[name]), dense(tensor), err_msg=name)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no ONNX form"):
        write_onnx(tmp_path / "m.onnx", fake_weights("gemma3"), "dense")
    with pytest.raises(UsageError, match="'fp4' is not a form"):
        write_onnx(tmp_path / "m.onnx", fake_weights("llama"), "fp4")
    assert not list(tmp_path.iterdir())
