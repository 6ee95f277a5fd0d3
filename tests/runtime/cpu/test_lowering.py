"""The language of kernels: what it computes is shown by all tests of kernels; here, what it refuses and keeps apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ternrun.runtime.cpu.compile import isa
from ternrun.runtime.cpu.compile.kernel_cache import KernelCache
from ternrun.runtime.cpu.compile.worker_processes import build_environment
from ternrun.runtime.cpu.kernel_catalogue import all_kernels
from ternrun.runtime.cpu.memory import address, aligned
from tests.runtime.cpu.harness import ISAS, machine

HEAD = """
from numba import types
from ternrun.runtime.cpu.compile.jit import compiled, noinline
from ternrun.runtime.cpu.compile.lanes import zero
from ternrun.runtime.cpu.compile.memory_access import load_scalar, store_scalar
from ternrun.runtime.cpu.compile.vectors import f32x16

KNOWN, NOTHING = 3, False
"""
TAIL = """
def build(entry):
    return kernel
"""


def kernel_of(tmp_path: Path, body: str, more: str = "") -> subprocess.CompletedProcess[str]:
    """Compile `kernel(args, tid, nt)` of these lines to assembly."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    source = f"{HEAD}{more}\n@compiled\ndef kernel(args, tid, nt):\n{lines}{TAIL}"
    (tmp_path / "written.py").write_text(source)
    build = "from ternrun.runtime.cpu.compile.build import compile_kernel"
    script = f"{build}; m, k = compile_kernel('a.written.x'); print(m.emit_assembly(k))"
    environment = build_environment(isa.select_isa(ISAS[0]))
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path.parent)
    script = script.replace("a.", f"{tmp_path.name}.")
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("x = 1\nfor i in range(nt):\n    x = zero(f32x16)\nreturn 0", "f32x16 where int64 was before"),
        ("x = 1\nif tid:\n    x = zero(f32x16)\nreturn 0", "f32x16 where int64 was before"),
        ("if tid:\n    return 0", "where int64 was before"),
        ("return nothing", "nothing is not defined"),
        ("return [x for x in range(nt)]", "ListComp"),
        ("with open('x'):\n    return 0", "With"),
        ("return zero(f32x16) + 1.0", "add"),
    ],
)
def test_what_is_not_of_the_language_is_refused(body: str, word: str, tmp_path: Path) -> None:
    done = kernel_of(tmp_path, body)
    assert done.returncode == 1
    assert word in done.stderr


def test_a_branch_that_a_constant_decides_is_not_compiled(tmp_path: Path) -> None:
    done = kernel_of(tmp_path, "if NOTHING:\n    return nonsense(tid)\nreturn KNOWN if not NOTHING else nonsense(tid)")
    assert done.returncode == 0, done.stderr
    assert "$3" in done.stdout or "3" in done.stdout


@pytest.mark.parametrize(("decorator", "calls"), [("compiled", 0), ("noinline", 2)])
def test_functions_become_part_of_their_callers_or_stay_apart(decorator: str, calls: int, tmp_path: Path) -> None:
    more = f"@{decorator}\ndef work(at):\n    store_scalar(at, load_scalar(types.int64, at) * 3)\n"
    done = kernel_of(tmp_path, "work(args)\nstore_scalar(args + 8, 1)\nwork(args + tid)\nreturn 0", more)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.strip().startswith(("call", "bl\t"))]) == calls


@pytest.mark.parametrize("name", ISAS)
def test_the_catalogue_has_what_tests_use(name: str) -> None:
    on = machine(name)
    used = {kernel for kernel in on.kernels._addresses if not kernel.startswith(("tests.", "ceiling."))}
    assert used - all_kernels(on.kernels.isa) == set()


def test_a_range_of_no_step_is_empty(tmp_path: Path) -> None:
    """It would be an error in Python; a kernel has nobody to tell, and must not stop the process."""
    body = (
        "n = 0\nfor i in range(0, 10, load_scalar(types.int64, args)):\n    n += 1\nstore_scalar(args + 8, n)\nreturn 0"
    )
    (tmp_path / "stepless.py").write_text(
        f"{HEAD}\n@compiled\ndef kernel(args, tid, nt):\n"
        + "".join(f"    {line}\n" for line in body.splitlines())
        + TAIL
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path.parent))
        patch.setenv("TERNRUN_CACHE", str(tmp_path / "cache"))
        on = KernelCache(isa.select_isa(ISAS[0]))
        on.require([f"{tmp_path.name}.stepless.x"])
    words = aligned(64)
    counted = []
    for step in (0, 3, -3, 20):
        words.view("i8")[:2] = step, 99
        assert on.function(f"{tmp_path.name}.stepless.x")(address(words), 0, 1) == 0
        counted.append(int(words.view("i8")[1]))
    assert counted == [0, 4, 0, 1]
