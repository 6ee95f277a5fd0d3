"""The machine the figures are of."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

from ternrun.runtime.cpu.compile import isa as instruction_sets
from ternrun.runtime.cpu.compile.isa import Isa
from ternrun.runtime.cpu.model import default_threads

TELLING = ("avx2", "avxvnni", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi", "avx512vbmi2", "avx512bf16", "neon")


def describe(isa: Isa) -> dict[str, Any]:
    """CPU, features, cores, memory, system."""
    features = set(re.findall(r"\+([\w.-]+)", instruction_sets.select_isa(instruction_sets.available()[0]).features))
    return {
        "cpu": cpu_name(),
        "isa": isa.name,
        "isa_reason": isa.reason,
        "features": [name for name in TELLING if name in features],
        "cores": default_threads(),
        "l3_bytes": l3_bytes(),
        "memory_bytes": memory_bytes(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def cpu_name() -> str:
    """What the CPU calls itself."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def memory_bytes() -> int:
    """Memory of the machine; 0 where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def l3_bytes() -> int:
    """Size of the last cache that cores share; 0 where the system does not say."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
    except OSError:
        return 0
    return int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]] if text[-1:] in ("K", "M") else 0
