"""Plugins written down in a test, in WebAssembly's text form."""

from collections.abc import Mapping

import pytest

PLUGIN = """
  (func (export "plugin_api_version") (result i64) (i64.const 1))
  (func (export "malloc") (param i32) (result i32) (i32.const 32768))
  (func (export "free") (param i32))
"""
MEMORY = '(memory (export "memory") 1)'


def module(body: str, before: str = "") -> bytes:
    """A module; `before` is for imports, which come first."""
    wasmtime = pytest.importorskip("wasmtime", reason="needs wasmtime: reads the text form")
    return bytes(wasmtime.wat2wasm(f"(module {before} {body})"))


def constant(replies: Mapping[str, bytes], imports: str = "", more: str = "") -> bytes:
    """A plugin that exports these methods (as "plugin_..."), each with its only reply."""
    parts, at = [PLUGIN, MEMORY, more], 1024
    for export, reply in replies.items():
        text = "".join(f"\\{byte:02x}" for byte in reply)
        packed = at << 32 | len(reply) if reply else 0
        parts.append(f'(data (i32.const {at}) "{text}")')
        parts.append(
            f'(func (export "{export}") (param i32 i32) (result i64) (i64.const {packed}))'
        )
        at += len(reply)
    return module("\n".join(parts), imports)
