"""Makes text that others wrote safe to show on one line of a terminal or a log.

`printable` is the one function that all foreign text goes through: names, versions, labels, errors,
log lines. The command's output does it again for each line, in case that somebody forgot.
"""

import re

# What a terminal shows as nothing although `str.isprintable` takes it for a character: the rest of
# Unicode's Default_Ignorable_Code_Point (fillers, variation selectors), in which text hides.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Of one line for an operator; longer than any that a node writes, whose message has 64 KiB.
MAX_LINE_CHARS = 4000


def printable(text: str | bytes, most: int | None = None) -> str:
    """`text` on one line, with `\\x1b` and the like for what is not safe to print.

    That is all that Unicode calls control, format (bidirectional, tags), separator, surrogate,
    private or unassigned, and what is invisible; only the common space stays. Bytes are read as
    UTF-8; those that are not become `\\xff` and the like. Of more than `most` characters the
    beginning is left, and how many there were.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if most is not None and len(text) > most:
        text = f"{text[:most]}... ({len(text)} characters)"
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(
        each if each.isprintable() and not _INVISIBLE.match(each) else ascii(each)[1:-1]
        for each in text
    )
