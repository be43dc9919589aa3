"""Where a guest failed: names of functions, and lines of the source where they are known.

Names are those of the custom section "name", else of exports. Lines need the package pyelftools
and debug information in the module (DWARF for WebAssembly: addresses count from the content of the
code section).
"""

import io
from collections.abc import Sequence
from typing import Any

from edge_agent.authors.inspection import (
    custom_section,
    exported_names,
    function_names,
    sections_of,
)
from edge_agent.errors import ModuleError

_CUSTOM, _CODE = 0, 10
MAX_DEBUG_BYTES = 64 << 20
MAX_ROWS = 1_000_000  # of the tables of lines that are looked through
_TABLES = (
    *("debug_info", "debug_aranges", "debug_abbrev", "debug_frame", "eh_frame", "debug_str"),
    *("debug_loc", "debug_ranges", "debug_line", "debug_pubtypes", "debug_pubnames", "debug_addr"),
    *("debug_str_offsets", "debug_line_str", "debug_loclists", "debug_rnglists", "debug_sup"),
    *("gnu_debugaltlink", "debug_types"),
)


def described(wasm: bytes, frames: Sequence[tuple[int, int]], *, lines: bool) -> list[str]:
    """A line for each call, such as "strcpy, string.c:31".

    `frames` as GuestFault has them. Without `lines` their offsets are those of another module: one
    that counts instructions.
    """
    if not frames:
        return []
    names = _names(wasm)
    found = _lines(wasm, [offset for _, offset in frames]) if lines else {}
    told = []
    for function, offset in frames:
        name = names.get(function, f"function {function}")
        told.append(f"{name}, {found[offset]}" if offset in found else name)
    return told


def _names(wasm: bytes) -> dict[int, str]:
    for number, content in sections_of(wasm):
        if number == _CUSTOM and (parts := custom_section(content))[0] == "name":
            try:
                return function_names(parts[1])
            except (IndexError, ModuleError):
                break
    return exported_names(wasm)


def _lines(wasm: bytes, offsets: Sequence[int]) -> dict[int, str]:
    """ "FILE:LINE" of these places in the module, as far as debug information tells them."""
    tables: dict[str, bytes] = {}
    begin = at = 8
    for number, content in sections_of(wasm):
        at = wasm.index(content, at) if content else at  # behind its number and its size
        if number == _CODE:
            begin = at
        elif number == _CUSTOM and (parts := custom_section(content))[0].startswith(".debug_"):
            tables[parts[0]] = parts[1]
        at += len(content)
    if ".debug_line" not in tables or sum(map(len, tables.values())) > MAX_DEBUG_BYTES:
        return {}
    try:
        from elftools.dwarf import dwarfinfo
    except ImportError:
        return {}
    given = {
        f"{name}_sec": dwarfinfo.DebugSectionDescriptor(
            io.BytesIO(table), name, None, len(table), 0
        )
        if (table := tables.get(f".{name}"))
        else None
        for name in _TABLES
    }
    config = dwarfinfo.DwarfConfig(little_endian=True, machine_arch="wasm", default_address_size=4)
    try:
        return _searched(dwarfinfo.DWARFInfo(config, **given), begin, offsets)
    except Exception:
        return {}


def _searched(information: Any, begin: int, offsets: Sequence[int]) -> dict[int, str]:
    """`begin` is where the code section's content is in the module."""
    wanted = {offset - begin: offset for offset in offsets}
    found: dict[int, str] = {}
    rows = 0
    for unit in information.iter_CUs():
        program = information.line_program_for_CU(unit)
        before = None
        for entry in program.get_entries() if program else ():
            row = entry.state
            if row is None:
                continue
            rows += 1
            if rows > MAX_ROWS:
                return found
            if before is not None:
                for address in wanted:
                    if before.address <= address < row.address:
                        found[wanted[address]] = f"{_file(program, before.file)}:{before.line}"
            before = None if row.end_sequence else row
    return found


def _file(program: Any, number: int) -> str:
    """The name without its folder. DWARF 5 counts from 0, before from 1."""
    first = 0 if program["version"] >= 5 else 1
    name: str = program["file_entry"][number - first].name.decode(errors="replace")
    return name.rpartition("/")[2]
