"""Instructions of the hot loops, counted: a worse code generation is seen here without a timer."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import pytest

from ternrun.runtime.cpu.compile import isa
from ternrun.runtime.cpu.compile.kernel_cache import folder_for
from ternrun.runtime.cpu.compile.worker_processes import build_environment
from ternrun.runtime.cpu.layout import KV_SIZE
from tests.runtime.cpu.harness import ISAS, machine

PRINT = (
    "import sys; from ternrun.runtime.cpu.compile.build import compile_kernel; "
    "machine, module = compile_kernel(sys.argv[1]); print(machine.emit_assembly(module))"
)
Loop = list[str]


def assembly(name: str, kernel: str) -> list[str]:
    """Lines of a kernel's assembly, kept beside its object file."""
    machine(name)
    kept = folder_for(isa.select_isa(name)) / f"{kernel}.s"
    if not kept.exists():
        command = [sys.executable, "-P", "-c", PRINT, kernel]
        done = subprocess.run(
            command, env=build_environment(isa.select_isa(name)), capture_output=True, text=True, check=True
        )
        kept.write_text(done.stdout)
    return kept.read_text().replace("{vex}", "").splitlines()


def innermost_loops(lines: list[str]) -> list[Loop]:
    """Instructions of each loop that holds no other: from a label to the jump back to it."""
    labels = {m[1]: n for n, line in enumerate(lines) if (m := re.match(r"(\.?\w+):", line))}
    jumps = [
        (labels[m[1]], n)
        for n, line in enumerate(lines)
        if (m := re.match(r"\s+j\w+\s+(\S+)", line)) and m[1] in labels
    ]
    loops = {(start, end) for start, end in jumps if start <= end}
    inner = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    return [[line for line in lines[a : b + 1] if re.match(r"\s+[a-z]", line)] for a, b in inner]


def hot_loops(name: str, kernel: str, work: str) -> list[tuple[Loop, Counter[str]]]:
    """Innermost loops with at least a dozen of the instruction that does the work, densest first."""
    found = [(loop, Counter(line.split()[0] for line in loop)) for loop in innermost_loops(assembly(name, kernel))]
    return sorted((f for f in found if f[1][work] >= 12), key=lambda f: len(f[0]) / f[1][work])


@pytest.mark.parametrize("kernel", ["ternary_lut16.rows", "ternary_lut16.blocks"])
@pytest.mark.parametrize("name", sorted({"avx512"} & {*ISAS}))
def test_table_lookups(name: str, kernel: str) -> None:
    """One lookup, one addition; words and tables loaded once each; one shift for the next index; nothing spilt."""
    loops = hot_loops(name, kernel, "vpermw")
    assert len(loops) >= 2  # a tile of tokens, and one token
    for loop, count in loops:
        assert count["vpaddw"] == count["vpermw"]
        assert not [line for line in loop if "%rsp" in line or "%rbp" in line]
        useful = sum(count[i] for i in ("vpermw", "vpaddw", "vpsrlw", "vmovdqu64", "vmovdqa64", "prefetcht1"))
        assert len(loop) - useful <= 5  # counters, addresses and the jump
    tile, one = loops[0], loops[-1]
    assert len(tile[0]) <= 2.7 * tile[1]["vpermw"]
    assert len(one[0]) <= 3.6 * one[1]["vpermw"]


@pytest.mark.parametrize("name", sorted({"avx2"} & {*ISAS}))
def test_byte_products(name: str) -> None:
    """One multiplication and one addition for each vector of products; codes are masked and shifted once a tile."""
    loops = hot_loops(name, "ternary_byte_dot.any", "vpmaddubsw")
    tiles = [count for _, count in loops if count["vpand"] < count["vpmaddubsw"]]
    assert len(tiles) >= 1
    assert len(tiles) < len(loops)  # a tile of tokens, and one token
    for loop, count in loops:
        assert count["vpaddw"] == count["vpmaddubsw"]
        if count in tiles:
            assert 4 * count["vpand"] == count["vpmaddubsw"]
            assert len([line for line in loop if "%rsp" in line]) <= count["vpmaddubsw"] / 2
            assert len(loop) <= 3.5 * count["vpmaddubsw"]
        else:
            assert count["vpand"] == count["vpmaddubsw"]
            assert not [line for line in loop if "%rsp" in line]
            assert len(loop) <= 4.7 * count["vpmaddubsw"]


@pytest.mark.parametrize("name", sorted({"avxvnni"} & {*ISAS}))
def test_byte_dot_products(name: str) -> None:
    """One instruction multiplies and adds; codes are masked and shifted once a tile; nothing is spilt."""
    loops = hot_loops(name, "ternary_byte_dot.any", "vpdpbusd")
    tiles = [count for _, count in loops if count["vpand"] < count["vpdpbusd"]]
    assert 1 <= len(tiles) < len(loops)  # a tile of tokens, and one token
    for loop, count in loops:
        assert not count["vpmaddubsw"]
        assert not [line for line in loop if "%rsp" in line]
        assert count["vpand"] == count["vpdpbusd"] / (4 if count in tiles else 1)
        assert len(loop) <= (2.3 if count in tiles else 3.7) * count["vpdpbusd"]


@pytest.mark.parametrize(("kernel", "widen"), [("attention.f16", "vcvtph2ps"), ("attention.int8", "vpmovsxbd")])
@pytest.mark.parametrize("name", sorted({"avx512"} & {*ISAS}))
def test_four_queries_share_what_is_loaded(name: str, kernel: str, widen: str) -> None:
    """Scores and mixing: sixteen multiply-adds for every four vectors of keys or values, and little beside them."""
    loops = [f for f in hot_loops(name, kernel, "vfmadd231ps") if f[1]["vfmadd231ps"] == 4 * f[1][widen]]
    assert len(loops) >= 4  # scores and mixing, with and without prefetches; LLVM may duplicate the loop of int8 groups
    lines = KV_SIZE[kernel.partition(".")[2]]  # cache lines of 64 elements, which are prefetched a block ahead
    prefetches = [count["prefetcht1"] for _, count in loops]
    assert prefetches.count(lines) == 2
    assert prefetches.count(0) == len(loops) - 2  # many tokens prefetch nothing
    for loop, count in loops:
        assert count["vfmadd231ps"] == 16
        assert len(loop) - count["vcvtdq2ps"] - count["prefetcht1"] <= 30
        assert len([line for line in loop if "%rsp" in line]) <= 2  # counters


@pytest.mark.skipif("+avx512vnni" not in isa.select_isa(ISAS[0]).features, reason="the head is not screened here")
def test_screening() -> None:
    """Dot products straight from memory; where four tokens share two blocks of rows, six loads for eight of them."""
    loops = hot_loops("avx512", "lm_head_screen.scan", "vpdpbusd")
    assert len(loops) >= 3  # four tokens, their high planes alone, one token
    assert [count["vpbroadcastd"] + count["vmovdqu64"] for _, count in loops].count(12) == 1
    for loop, count in loops:
        assert len(loop) - count["prefetcht1"] <= (2.3 if count["vpbroadcastd"] else 2) * count["vpdpbusd"]
        assert not [line for line in loop if re.search(r"zmm.*rsp|rsp.*zmm", line)]


@pytest.mark.parametrize("name", ISAS)
def test_nothing_is_called(name: str) -> None:
    """Kernels stand alone: no helper of numba's, no library function is left to be linked."""
    kernel = {"avx512": "ternary_lut16.rows"}.get(name, "ternary_byte_dot.any")
    calls = [line for line in assembly(name, kernel) if re.match(r"\s+call\w*\s+[^*]", line)]
    assert not calls
