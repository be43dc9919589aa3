"""A model of a disk that loses what was not synced, as POSIX allows and cheap cards do.

What counts as safe: a file's content after fsync of the file, a name after fsync of its folder
(which a rename needs for the folder it leads to). Everything else may be there after a power cut or
not, in any combination: names in any subset, contents old, cut, or zeros of the right length.
One rename is one step, which all journaling file systems promise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Contents = dict[str, "bytes | None"]
"""A whole tree: relative path -> content; None is a folder."""


@dataclass
class File:
    """`durable` is what a power cut cannot take."""

    content: bytes = b""
    durable: bytes = b""


@dataclass
class Folder:
    """Names -> what they lead to, now; `Disk.durable` has the safe ones."""

    names: dict[str, File | Folder] = field(default_factory=dict)


Node = File | Folder


@dataclass(frozen=True)
class Step:
    """A change of names: of one folder, or of two for a rename between folders."""

    synced_by: Folder  # whose fsync makes it safe
    apply: Callable[[dict[int, dict[str, Node]]], None]


class Disk:
    """The tree below `root`, as the operations since `snapshot` left it."""

    def __init__(self, contents: Contents) -> None:
        """`contents` is on the disk for certain."""
        self.root = Folder()
        self._durable: dict[int, dict[str, Node]] = {id(self.root): {}}
        self._folders: list[Folder] = [self.root]  # keeps ids from being used again
        self._pending: list[Step] = []
        for path, content in sorted(contents.items()):
            *outer, name = path.split("/")
            folder = self._walk(outer)
            node = self._new_folder() if content is None else File(content, content)
            folder.names[name] = node
            self._durable[id(folder)][name] = node

    # What a process does; paths are relative to the root.

    def find(self, path: str) -> Node | None:
        node: Node = self.root
        for name in path.split("/") if path else ():
            found = node.names.get(name) if isinstance(node, Folder) else None
            if found is None:
                return None
            node = found
        return node

    def create(self, path: str) -> File:
        node = File()
        self._name(path, node)
        return node

    def mkdir(self, path: str) -> None:
        self._name(path, self._new_folder())

    def remove(self, path: str) -> None:
        folder, name = self._split(path)
        del folder.names[name]
        self._pending.append(Step(folder, lambda names: _drop(names, folder, name)))

    def rename(self, source: str, target: str) -> None:
        from_folder, from_name = self._split(source)
        to_folder, to_name = self._split(target)
        node = from_folder.names.pop(from_name)
        to_folder.names[to_name] = node

        def apply(names: dict[int, dict[str, Node]]) -> None:
            _drop(names, from_folder, from_name)
            names[id(to_folder)][to_name] = node

        self._pending.append(Step(to_folder, apply))

    def sync(self, node: Node) -> None:
        if isinstance(node, File):
            node.durable = node.content
            return
        for step in self._pending:
            if step.synced_by is node:
                step.apply(self._durable)
        self._pending = [step for step in self._pending if step.synced_by is not node]

    # What may be found after the power went.

    def states(self, chance: random.Random, subsets: int = 3) -> Iterator[Contents]:
        """Trees that may be there, the likely and the nasty ones; some may be alike."""
        pending = self._pending
        choices = [pending, [], *(pending[:at] for at in range(1, len(pending)))]
        choices += [
            [step for step in pending if chance.random() < 0.5]
            for _ in range(subsets if len(pending) > 1 else 0)
        ]
        for steps in choices:
            names = {number: dict(entries) for number, entries in self._durable.items()}
            for step in steps:
                step.apply(names)
            for content in CONTENTS:
                yield _tree(self.root, names, content, "")
            yield _tree(self.root, names, lambda file: chance.choice(CONTENTS)(file), "")

    def _walk(self, names: Iterable[str]) -> Folder:
        folder = self.root
        for name in names:
            inner = folder.names[name]
            assert isinstance(inner, Folder)
            folder = inner
        return folder

    def _split(self, path: str) -> tuple[Folder, str]:
        *outer, name = path.split("/")
        return self._walk(outer), name

    def _new_folder(self) -> Folder:
        folder = Folder()
        self._folders.append(folder)
        self._durable[id(folder)] = {}
        return folder

    def _name(self, path: str, node: Node) -> None:
        folder, name = self._split(path)
        folder.names[name] = node

        def apply(names: dict[int, dict[str, Node]]) -> None:
            names[id(folder)][name] = node

        self._pending.append(Step(folder, apply))


# What may be left of a file that was written and not synced.
CONTENTS: tuple[Callable[[File], bytes], ...] = (
    lambda file: file.content,
    lambda file: file.durable,
    lambda file: file.content[: len(file.content) // 2] if _loose(file) else file.content,
    lambda file: bytes(len(file.content)) if _loose(file) else file.content,
)


def _loose(file: File) -> bool:
    return file.content != file.durable


def _drop(names: dict[int, dict[str, Node]], folder: Folder, name: str) -> None:
    names[id(folder)].pop(name, None)


def _tree(
    folder: Folder, names: dict[int, dict[str, Node]], content: Callable[[File], bytes], at: str
) -> Contents:
    found: Contents = {}
    for name, node in sorted(names[id(folder)].items()):
        if isinstance(node, File):
            found[at + name] = content(node)
        else:
            found[at + name] = None
            found.update(_tree(node, names, content, f"{at}{name}/"))
    return found


def snapshot(root: Path) -> Contents:
    """What is below `root` now; links are not followed and not kept."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if not path.is_symlink() and (path.is_dir() or path.is_file())
    }


def lay_out(contents: Contents, root: Path) -> None:
    """Make the tree below `root`, which is made too."""
    root.mkdir(mode=0o700, parents=True)
    for path, content in sorted(contents.items()):
        if content is None:
            (root / path).mkdir(mode=0o700)
        else:
            (root / path).write_bytes(content)
            (root / path).chmod(0o600)
