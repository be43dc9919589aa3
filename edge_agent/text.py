"""Makes text that others wrote safe to show on one line of a terminal or a log."""

import re

# What could end a line, drive a terminal, turn the direction of writing or not be encoded:
# C0, DEL, C1, bidirectional controls, line and paragraph separators, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str | bytes) -> str:
    """`text` on one line, with `\\x1b` and the like for what is not safe to print.

    Bytes are read as UTF-8; those that are not become `\\xff` and the like.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]
