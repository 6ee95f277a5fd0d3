"""What LLVM says of this CPU. Loading LLVM takes longer than loading all kernels of a model, so its answer is kept."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

from ternrun.runtime.cpu.compile import cache_files

CPUINFO = Path("/proc/cpuinfo")
CHANGING = ("cpu MHz", "bogomips", "BogoMIPS")  # lines that say nothing of what the CPU can do


def usable_cpus() -> int:
    """CPUs that this process may run on; a container may have few of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def host() -> tuple[str, dict[str, bool]]:
    """LLVM's name of the CPU, and its features by name; no features on a platform that LLVM does not know."""
    known = first_processor()
    folder = cache_files.cache_root() / "cpu"
    if not known or not cache_files.is_usable(folder):
        return ask_llvm()
    key = hashlib.sha256(f"{known}{platform.machine()}{cache_files.package_stamp('llvmlite')}".encode())
    path = folder / key.hexdigest()[:20]
    kept = cache_files.read(path)
    if kept is None:
        name, features = ask_llvm()
        lines = [name, *(f"{'+' if on else '-'}{feature}" for feature, on in features.items())]
        kept = "\n".join(lines).encode()
        cache_files.try_write(path, kept)
    name, *listed = kept.decode().split("\n")
    return name, {feature[1:]: feature[0] == "+" for feature in listed}


def ask_llvm() -> tuple[str, dict[str, bool]]:
    """The same, from LLVM itself."""
    import llvmlite.binding as llvm

    try:
        features = dict(llvm.get_host_cpu_features())
    except RuntimeError:  # LLVM does not know this platform
        features = {}
    return llvm.get_host_cpu_name(), features


def first_processor() -> str:
    """What Linux says of the first processor: all that LLVM's answer depends on; empty where it says nothing."""
    try:
        with CPUINFO.open() as file:
            text = file.read(1 << 14).partition("\n\n")[0]
    except OSError:
        return ""
    return "\n".join(line for line in text.split("\n") if not line.startswith(CHANGING))
