"""The host CPU's name and features as LLVM reports them, cached because importing LLVM takes longer than loading
kernels.
"""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

from ternrun.runtime.cpu.compile import cache_files

CPUINFO = Path("/proc/cpuinfo")
CHANGING = ("cpu MHz", "bogomips", "BogoMIPS")  # lines that vary between reads on the same CPU


def usable_cpus() -> int:
    """The number of CPUs this process may run on. A container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def host() -> tuple[str, dict[str, bool]]:
    """LLVM's name of the CPU, and its features by name. Platforms unknown to LLVM have no features."""
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
    """The CPU's name and features from LLVM itself, without the cache."""
    import llvmlite.binding as llvm

    try:
        features = dict(llvm.get_host_cpu_features())
    except RuntimeError:  # LLVM does not know this platform
        features = {}
    return llvm.get_host_cpu_name(), features


def first_processor() -> str:
    """The lines of /proc/cpuinfo about the first processor that determine LLVM's answer; empty if there are none."""
    try:
        with CPUINFO.open() as file:
            text = file.read(1 << 14).partition("\n\n")[0]
    except OSError:
        return ""
    return "\n".join(line for line in text.split("\n") if not line.startswith(CHANGING))
