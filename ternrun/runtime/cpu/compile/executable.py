"""Load machine code into memory: images are mapped directly, object files are linked by LLVM.

LLVM is imported only if there is an object file.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Mapping
from typing import Any

from ternrun.errors import KernelError
from ternrun.runtime.cpu.compile import linker
from ternrun.runtime.cpu.memory import round_up


class Executable:
    """Machine code in executable memory. The memory is released with this object."""

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []
        self._engine: Any = None

    def add(self, code: Mapping[str, bytes]) -> dict[str, int]:
        """Load code by symbol; returns the address of each function. Raises KernelError."""
        images = {symbol: data for symbol, data in code.items() if data.startswith(linker.MAGIC)}
        objects = {symbol: data for symbol, data in code.items() if symbol not in images}
        return (self._map(images) if images else {}) | (self._link(objects) if objects else {})

    def _map(self, images: Mapping[str, bytes]) -> dict[str, int]:
        """Copy images to memory and make it executable.

        The memory is never writable and executable at the same time.
        """
        sizes = [round_up(len(data) - linker.PREFIX, linker.ALIGN) for data in images.values()]
        memory = mmap.mmap(-1, sum(sizes))
        base, offset, found = ctypes.addressof(ctypes.c_char.from_buffer(memory)), 0, {}
        for (symbol, data), size in zip(images.items(), sizes, strict=True):
            entry = struct.unpack_from("<Q", data, len(linker.MAGIC))[0]
            memory[offset : offset + len(data) - linker.PREFIX] = data[linker.PREFIX :]
            found[symbol] = base + offset + entry
            offset += size
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if protect(base, len(memory), mmap.PROT_READ | mmap.PROT_EXEC):
            raise KernelError(f"this system does not let memory be made executable (error {ctypes.get_errno()})")
        self._maps.append(memory)
        return found

    def _link(self, objects: Mapping[str, bytes]) -> dict[str, int]:
        """Link object files with LLVM's MCJIT."""
        import llvmlite.binding as llvm

        if self._engine is None:
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
            machine = llvm.Target.from_default_triple().create_target_machine()
            self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        for data in objects.values():
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(data))
        self._engine.finalize_object()
        found = {symbol: self._engine.get_function_address(symbol) for symbol in objects}
        if not all(found.values()):
            raise KernelError("an object file does not hold its kernel")
        return found
