"""The catalogue on disk, and in memory as far as the disk allows.

    STATE/store/catalogue.json      the catalogue, with a checksum and a serial number
    STATE/store/catalogue.2.json    the same once more

Each is replaced as a whole, one after the other, and the good one with the higher serial
counts. So a damaged file costs nothing, and no damage brings back an older generation, whose
documents an attacker could then play again: with both damaged nothing is accepted any more.

Plugins with a release in monitor mode stand in `monitored`, and in `plugins` without that release:
an older agent on this disk would enforce what it ran of `plugins` (docs/adr/0057). Likewise those
with a one-shot release stand in `per_event`, and in the two others without it (docs/adr/0060).
"""

import logging
import math
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from edge_agent import strictjson
from edge_agent.config.model import LASTING, MONITOR, PER_EVENT, Limits, PluginSettings
from edge_agent.errors import StoreError
from edge_agent.store import files
from edge_agent.store.catalogue import Catalogue, Kept, Known
from edge_agent.store.digest import Digest, sha256_hex
from edge_agent.store.release import Code, Release

log = logging.getLogger(__name__)

# What a process finds out anew: where files are, who is on probation, what is unusable.
_OF_THE_MOMENT = {"path", "probation", "unusable"}
FORMAT = 1  # a later one is not read: its rules may be others
# Two documents of 48 KiB, escaped, and what runs of them, twice.
MAX_FILE_BYTES = 1 << 20


def load(path: Path) -> Catalogue:
    """The catalogue in `path` or its copy; an empty one if there is neither.

    StoreError: no good one is left, and what it said must not be guessed.
    """
    return _newest(path)[1]


def recover(path: Path) -> Catalogue:
    """As `load`, and make both files alike. Only at the start of a process that also saves."""
    serial, catalogue = _newest(path)
    if any(_serial(copy) != serial for copy in _copies(path)):
        _write(path, catalogue, serial)
    return catalogue


def save(path: Path, catalogue: Catalogue) -> None:
    """Replace the catalogue. StoreError: afterwards it is the old or the new one."""
    _write(path, catalogue, 1 + max(_serial(copy) for copy in _copies(path)))


def remove(path: Path) -> bool:
    """Forget everything; False if nothing was there. StoreError."""
    gone = [files.remove(copy) for copy in _copies(path)]
    left = [str(copy) for copy in _copies(path) if os.path.lexists(copy)]
    if left:
        raise StoreError(f"{', '.join(left)}: cannot be removed; is this the owner of the folder?")
    if any(gone):
        files.sync_folder(path.parent)
    return any(gone)


def _copies(path: Path) -> tuple[Path, Path]:
    return path, path.with_suffix(f".2{path.suffix}")


def _newest(path: Path) -> tuple[int, Catalogue]:
    """With its serial number; 0 if there is none."""
    found, faults = [], []
    for copy in _copies(path):
        try:
            one = _read(copy)
        except StoreError as error:
            faults.append(str(error))
        else:
            found += [one] if one else []
    if faults and not found:
        raise StoreError(
            "; ".join(faults) + "; until a deployment is accepted anew (`edge-agent store forget`) "
            "none is, since which ones came before is not known"
        )
    for fault in faults:
        log.warning("%s; its copy is used", fault)
    return max(found, key=lambda each: each[0], default=(0, Catalogue()))


def _serial(copy: Path) -> int:
    """0 if the file is missing or damaged."""
    try:
        found = _read(copy)
    except StoreError:
        return 0
    return found[0] if found else 0


def _write(path: Path, catalogue: Catalogue, serial: int) -> None:
    body = _body(catalogue)
    file = {"format": FORMAT, "serial": serial, "sha256": _checksum(serial, body), "body": body}
    data = strictjson.dumps(file)
    if len(data) > MAX_FILE_BYTES:
        raise StoreError(f"{path}: would have {len(data)} bytes; {MAX_FILE_BYTES} are possible")
    files.make_folder(path.parent)
    for copy in _copies(path):
        files.write(copy, data)


def _read(path: Path) -> tuple[int, Catalogue] | None:
    """Serial number and catalogue, or None if there is no such file. StoreError: damaged."""
    data = files.read(path, MAX_FILE_BYTES)
    if data is None:
        return None
    try:
        file: Any = strictjson.loads(data)
        if file["format"] != FORMAT:
            raise StoreError(f"{path}: is of format {file['format']!r}; this agent knows {FORMAT}")
        if file["sha256"] != _checksum(file["serial"], file["body"]):
            raise ValueError("its checksum does not fit")
        return int(file["serial"]), _catalogue(file["body"])
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise StoreError(f"{path}: is damaged: {error}") from error


