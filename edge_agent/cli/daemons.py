"""Which runtimes' processes run here, and with which words they were started."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_WORDS_BYTES = 1 << 20  # ours; a daemon's command line has some hundred bytes


@dataclass(frozen=True)
class Daemon:
    """A process of this machine itself, not of a container."""

    name: str  # as the kernel calls it (/proc/PID/comm)
    words: tuple[str, ...]  # without the program

    def options(self, *names: str) -> list[str]:
        """The values of an option under each of its names, in the order given: `--name value`,
        `--name=value`, and both with one dash; "" where there is none."""
        found = []
        words = iter(self.words)
        for word in words:
            dashed, equals, value = word.partition("=")
            if dashed.startswith("-") and dashed.lstrip("-") in names:
                found.append(value if equals else next(words, ""))
        return found

    def flag(self, name: str) -> bool | None:
        """A switch: `--name`, `--name=true` or `--name=false`; None if it is not there."""
        found = None
        for word in self.words:
            dashed, equals, value = word.partition("=")
            if dashed.startswith("-") and dashed.lstrip("-") == name:
                found = value.lower() in ("1", "t", "true") if equals else True
        return found


def running(names: Sequence[str], proc: Path = Path("/proc")) -> list[Daemon] | None:
    """The processes with these names. None: other users' processes cannot be seen here."""
    if not (proc / "1" / "comm").exists():
        return None
    found = []
    for folder in sorted(proc.iterdir()):
        if not folder.name.isdecimal():
            continue
        try:
            name = (folder / "comm").read_text(errors="replace").strip()
            if name not in names or _in_a_container(folder):
                continue
            with (folder / "cmdline").open("rb") as file:
                words = file.read(MAX_WORDS_BYTES).decode(errors="replace").split("\0")
        except OSError:
            continue  # gone since it was listed
        found.append(Daemon(name, tuple(words[1:-1])))
    return found


def _in_a_container(folder: Path) -> bool:
    """Whether it has a PID namespace of its own (proc(5), NSpid): a runtime inside of another."""
    for line in (folder / "status").read_text(errors="replace").splitlines():
        if line.startswith("NSpid:"):
            return len(line.split()) > 2
    return False
