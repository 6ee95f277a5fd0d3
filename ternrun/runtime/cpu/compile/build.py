"""Compiles kernels to object files: `python -m ternrun.runtime.cpu.compile.build DIR`, in a process of its own.

Only this process imports numba. Its environment names the instruction set (`compilers.py` sets it). Standard input
gives it the names of kernels, a line each; it reports the name when the kernel's file is in place.
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
    """LLVM's target machine and the finished module of the kernel `module.entry`, exported under its symbol.

    The module is one of `ternrun.runtime.cpu.kernels`, or any other by its full name.
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
    from ternrun.runtime.cpu.compile.operations import Operations

    return Operations()


def _machine(*, anywhere: bool = True) -> Any:
    """LLVM's code generator for the CPU that the environment names, at full optimization.

    `anywhere`: code whose parts refer to each other by distance alone, for `link.py`; else code for LLVM's own linker.
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
    """Compile each kernel that standard input names into the folder."""
    folder = Path(argv[0])
    gc.disable()  # nothing here forms cycles worth looking for, and the process is short
    for line in sys.stdin:
        name = line.strip()
        machine, module = compile_kernel(name)
        code = image(machine.emit_object(module), symbol_of(name))
        cache_files.write(folder / name, code or _machine(anywhere=False).emit_object(module))
        report(name)
    return 0


def report(name: str) -> None:
    """Tell the parent that a kernel is done, on a line of its own in one write.

    All compiling processes share one pipe. Text of two writes, or behind words without a line end, would be mixed up.
    """
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), f"\n{name}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