def _body(catalogue: Catalogue) -> dict[str, Any]:
    """The form that agents up to 0.1.0 read too: `known` in three parts, later fields beside it."""
    body = asdict(catalogue)
    *known, epoch = catalogue.known
    for kept in body["plugins"].values():
        for release in filter(None, (kept["current"], kept["previous"])):
            for place in filter(None, (release, release["code"])):
                for key in _OF_THE_MOMENT & place.keys():
                    del place[key]
            settings = release["settings"]  # as older agents wrote it
            if settings["mode"] != MONITOR:
                del settings["mode"]
            if settings["instance"] == LASTING:
                del settings["instance"]
            for key in ("timer", "pressure"):
                if not settings[key]:
                    del settings[key]
    return {**body, **_apart(body["plugins"]), "known": known, "epoch": epoch}


_PARTS = ("plugins", "monitored", "per_event")
"""Of the body, in the order in which agents came to read them: a later one counts more."""


def _apart(plugins: dict[str, Any]) -> dict[str, Any]:
    """The parts; all but the first only where there is something in them."""
    parts: dict[str, Any] = {"plugins": {}}
    for identity, kept in plugins.items():
        current, previous = map(_part, (kept["current"], kept["previous"]))
        for number, part in enumerate(_PARTS):
            if current > number or (number and number not in (current, previous)):
                continue
            only = {**kept, "previous": None} if previous > number else kept
            parts.setdefault(part, {})[identity] = only
    return parts


def _part(release: dict[str, Any] | None) -> int:
    """The first of _PARTS that the release may stand in."""
    settings = release["settings"] if release is not None else {}
    if settings.get("instance") == PER_EVENT:
        return 2
    return 1 if settings.get("mode") == MONITOR else 0


def _checksum(serial: object, body: object) -> str:
    return sha256_hex(strictjson.dumps([FORMAT, serial, body]))


def _catalogue(body: dict[str, Any]) -> Catalogue:
    """The value of what `asdict` made of it; what a later agent added is left out."""
    plugins = {
        identity: Kept(
            read_release(kept["current"]),
            read_release(kept["previous"]) if kept["previous"] else None,
            kept["probation"],
        )
        for part in (body["plugins"], *(body.get(each, {}) for each in _PARTS[1:]))
        for identity, kept in part.items()
    }
    generation, payload_sha256, issued = body["known"]
    known = Known(generation, payload_sha256, issued, body.get("epoch", 0))
    return Catalogue(**{**_fields_of(Catalogue, body), "known": known, "plugins": plugins})


def read_release(body: dict[str, Any]) -> Release:
    settings = _fields_of(PluginSettings, body["settings"])
    settings["limits"] = Limits(**_fields_of(Limits, settings["limits"]))
    for key in ("permissions", "runtimes"):
        if settings.get(key) is not None:
            settings[key] = tuple(settings[key])
    settings["pressure"] = tuple((key, text) for key, text in settings.get("pressure", ()))
    own = {
        "digest": Digest(body["digest"]),
        "settings": PluginSettings(**settings),
        "code": _code(body.get("code")),
    }
    return Release(**{**_fields_of(Release, body), **own})


def _code(body: dict[str, Any] | None) -> Code | None:
    if body is None:
        return None
    return Code(
        **{
            **_fields_of(Code, body),
            "digest": Digest(body["digest"]),
            "features": tuple(body["features"]),
        }
    )


def _fields_of(kind: type, body: dict[str, Any]) -> dict[str, Any]:
    return {each.name: body[each.name] for each in fields(kind) if each.name in body}


# After the disk failed, until it is tried again.
DISK_PAUSE_S = 30.0


class CatalogueStore:
    """The catalogue of a node and its file. Times are monotonic seconds."""

    def __init__(self, path: Path) -> None:
        """Read the file. StoreError: it is damaged, and so is its copy."""
        self._path = path
        self.catalogue: Catalogue = _recovered(path)
        self.last_error = ""  # why the disk does not have what is said here
        self.retry_at = -math.inf  # before that, the disk is better left alone
        self._unwritten = False

    def commit(self, new: Catalogue, now: float) -> bool:
        """Write `new`; whether that succeeded. Nothing may follow from `new` before."""
        if not self._save(new, now):
            return False
        self.catalogue = new
        return True

    def note(self, new: Catalogue, now: float) -> None:
        """Use `new`, and write it now or later: in this run it counts even without the disk."""
        self.catalogue = new
        self._unwritten = True
        self._save(new, now)

    def write(self, now: float) -> None:
        """Write what `note` could not."""
        if self._unwritten and now >= self.retry_at:
            self._save(self.catalogue, now)

    def failed(self, error: StoreError, now: float) -> None:
        """Another operation on this disk failed: pause."""
        self.retry_at = now + DISK_PAUSE_S
        if str(error) != self.last_error:
            self.last_error = str(error)
            log.error("%s; tried again later", error)

    @property
    def due(self) -> float:
        """When to call `write`."""
        return self.retry_at if self._unwritten else math.inf

    def _save(self, new: Catalogue, now: float) -> bool:
        try:
            save(self._path, new)
        except StoreError as error:
            self.failed(error, now)
            return False
        self._unwritten = False
        self.last_error = ""
        return True


def _recovered(path: Path) -> Catalogue:
    try:
        return recover(path)
    except StoreError:  # a disk may be read-only
        return load(path)
