"""A call that does not fit a kernel's signature is an error where the program is built."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.program.program import Program
from ternrun.runtime.cpu.signatures import ADDRESS, FLOAT, INTEGER, SEGMENT, SIGNATURES, Signature, signature_of

SOFTCAP: dict[str, Any] = {"count": 4096, "x": 8192, "ldx": 48, "n": 37, "cap": 30.0}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cap": None}, "missing: cap"),
        ({"scale": 1.0}, "surplus: scale"),
        ({"cap": 30}, "cap must be a float"),
        ({"n": 37.0}, "n must be a count"),
        ({"n": True}, "n must be a count"),
        ({"n": 140_000_000_000_000}, "n must be a count"),
        ({"x": 48}, "x must be an address"),
        ({"x": -8192}, "x must be an address"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, Any], says: str) -> None:
    args = {name: value for name, value in (SOFTCAP | change).items() if value is not None}
    with pytest.raises(TypeError, match=f"rows.softcap.*{says}"):
        Program().call("rows.softcap", **args)


def test_swapped_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="x must be an address"):
        Program().call("rows.softcap", **(SOFTCAP | {"x": 48, "ldx": 8192}))


def test_a_kernel_without_a_signature_is_refused() -> None:
    with pytest.raises(TypeError, match="rows.unknown has no signature"):
        Program().call("rows.unknown", count=4096)


def test_arguments_are_packed_in_the_order_of_the_signature() -> None:
    words = SIGNATURES["rows.softcap"].pack("rows.softcap", dict(reversed(SOFTCAP.items())))
    assert words == [4096, 8192, 48, 37, struct.unpack("<q", struct.pack("<d", 30.0))[0]]


def test_records_follow_the_arguments() -> None:
    signature = Signature(Signature(at=ADDRESS), n=INTEGER)
    assert signature.pack("k", {"n": 2}, [{"at": 4096}, {"at": 0}]) == [2, 4096, 0]
    with pytest.raises(TypeError, match="missing: at"):
        signature.pack("k", {"n": 1}, [{}])
    with pytest.raises(TypeError, match="no repeated records"):
        SIGNATURES["rows.softcap"].pack("rows.softcap", SOFTCAP, [{"at": 0}])


@pytest.mark.parametrize(
    ("kernel", "has"),
    [
        ("linear.Q4_K", "row_bytes"),
        ("embed.Q4_K", "row_bytes"),
        ("embed.TQ2_0-trits", "group"),
        ("lm_head_screen.exact-F16", "row_ids"),
        ("attention.int8", "window"),
        ("ternary_lut16.blocks", "sums"),
        ("pack.I2_S-byte_dot", "superblocks"),
        ("ceiling.lookup", "rounds"),
        ("ceiling.read", "nbytes"),
    ],
)
def test_a_kernel_finds_the_signature_of_its_family(kernel: str, has: str) -> None:
    signature = signature_of(kernel)
    assert signature is not None
    assert has in signature.parameters


def test_every_signature_fits_a_record() -> None:
    for name, signature in SIGNATURES.items():
        repeated = 3 * len(SEGMENT) if signature.repeated else 0
        assert len(signature) + repeated <= layout.RECORD_ARGS, name
        assert {*signature.parameters.values()} <= {ADDRESS, INTEGER, FLOAT}
