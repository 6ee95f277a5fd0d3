"""Counts of onnx's backend test-suite: `python -m tests.onnx.backend_report` (half a minute)."""

import unittest
import warnings
from collections import Counter

import onnx

warnings.simplefilter("ignore")

from ternrun.onnx.operators import reference  # noqa: E402
from ternrun.onnx.runtime.execution_plan import ExecutionPlan  # noqa: E402
from tests.onnx.test_backend import CASES, EXCLUSIONS  # noqa: E402


def main() -> None:
    """Run all cases and print how many pass, of all and of those that are not excluded."""
    borrowed: list[str] = []
    made = ExecutionPlan._step

    def counted(self, node, known):
        step = made(self, node, known)
        if "onnx.reference" in getattr(step.kernel, "__module__", "") or step.kernel.__qualname__.startswith(
            reference.reference_kernel.__qualname__
        ):
            borrowed.append(node.op)
        return step

    ExecutionPlan._step = counted
    totals: Counter[tuple[str, str]] = Counter()
    excluded = {*EXCLUSIONS["fails"], *EXCLUSIONS["random"]}
    for kind, cls in CASES.items():
        for name in [n for n in vars(cls) if n.startswith("test_")]:
            borrowed.clear()
            result = unittest.TestResult()
            cls(name).run(result)
            case = name.removesuffix("_cpu")
            passed = bool(result.testsRun and not result.skipped and result.wasSuccessful()) and case not in excluded
            totals[kind, "all"] += 1
            totals[kind, "excluded"] += case in excluded
            totals[kind, "passed"] += passed
            totals[kind, "by our kernels alone"] += passed and not borrowed
    print(f"onnx {onnx.__version__}")
    for kind in [*CASES, None]:
        counts = {w: sum(n for (k, what), n in totals.items() if what == w and kind in (k, None)) for _, w in totals}
        label = (kind or "all of them").removeprefix("OnnxBackend")
        supported = counts["all"] - counts["excluded"]
        print(
            f"{label:26} {counts['passed']} of {counts['all']} ({100 * counts['passed'] / counts['all']:.2f} %), "
            f"{counts['passed']} of {supported} supported, {counts['by our kernels alone']} by our kernels alone"
        )


if __name__ == "__main__":
    main()
