"""Loads object files of LLVM's just-in-time compiler: ELF for x86-64.

Their code may lie anywhere, as it refers to everything by addresses of 64 bits: to fill
in these is all that there is to linking. Other files are refused.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Callable
from typing import NamedTuple

_HEADER = struct.Struct("<4sBB10xHH20xQ10xHH2x")
_SECTION = struct.Struct("<4xIQ8xQQIIQ8x")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_ADDRESS = struct.Struct("<q")

_RELOCATABLE_X86_64 = (b"\x7fELF", 2, 1, 1, 62)
_SYMBOLS, _RELOCATIONS, _ZEROS = 2, 4, 8  # kinds of sections
_UNWINDING = 0x70000001  # for exceptions of C++, which nobody throws
_ALLOCATED, _CODE, _OF_A_THREAD = 2, 4, 1 << 10  # flags of sections
_COMMON = 0xFFF2  # a symbol that only has a size
_ADDRESS_64 = 1  # R_X86_64_64

_ENTRY = "cfunc."  # how Numba calls C functions


class UnsuitableError(Exception):
    """An object file needs something that is not here."""


class _Section(NamedTuple):
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


def load(code: bytes, find: Callable[[str], int]) -> int:
    """Makes an object file a part of this process.

    Args:
        code (bytes): The file.
        find: Returns the address of a symbol that is defined elsewhere.

    Returns:
        int: The address of its C function.

    Raises:
        UnsuitableError: The file is of another kind, or ``find`` raised this.
        OSError: The system permits no new code.
    """
    sections = _read_sections(code)
    places, end_of_code, size = _arrange(sections)
    symbols, size = _read_symbols(code, sections, places, size)
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for i, place in places.items():
        if sections[i].kind != _ZEROS:
            memory[place : place + sections[i].size] = _content(code, sections[i])
    for section in sections:
        if section.kind != _RELOCATIONS or section.info not in places:
            continue
        place = places[section.info]
        for offset, what, more in _RELOCATION.iter_unpack(_content(code, section)):
            if what & 0xFFFFFFFF != _ADDRESS_64:
                raise UnsuitableError(f"relocation {what & 0xFFFFFFFF}")
            name, value = symbols[what >> 32]
            value = find(name) if value is None else first + value
            _ADDRESS.pack_into(memory, place + offset, value + more)
    entries = [value for name, value in symbols if name.startswith(_ENTRY)]
    if len(entries) != 1 or entries[0] is None:
        raise UnsuitableError(f"{len(entries)} C functions")
    _permit(first, end_of_code)
    # For ever: a thread may still run it when Python ends, and takes all else away.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
    return first + entries[0]


def _read_sections(code: bytes) -> list[_Section]:
    *kind, table, size, count = _HEADER.unpack_from(code)
    if tuple(kind) != _RELOCATABLE_X86_64 or size != _SECTION.size:
        raise UnsuitableError("not ELF for x86-64")
    return [
        _Section(*_SECTION.unpack_from(code, table + i * size)) for i in range(count)
    ]


def _content(code: bytes, section: _Section) -> bytes:
    return code[section.offset : section.offset + section.size]


def _arrange(sections: list[_Section]) -> tuple[dict[int, int], int, int]:
    """Returns where sections go: first the code, on pages of its own."""
    places: dict[int, int] = {}
    end_of_code = size = 0
    for code in (_CODE, 0):
        for i, section in enumerate(sections):
            kind, flags = section.kind, section.flags
            if not flags & _ALLOCATED or flags & _CODE != code or kind == _UNWINDING:
                continue
            if flags & _OF_A_THREAD:
                raise UnsuitableError("variables of a thread")
            places[i] = size = _up_to(size, section.alignment)
            size += section.size
        if code:
            end_of_code = size = _up_to(size, mmap.PAGESIZE)
    return places, end_of_code, size


def _up_to(n: int, multiple: int) -> int:
    return n + -n % max(multiple, 1)


def _read_symbols(code, sections, places, size) -> tuple[list, int]:
    """Returns each symbol's name and place, if any, and the size of all memory."""
    symbols: list[tuple[str, int | None]] = []
    for section in sections:
        if section.kind != _SYMBOLS:
            continue
        names = _content(code, sections[section.link])
        for name, _, _, where, value, extent in _SYMBOL.iter_unpack(
            _content(code, section)
        ):
            place = None
            if where == _COMMON:
                place = _up_to(size, value)
                size = place + extent
            elif where in places:
                place = places[where] + value
            symbols.append((names[name : names.index(b"\0", name)].decode(), place))
    return symbols, size


def _permit(first: int, size: int) -> None:
    """Lets code run, and no longer change."""
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    if protect(first, size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "the system permits no new code")
