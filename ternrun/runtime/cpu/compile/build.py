"""Compile kernels to files in a separate process: `python -m ternrun.runtime.cpu.compile.build DIR`.

Only this process imports numba. `worker_processes.py` starts it and names the instruction set in its environment. The
process reads kernel names from standard input, one a line, and reports each name when the kernel's file is in place.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from ternrun.runtime.cpu.compile import cache_files
from ternrun.runtime.cpu.compile.kernel_cache import symbol_of
from ternrun.runtime.cpu.compile.linker import image
from ternrun.runtime.cpu.signatures import signature_of


def compile_kernel(name: str) -> tuple[Any, Any]:
    """Compile the kernel `module.entry`; returns LLVM's target machine and the optimized module.

    The module is one of `ternrun.runtime.cpu.kernels`, or any other module by its full name. The kernel is exported as
    `symbol_of(name)`.
    """
    import llvmlite.binding as llvm
    from numba import types

    from ternrun.runtime.cpu.compile.arguments import Arguments
    from ternrun.runtime.cpu.compile.lowering import Unit

    module, _, entry = name.rpartition(".")
    home = module if "." in module else f"ternrun.runtime.cpu.kernels.{module}"
    kernel = importlib.import_module(home).build(entry)
    parameters = signature_of(name)
    first = types.int64 if parameters is None else Arguments(parameters)
    text = Unit(_operations()).entry(kernel, symbol_of(name), first)
    machine, parsed = _machine(), llvm.parse_assembly(text)
    parsed.triple, parsed.data_layout = llvm.get_process_triple(), str(machine.target_data)
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    return machine, parsed


@cache
def _operations() -> Any:
    """numba's operations, set up once in a process."""
    from ternrun.runtime.cpu.compile.operations import Operations

    return Operations()


def _machine(*, anywhere: bool = True) -> Any:
    """LLVM's code generator for the CPU that the environment names, at full optimization.

    With `anywhere`, the parts of the code refer to each other by distance, as `linker.py` needs. Otherwise the code is
    for LLVM's own linker.
    """
    import llvmlite.binding as llvm

    target = llvm.Target.from_triple(llvm.get_process_triple())
    x86 = target.name.startswith("x86")
    kind = ("pic", "small") if anywhere else ("static" if x86 else "default", "jitdefault")
    return target.create_target_machine(
        cpu=os.environ["NUMBA_CPU_NAME"], features=os.environ["NUMBA_CPU_FEATURES"], opt=3, reloc=kind[0],
        codemodel=kind[1], jit=not anywhere,
    )  # fmt: skip


def main(argv: list[str]) -> int:
    """Compile each kernel that standard input names into the folder argv[0]."""
    folder = Path(argv[0])
    gc.disable()  # the process is short, and its reference cycles are small
    for line in sys.stdin:
        name = line.strip()
        machine, module = compile_kernel(name)
        code = image(machine.emit_object(module), symbol_of(name))
        cache_files.write(folder / name, code or _machine(anywhere=False).emit_object(module))
        report(name)
    return 0


def report(name: str) -> None:
    """Report a finished kernel to the parent process, on a line of its own in a single write.

    All worker processes share one pipe. A name written in two parts, or after text without a line end, would be mixed
    with the output of another process.
    """
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), f"\n{name}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
