"""Link an object file to an image: position-independent machine code that needs no further linking.

Only the objects that LLVM emits for a kernel are supported: x86-64 ELF whose sections refer to each other by distance,
and to nothing outside. LLVM's own linker loads all other objects, in every process.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = b"image\0\0\0"
PREFIX = 16  # bytes: the magic, then the entry's offset (u64)
ALIGN = 64  # bytes that an image's address in memory is a multiple of

_X86_64, _RELA, _NOBITS, _UNWIND = 62, 4, 8, 0x70000001
_WRITE, _ALLOC = 1, 2
_DISTANCES = {2: "<i", 4: "<i", 24: "<q"}  # R_X86_64_PC32, _PLT32, _PC64: target + addend - place


class _Section(NamedTuple):
    """The fields of a section header except its name and address."""

    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int


def image(code: bytes, entry: str) -> bytes | None:
    """The image of an object file, entered at symbol `entry`; None if the object cannot be linked here."""
    if code[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", code, 18)[0] != _X86_64:
        return None
    sections = _sections(code)
    placed = _place(sections)
    if placed is None:
        return None
    where, size = placed
    out = bytearray(size)
    for i, start in where.items():
        out[start : start + sections[i].size] = code[sections[i].offset : sections[i].offset + sections[i].size]
    for relocations in sections:
        if (
            relocations.kind == _RELA
            and relocations.info in where
            and not _relocate(code, sections, where, relocations, out)
        ):
            return None
    at = _entry(code, sections, where, entry)
    return None if at is None else MAGIC + struct.pack("<Q", at) + out


def _sections(code: bytes) -> list[_Section]:
    """The section headers of an ELF file."""
    table, (size, count) = struct.unpack_from("<Q", code, 40)[0], struct.unpack_from("<HH", code, 58)
    rows = (struct.unpack_from("<IIQQQQIIQQ", code, table + size * i) for i in range(count))
    return [_Section(r[1], r[2], r[4], r[5], r[6], r[7], r[8]) for r in rows]


def _place(sections: list[_Section]) -> tuple[dict[int, int], int] | None:
    """The offset of each section in the image, and the image's size; None if the object has a writable section."""
    where, end = {}, 0
    for i, section in enumerate(sections):
        if not section.flags & _ALLOC or not section.size or section.kind == _UNWIND:
            continue
        if section.flags & _WRITE or section.kind == _NOBITS or section.align > ALIGN:
            return None
        where[i] = end + -end % max(section.align, 1)
        end = where[i] + section.size
    return where, end


def _symbol(code: bytes, table: _Section, index: int, where: dict[int, int]) -> int | None:
    """The offset of a symbol in the image; None for an external symbol."""
    section, value = struct.unpack_from("<HQ", code, table.offset + 24 * index + 6)
    return where[section] + value if section in where else None


def _relocate(
    code: bytes, sections: list[_Section], where: dict[int, int], relocations: _Section, out: bytearray
) -> bool:
    """Apply a section's relocations to `out`; returns False if one cannot be resolved."""
    for at in range(relocations.offset, relocations.offset + relocations.size, 24):
        offset, kind, symbol, addend = struct.unpack_from("<QIIq", code, at)
        target = _symbol(code, sections[relocations.link], symbol, where)
        if kind not in _DISTANCES or target is None:
            return False
        place = where[relocations.info] + offset
        struct.pack_into(_DISTANCES[kind], out, place, target + addend - place)
    return True


def _entry(code: bytes, sections: list[_Section], where: dict[int, int], name: str) -> int | None:
    """The offset of the symbol `name` in the image."""
    table = next(s for s in sections if s.kind == 2)  # SHT_SYMTAB
    names = sections[table.link].offset
    wanted = name.encode() + b"\0"
    for index in range(table.size // 24):
        start = names + struct.unpack_from("<I", code, table.offset + 24 * index)[0]
        if code[start : start + len(wanted)] == wanted:
            return _symbol(code, table, index, where)
    return None
