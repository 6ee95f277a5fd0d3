"""The instruction sets that kernels are compiled for, and the choice of one: the best available, or TERNRUN_ISA.

- avx512: table permutes over 32 int16 lanes (AVX-512 BW)
- avxvnni: AVX2 with byte dot products (Intel's desktops from Alder Lake on, AMD's from Zen 5)
- avx2: byte multiply-add (AVX2, FMA, F16C)
- portable: vectors as LLVM splits them, on any CPU
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from ternrun.errors import ConfigError
from ternrun.runtime.cpu.compile.host import host

ENV = "TERNRUN_ISA"
FORCED = "forced"  # the reason of an instruction set that the caller or the environment names
BUILD_ENV = "TERNRUN_BUILD_ISA"  # set by `worker_processes.py` for the process that compiles

REQUIRED = {
    "avx512": ("avx512f", "avx512bw", "avx512vl", "avx512dq", "f16c", "fma"),
    "avxvnni": ("avx2", "f16c", "fma", "avxvnni"),
    "avx2": ("avx2", "f16c", "fma"),
    "portable": (),
}


@dataclass(frozen=True, slots=True)
class Isa:
    """One instruction set: its name, LLVM's CPU and feature strings, and the reason for choosing it."""

    name: str
    cpu: str
    features: str
    reason: str

    @property
    def layout(self) -> str:
        """The layout of ternary codes for its kernels: `lut16` for table lookups, `byte_dot` for byte products."""
        return "lut16" if self.name == "avx512" else "byte_dot"

    @property
    def has_dot_bytes(self) -> bool:
        """Whether `x86.dot_bytes` exists."""
        return self.name in ("avxvnni", "avx2") or "+avx512vnni" in self.features


def available() -> list[str]:
    """The instruction sets that this CPU supports, best first."""
    _, features = host()
    return [name for name, needs in REQUIRED.items() if all(features.get(f) for f in needs)]


def select_isa(name: str = "") -> Isa:
    """The instruction set `name`, or TERNRUN_ISA, or the best available.

    Raises ConfigError for a name that is unknown or that this CPU does not support.
    """
    forced = name or os.environ.get(ENV, "")
    found = available()
    if forced and forced not in REQUIRED:
        raise ConfigError(f"{ENV}={forced!r} is unknown; choose one of {', '.join(REQUIRED)}")
    if forced and forced not in found:
        raise ConfigError(f"{ENV}={forced} needs CPU features that this machine lacks; it has {', '.join(found)}")
    chosen = forced or found[0]
    reason = FORCED if forced else "the best this CPU has"
    cpu, features = host()
    if chosen == "avx512":
        listed = ",".join(f"{'+' if on else '-'}{f}" for f, on in sorted(features.items()))
        return Isa(chosen, cpu, listed, reason)
    if chosen in ("avx2", "avxvnni"):
        return Isa(chosen, "x86-64-v3", "+avxvnni" if chosen == "avxvnni" else "", reason)
    return Isa(chosen, "x86-64" if features.get("sse2") else "generic", "", reason)


def build_target() -> str:
    """The instruction set that this process compiles for. Meaningful only while kernels are being built."""
    return os.environ.get(BUILD_ENV, "portable")


#: Whether that instruction set has a fused multiply-add. Without it LLVM would call a slower library function.
FUSED = build_target() != "portable" or platform.machine().lower() not in ("x86_64", "amd64", "i686")
