"""onnx's own backend test-suite: all node, simple and pytorch cases of the installed onnx.

What does not pass stands in backend_exclusions.toml with its reason. The counts that docs/onnx.md
publishes are printed by `python -m tests.onnx.backend_report`.
"""

import tomllib
import unittest
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

with warnings.catch_warnings():  # making the cases warns of overflow and of divisions by zero
    warnings.simplefilter("ignore")
    from onnx.backend.test import BackendTest

    from ternrun.onnx.backend import TernrunBackend

    suite = BackendTest(TernrunBackend, __name__)

from ternrun.errors import UsageError
from ternrun.onnx import backend

EXCLUSIONS = tomllib.loads(Path(__file__).with_name("backend_exclusions.toml").read_text("utf-8"))

for _name in EXCLUSIONS["fails"]:
    suite.xfail(f"^{_name}_cpu$")  # an unexpected success is a failure
for _name in EXCLUSIONS["random"]:
    suite.exclude(f"^{_name}_cpu$")


def _cases() -> dict[str, type[unittest.TestCase]]:
    """The suite's test classes, without those for other devices and those that download models."""
    classes = {name: cls for name, cls in suite.test_cases.items() if "Real" not in name}
    for cls in classes.values():
        for name in [n for n in vars(cls) if n.endswith("_cuda")]:
            delattr(cls, name)
        cls.pytestmark = [pytest.mark.filterwarnings("ignore")]  # the suite's comparisons warn of NaN
    return classes


CASES = _cases()
globals().update(CASES)


def test_at_least_95_percent_are_expected_to_pass():
    names = [n for cls in CASES.values() for n in vars(cls) if n.startswith("test_")]
    excluded = [*EXCLUSIONS["fails"], *EXCLUSIONS["random"]]
    assert len(names) > 1500
    assert set(excluded) <= {n.removesuffix("_cpu") for n in names}
    assert len(excluded) < 0.05 * len(names)


def test_run_node():
    node = helper.make_node("Add", ["a", "b"], ["c"])
    (result,) = backend.run_node(node, [np.ones((2, 3), np.float32), np.full(3, 2, np.float32)])
    np.testing.assert_array_equal(result, np.full((2, 3), 3, np.float32))


def test_run_model_by_name_and_by_order():
    infos = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2]) for n in "abc"]
    model = helper.make_model(
        helper.make_graph([helper.make_node("Sub", ["a", "b"], ["c"])], "g", infos[:2], infos[2:])
    )
    a, b = np.array([3, 4], np.float32), np.array([1, 1], np.float32)
    assert backend.run_model(model, [a, b]).c.tolist() == [2, 3]
    assert backend.run_model(model, {"b": a, "a": b}).c.tolist() == [-2, -3]


def test_devices():
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA")
    with pytest.raises(UsageError, match="not on 'CUDA'"):
        backend.prepare(onnx.ModelProto(), "CUDA")
