"""Edits the agent.toml of the package as a person does: takes the `#` away, writes the value."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping


def changed(text: str, values: Mapping[str, Mapping[str, str]]) -> str:
    """`values` by section, "" before the first. KeyError: the file does not show such a key."""
    lines, section = [], ""
    left = {(name, key) for name, keys in values.items() for key in keys}
    for line in text.splitlines():
        header = re.fullmatch(r"#?\[(\w+)\]", line)
        if header:
            section = header[1]
            line = f"[{section}]" if section in values else line
        shown = re.match(r"#?(\w+) = ", line)
        if shown and (section, shown[1]) in left:
            left.remove((section, shown[1]))
            line = f"{shown[1]} = {json.dumps(values[section][shown[1]])}"
        lines.append(line)
    if left:
        raise KeyError(f"not in the file: {sorted(left)}")
    return "\n".join(lines) + "\n"
