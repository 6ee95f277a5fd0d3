"""The names of all kernels that some model may need on an instruction set: what `ternrun warm --all` compiles."""

from __future__ import annotations

from ternrun.runtime.cpu.compile.isa import Isa
from ternrun.runtime.cpu.layout import KV_SIZE
from ternrun.runtime.cpu.program.thread_pool import KERNELS
from ternrun.runtime.encodings import ENCODINGS

_TERNARY = tuple(name for name, encoding in ENCODINGS.items() if encoding.kind == "ternary")
#: Encodings that products read as ordinary weights. Q2_0 and PQ2_0 are here because tensors that use their fourth
#: code are not ternary.
_ORDINARY = (*(name for name in ENCODINGS if name not in _TERNARY), "Q2_0", "PQ2_0")
_FIXED = {
    "elements": ("erf", "gelu", "silu", "softmax", "layer_norm", "bias"),
    "greedy": ("best", "feed"),
    "mhc": ("spread", "read", "write", "mean"),
    "rows": ("norm", "norm_add", "norm_outputs", "bias", "softcap", "silu", "gelu", "relu2"),
}
_SCREEN = ("prepare", "scan", "select", "gather")
_PRODUCTS = {
    "lut16": ("ternary_lut16.rows", "ternary_lut16.blocks", "check.lut16"),
    "byte_dot": ("ternary_byte_dot.any",),
}


def all_kernels(isa: Isa) -> set[str]:
    """The names of all kernels except those that only measure the machine."""
    layout = isa.layout
    names = {f"{module}.{entry}" for module, entries in _FIXED.items() for entry in entries}
    names |= {f"{module}.{kind}" for module in ("attention", "attention_softcap", "cache") for kind in KV_SIZE}
    names |= {f"{module}.{kind}" for module in ("linear", "embed") for kind in _ORDINARY}
    names |= {f"embed.{kind}-trits" for kind in _TERNARY}
    names |= {f"pack.{kind}-{layout}" for kind in _TERNARY if not (layout == "lut16" and ENCODINGS[kind].chunk)}
    if isa.has_dot_bytes:
        names |= {f"lm_head_screen.{entry}" for entry in _SCREEN}
        names |= {f"{module}{kind}" for module in ("lm_head_screen.exact-", "lm_head_copy.") for kind in _ORDINARY}
    return names | {f"prepare.{layout}", *_PRODUCTS[layout], *KERNELS}
