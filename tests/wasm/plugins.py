"""Guests put together by hand: the ABI in its smallest form, to be bent where a test bends it."""

from tests.support.assembler import (
    ADD,
    EXTEND,
    LOAD,
    OR64,
    SHL64,
    STORE,
    STORE64,
    Assembly,
    call,
    get,
    get_global,
    i32,
    i64,
    put_global,
)

ERROR_BIT = 1 << 31
HEAP = 4096  # where malloc begins
MALLOCS, FREES = 16, 20  # addresses at which calls are counted
WASI = "wasi_snapshot_preview1"

Imports = tuple[tuple[str, str, str], ...]
"""Module, name, type; they are functions 0, 1 and so on."""


def packed(pointer: bytes, size: bytes) -> bytes:
    """Code that leaves the ABI's result of two i32."""
    return pointer + EXTEND + i64(32) + SHL64 + size + EXTEND + OR64


ECHO = packed(get(0), get(1))
NOTHING = i64(0)


def counted(address: int) -> bytes:
    return i32(address) + i32(address) + LOAD + i32(1) + ADD + STORE


def plugin(
    methods: dict[str, bytes] | None = None,
    *,
    imports: Imports = (),
    malloc: bytes = b"",
    free: bytes = b"",
    version: bytes = i64(1),
    extra: dict[str, tuple[str, bytes]] | None = None,
    start: bytes | None = None,
    data: dict[int, bytes] | None = None,
    pages: int = 4,
) -> bytes:
    """A guest whose `methods` are code of the type (i32, i32) -> i64.

    `malloc` and `free` are code that runs before the usual, `extra` are more exports of any
    type, `start` is the module's start function.
    """
    module = Assembly(pages)
    for where, field, kind in imports:
        module.imported(where, field, kind)
    top = module.global_i32(HEAP)
    bump = get_global(top) + get_global(top) + get(0) + ADD + put_global(top)
    exports = {
        "malloc": ("ii", malloc + counted(MALLOCS) + bump),
        "free": ("i-", free + counted(FREES)),
        "plugin_api_version": ("I", version),
        **{f"plugin_{name}": ("iiI", code) for name, code in (methods or {}).items()},
        **(extra or {}),
    }
    for export, (kind, code) in exports.items():
        module.function(kind, code, export=export)
    if start is not None:
        module.function("-", start, start=True)
    for offset, content in (data or {}).items():
        module.data(offset, content)
    return module.build()


def asking(where: str, field: str, kind: str, *arguments: bytes, data: bytes = b"") -> bytes:
    """A plugin whose Configure calls one host function and answers what that returned.

    `arguments` are code; `data` lies at 1024. Of a result of i64 all 8 bytes are answered.
    """
    store = {"i": STORE, "I": STORE64}.get(kind[-1])
    asked = b"".join(arguments) + call(0)
    if store is None:
        body = asked + NOTHING
    else:
        body = i32(512) + asked + store + packed(i32(512), i32(4 if kind[-1] == "i" else 8))
    return plugin({"configure": body}, imports=((where, field, kind),), data={1024: data})
