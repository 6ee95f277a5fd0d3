"""What the type id of a GGUF tensor means. Ids collide between forks, so the bytes a tensor has decide between them.

Names that are keys of `ENCODINGS` can be run; the rest is known by name only, to be listed and refused with a remedy.
Sources: ggml.h of llama.cpp, bitnet.cpp, ik_llama.cpp and the PrismML fork (docs/formats.md).
"""

from __future__ import annotations

from math import prod

from ternrun.runtime.encodings import ENCODINGS, nbytes

Shape = tuple[int, ...]  # numpy order, rows first

# id -> names in order of preference
TYPE_NAMES: dict[int, tuple[str, ...]] = {
    0: ("F32",), 1: ("F16",), 2: ("Q4_0",), 3: ("Q4_1",), 4: ("Q4_2",), 5: ("Q4_3",), 6: ("Q5_0",), 7: ("Q5_1",),
    8: ("Q8_0",), 9: ("Q8_1",), 10: ("Q2_K",), 11: ("Q3_K",), 12: ("Q4_K",), 13: ("Q5_K",), 14: ("Q6_K",),
    15: ("Q8_K",), 16: ("IQ2_XXS",), 17: ("IQ2_XS",), 18: ("IQ3_XXS",), 19: ("IQ1_S",), 20: ("IQ4_NL",),
    21: ("IQ3_S",), 22: ("IQ2_S",), 23: ("IQ4_XS",), 24: ("I8",), 25: ("I16",), 26: ("I32",), 27: ("I64",),
    28: ("F64",), 29: ("IQ1_M",), 30: ("BF16",), 31: ("Q4_0_4_4",), 32: ("Q4_0_4_8",), 33: ("Q4_0_8_8",),
    34: ("TQ1_0",), 35: ("TQ2_0",), 36: ("I2_S", "IQ4_NL_4_4"), 37: ("I8_S",), 38: ("TL1",), 39: ("MXFP4", "TL2"),
    40: ("NVFP4", "Q1_0_G32"), 41: ("Q1_0",), 42: ("Q2_0", "PQ2_0"), 43: ("STQ1_0",),
    133: ("Q6_0",), 134: ("IQ1_BN",), 135: ("IQ2_BN",), 137: ("IQ2_K",), 138: ("IQ3_K",), 139: ("IQ4_K",),
    140: ("IQ5_K",), 141: ("IQ6_K",), 142: ("PQ2_0", "IQ2_TN"), 143: ("PTQ1_0", "IQ1_TN"), 144: ("IQ4_KS",),
    145: ("IQ2_KS",), 146: ("IQ4_KSS",), 152: ("IQ5_KS",), 153: ("IQ2_KT",), 154: ("IQ3_KT",), 155: ("IQ4_KT",),
    156: ("IQ3_KS",), 157: ("IQ2_KL",), 158: ("IQ1_KT",), 335: ("IQ2_BN_R4",),
    7000: ("T9_ROW",), 7064: ("T9_64",), 7128: ("T9_128",), 7256: ("T9_256",),
}  # fmt: skip
SEED_TYPE_NAMES = {0: ("F32",), 1: ("F16",), 100: ("Q1_58",)}
TYPE_IDS = {names[0]: i for i, names in TYPE_NAMES.items()}

# names that cannot be run but whose size is known: weights and bytes of a block
REFUSED_SIZES: dict[str, tuple[int, int]] = {
    "Q8_K": (256, 292), "IQ2_XXS": (256, 66), "IQ2_XS": (256, 74), "IQ3_XXS": (256, 98),
    "IQ1_S": (256, 50), "IQ3_S": (256, 110), "IQ2_S": (256, 82), "IQ1_M": (256, 56), "I8": (1, 1), "I16": (1, 2),
    "I32": (1, 4), "I64": (1, 8), "F64": (1, 8), "MXFP4": (32, 17), "NVFP4": (64, 36), "Q1_0_G32": (32, 6),
    "IQ4_NL_4_4": (32, 18),
}  # fmt: skip

_REQUANTIZE = "requantize the model to TQ2_0, Q8_0 or Q4_K"
_TILED = "its tiling is not stored in the file; requantize the original model to I2_S or TQ2_0"
_REMEDIES = {
    "TL1": _TILED,
    "TL2": _TILED,
    "IQ1_TN": "requantize it to IQ1_BN or TQ1_0",
    "IQ2_TN": "requantize it to TQ2_0",
}


def names_of(type_id: int, *, seed: bool = False) -> tuple[str, ...]:
    """What the id may mean, in order of preference; `seed`: in a file of the seed project's dialect."""
    return (SEED_TYPE_NAMES if seed else TYPE_NAMES).get(type_id, (f"id {type_id}",))


def size_of(name: str, shape: Shape) -> int | None:
    """Bytes of a tensor; -1 where its blocks do not divide the shape, None where the type's size is not known."""
    if name in ENCODINGS:
        size = nbytes(name, shape)
        return -1 if size is None else size
    if name not in REFUSED_SIZES:
        return None
    block, block_bytes = REFUSED_SIZES[name]
    return prod(shape) // block * block_bytes if shape[-1] % block == 0 else -1


def refusal(name: str) -> str:
    """Why a tensor of this type cannot be run and what to do, as the end of a sentence; empty for one that can."""
    if name in ENCODINGS:
        return ""
    return f"type {name} is not supported: {_REMEDIES.get(name, _REQUANTIZE)}"


def fits(size: int | None, span: int, alignment: int) -> bool:
    """Whether a tensor of `size` bytes can be what lies in the `span` bytes up to the next tensor."""
    return size is None or 0 <= size <= span < size + alignment
