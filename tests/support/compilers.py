"""Compilers at work: the child processes of edge_agent.wasm.compiler."""

from pathlib import Path


def compilers(parent: int) -> list[int]:
    """The children of a process that run this project's compiler by now."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                ppid = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if (
                    int(ppid) == parent
                    and b"edge_agent.wasm.compiler" in (folder / "cmdline").read_bytes()
                ):
                    found.append(int(folder.name))
            except OSError:
                pass  # it ended meanwhile
    return found
