"""Record what llama.cpp's samplers leave of made-up logits: tests/data/llama_samplers.json.

    python -m tests.oracle.samplers LIBRARY          # run from the repository's root

LIBRARY is llama.cpp's libllama.so, such as the one in llama-cpp-python's folder `lib`. No model is needed.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path("tests/data/llama_samplers.json")
CASES = 12  # of each sampler
F, INT, N, P, U = ctypes.c_float, ctypes.c_int32, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_uint32


class Token(ctypes.Structure):
    _fields_ = [("id", INT), ("logit", F), ("p", F)]


class Tokens(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(Token)), ("size", N), ("selected", ctypes.c_int64), ("sorted", ctypes.c_bool)]


class Library:
    """The functions of libllama.so that make and run samplers."""

    def __init__(self, path: str) -> None:
        self._lib = ctypes.CDLL(path, mode=os.RTLD_LAZY)

    def make(self, name: str, *arguments: Any) -> Any:
        made = self._lib[f"llama_sampler_init_{name}"]
        made.restype = P
        return P(made(*arguments))

    def accept(self, sampler: Any, token: int) -> None:
        self._lib.llama_sampler_accept(sampler, INT(token))

    def apply(self, sampler: Any, logits: list[float]) -> tuple[dict[int, float], int]:
        """What it leaves, by id, and the id that it selects; -1 where it selects none."""
        data = (Token * len(logits))(*(Token(i, x, 0) for i, x in enumerate(logits)))
        tokens = Tokens(data, len(logits), -1, False)
        self._lib.llama_sampler_apply(sampler, ctypes.byref(tokens))
        left = [tokens.data[i] for i in range(tokens.size)]
        chosen = left[tokens.selected].id if tokens.selected >= 0 else -1
        return {t.id: round(float(t.logit), 5) for t in left if t.logit > -np.inf}, chosen


# sampler -> its fields for a random generator, and what is made with them
SAMPLERS: dict[str, tuple[Any, Any]] = {
    "top_k": (lambda r: {"top_k": int(r.integers(1, 20))}, lambda m, f: m("top_k", INT(f["top_k"]))),
    "top_p": (
        lambda r: {"top_p": share(r), "min_keep": keep(r)},
        lambda m, f: m("top_p", F(f["top_p"]), N(f["min_keep"])),
    ),
    "min_p": (
        lambda r: {"min_p": share(r), "min_keep": keep(r)},
        lambda m, f: m("min_p", F(f["min_p"]), N(f["min_keep"])),
    ),
    "typical_p": (
        lambda r: {"typical_p": share(r), "min_keep": keep(r)},
        lambda m, f: m("typical", F(f["typical_p"]), N(f["min_keep"])),
    ),
    "xtc": (
        lambda r: {"xtc_probability": 1.0, "xtc_threshold": round(r.uniform(0.01, 0.2), 3), "min_keep": keep(r)},
        lambda m, f: m("xtc", F(1), F(f["xtc_threshold"]), N(f["min_keep"]), U(0)),
    ),
    "top_n_sigma": (
        lambda r: {"top_n_sigma": round(r.uniform(0.1, 3), 3)},
        lambda m, f: m("top_n_sigma", F(f["top_n_sigma"])),
    ),
    "temperature": (
        lambda r: {
            "temperature": round(r.uniform(0.1, 2), 3),
            "dynatemp_range": round(r.uniform(0, 1.5), 3),
            "dynatemp_exponent": round(r.uniform(0.3, 3), 3),
        },
        lambda m, f: m("temp_ext", F(f["temperature"]), F(f["dynatemp_range"]), F(f["dynatemp_exponent"])),
    ),
    "dry": (
        lambda r: {
            "dry_multiplier": round(r.uniform(0.1, 2), 3),
            "dry_base": float(r.choice([1.0, 1.2, 1.75, 3.0])),
            "dry_allowed_length": int(r.integers(0, 4)),
            "dry_penalty_last_n": int(r.choice([100, 12, 5])),
        },
        lambda m, f: m(
            "dry", P(), F(f["dry_multiplier"]), F(f["dry_base"]), INT(f["dry_allowed_length"]),
            INT(f["dry_penalty_last_n"]), P(), N(0),
        ),
    ),
}  # fmt: skip


def share(r: np.random.Generator) -> float:
    return round(r.uniform(0.01, 0.99), 3)


def keep(r: np.random.Generator) -> int:
    return int(r.choice([0, 0, 1, 5]))


def some_logits(r: np.random.Generator, size: int) -> list[float]:
    return [float(x) for x in r.normal(0, r.uniform(0.3, 4), size).round(3)]


def steps(lib: Library, r: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    for name, (fields_of, make) in SAMPLERS.items():
        for _ in range(CASES):
            fields = fields_of(r)
            history = [int(t) for t in r.integers(0, 3, r.integers(1, 40))] if name == "dry" else []
            sampler = make(lib.make, fields)
            for token in history:
                lib.accept(sampler, token)
            logits = some_logits(r, 4 if name == "dry" else int(r.integers(2, 24)))
            left, _ = lib.apply(sampler, logits)
            found.append({"step": name, "fields": fields, "history": history, "logits": logits, "left": left})
    return found


def mirostat(lib: Library, r: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    for version in (1, 2) * CASES:
        tau, eta, size = round(r.uniform(0.5, 4), 3), round(r.uniform(0.05, 0.5), 3), int(r.integers(5, 24))
        shape = (INT(size), U(1), F(tau), F(eta), INT(100)) if version == 1 else (U(1), F(tau), F(eta))
        sampler, rows = lib.make("mirostat" if version == 1 else "mirostat_v2", *shape), []
        for _ in range(6):
            logits = some_logits(r, size)
            left, chosen = lib.apply(sampler, logits)
            rows.append({"logits": logits, "left": sorted(left), "chosen": chosen})
        fields = {"mirostat": version, "mirostat_tau": tau, "mirostat_eta": eta}
        found.append({"fields": fields, "rows": rows})
    return found


def main(path: str) -> None:
    lib, r = Library(path), np.random.default_rng(0)
    FILE.write_text(json.dumps({"steps": steps(lib, r), "mirostat": mirostat(lib, r)}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
