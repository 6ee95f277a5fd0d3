"""Compiles kernels to object files: `python -m ternrun.runtime.cpu.build DIR NAME...`, in a process of its own.

Only this process imports numba. Its environment names the instruction set (`objects.py` sets it); it prints a line
a kernel when its file is in place.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from ternrun.runtime.cpu import cachefiles
from ternrun.runtime.cpu.link import image
from ternrun.runtime.cpu.objects import symbol_of
from ternrun.runtime.cpu.signatures import signature_of


def compile_kernel(name: str) -> tuple[Any, Any]:
    """LLVM's target machine and the finished module of the kernel `module.entry`, exported under its symbol.

    The module is one of `ternrun.runtime.cpu.kernels`, or any other by its full name.
    """
    from numba import types

    from ternrun.runtime.cpu.jit import Arguments

    module, _, entry = name.rpartition(".")
    home = module if "." in module else f"ternrun.runtime.cpu.kernels.{module}"
    dispatcher = importlib.import_module(home).build(entry)
    parameters = signature_of(name)
    args = types.int64 if parameters is None else Arguments(parameters)
    signature = (args, types.int64, types.int64)
    dispatcher.compile(signature)
    return _export(dispatcher.overloads[signature], symbol_of(name))


def _export(compiled: Any, symbol: str) -> tuple[Any, Any]:
    """A compiled function behind a plain C entry; all else in its module is made private, and dropped if unused."""
    import llvmlite.binding as llvm
    from llvmlite import ir

    library, i64 = compiled.library, ir.IntType(64)
    entry = ir.Module()
    function = ir.Function(entry, ir.FunctionType(i64, [i64] * 3), symbol)
    builder = ir.IRBuilder(function.append_basic_block())
    context = compiled.target_context
    inner = context.call_conv.get_function_type(compiled.signature.return_type, compiled.signature.args)
    callee = ir.Function(entry, inner, compiled.fndesc.llvm_func_name)
    _, result = context.call_conv.call_function(
        builder, callee, compiled.signature.return_type, compiled.signature.args, function.args
    )
    builder.ret(result)
    module = llvm.parse_assembly(str(entry))
    module.triple, module.data_layout = llvm.get_process_triple(), str(library.codegen.target_data)
    module.link_in(library._final_module, preserve=True)
    for item in [*module.functions, *module.global_variables]:
        if not item.is_declaration and item.name != symbol:
            item.linkage = "internal"
    machine = _machine()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(module, passes)
    return machine, module


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
    """Compile each named kernel into the folder."""
    folder = Path(argv[0])
    for name in argv[1:]:
        machine, module = compile_kernel(name)
        code = image(machine.emit_object(module), symbol_of(name))
        cachefiles.write(folder / name, code or _machine(anywhere=False).emit_object(module))
        print(name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
