"""The form of what a deployment says, field by field. Pure.

Every problem is noted in the document of the table that is read; a value with a problem is then
some other value of the right type, so that one pass finds all. docs/fleet-protocol.md tells the
form to others.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal

from edge_agent import strictjson
from edge_agent.config.agent import LABEL_FORM, LABEL_PATTERN
from edge_agent.config.agent import NAME_FORM as NODE_FORM
from edge_agent.config.agent import NAME_PATTERN as NODE_PATTERN
from edge_agent.config.model import KIB, MIB, Limits, PluginSettings, Report, read_settings
from edge_agent.config.table import Table
from edge_agent.config.units import Validity
from edge_agent.fleet_protocol.topics import MAX_PART_BYTES, MIN_PART_BYTES
from edge_agent.store.digest import NO_DIGEST, Digest
from edge_agent.store.digest import PATTERN as DIGEST
from edge_agent.store.release import NAME_CHARACTER, Code, PluginId, Release

# Bounds of the form; a document of 64 KiB holds far less than all of them together.
MAX_PLUGINS = 64  # the runtime starts and calls each: no node has that many
MAX_RELEASES = 8
MAX_RINGS = 8
MAX_CODES = 16  # processors, times engine versions, times settings
MAX_FEATURES = 32
MAX_CONFIG_CHARACTERS = 32 * KIB
MIN_BLOB_BYTES = 8  # the header of a Wasm module
MAX_BLOB_BYTES = 256 * MIB  # each node sets its own, lower bound (`max_plugin_bytes`)
MAX_PARTS = 64 * KIB

Encoding = Literal["none", "zlib"]
# What a release may have of its own, under the same names in documents.
SETTINGS = tuple(each.name for each in fields(PluginSettings))
# Of an entry too: agents that read an earlier form pass over them.
MODE, INSTANCE = "mode", "instance"

NAME_PATTERN = rf"{NAME_CHARACTER}{{1,64}}"  # the length is this protocol's
NAME_FORM = "1 to 64 letters, digits, '_', '.', '+' and '-'"
_INDEX = r"[0-9]{2}"
VERSION_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"
VERSION_FORM = "1 to 64 letters, digits, '.', '_', '+' and '-', starting with a letter or digit"
_DIGEST_FORM = '"sha256:" and 64 lower-case hexadecimal digits'
_SEED = r"[^\x00-\x1f\x7f-\x9f]{1,64}"  # without a zero byte, which ends it when it is hashed
_SEED_FORM = "1 to 64 characters, none of them a control character"
_HOST = r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
# No user name, which would be a secret for all to read, and no fragment.
_HTTPS = rf"https://{_HOST}/[!-\"$-~]{{0,2000}}"
# Each character can be read in one way only, so a text that does not fit costs one look back.
# Possessive groups are no help: before CPython 3.11.5 (gh-106052; Debian 12 has 3.11.2) they err.
_OCI = rf"oci://{_HOST}(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*){{1,16}}(?::[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})?(?:@{DIGEST})?"
_SOURCE = f"mqtt|{_HTTPS}|{_OCI}"
_SOURCE_FORM = '"mqtt", "https://host/path" or "oci://registry/repository[:tag][@sha256:...]"'
_WORD = r"[A-Za-z0-9._+-]{1,64}"  # an engine, its version, a processor, what it can do
_WORD_FORM = "1 to 64 letters, digits, '.', '_', '+' and '-'"
_ASSUMED = r"[ -~]{1,1024}"
_ASSUMED_FORM = "1 to 1024 printable characters of ASCII"
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")
_TIME_FORM = "a time such as 2026-11-23T18:00:00Z"


@dataclass(frozen=True)
class Blob:
    """A module, and how it was cut for MQTT.

    `digest` and `size` are those of the module itself. Its bytes are encoded as a whole, then
    cut into `parts` pieces, each of `part_size` bytes but for the last. 0 parts: not on MQTT.
    """

    digest: Digest
    size: int
    encoding: Encoding = "none"
    parts: int = 0
    part_size: int = 0


@dataclass(frozen=True)
class Rollout:
    """Which nodes a release is for: see `selection.chosen`."""

    percent: int
    seed: str
    nodes: tuple[str, ...] = ()  # these in any case
    rings: tuple[Mapping[str, str], ...] = ()  # and those with all labels of one of these


@dataclass(frozen=True)
class CodeOffer:
    """Machine code of a release's module, and where to fetch it, in the order to try."""

    code: Code
    blob: Blob
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Offer:
    """A release, where to fetch its module, in the order to try, and the nodes that it is for."""

    release: Release
    blob: Blob
    sources: tuple[str, ...]
    rollout: Rollout | None = None  # None: for all nodes of the entry
    codes: tuple[CodeOffer, ...] = ()  # of the module; a node takes the first made for it


@dataclass(frozen=True)
class PluginEntry:
    """A plugin, for the nodes that have all the labels of `select`."""

    name: str
    index: str
    select: Mapping[str, str]
    offers: tuple[Offer, ...]  # a node runs the first that is for it

    @property
    def identity(self) -> PluginId:
        """NN-name, as everywhere on a node."""
        return PluginId.of(self.index, self.name)


def max_encoded_bytes(size: int, encoding: Encoding) -> int:
    """The most bytes that a module of `size` bytes may have when encoded."""
    return size if encoding == "none" else size + size // 256 + 1024


def read_generation(table: Table) -> int:
    """Which document of the fleet this is, from 1."""
    return _required_count(table, "generation", 1, strictjson.MAX_INTEGER)


def read_epoch(table: Table) -> int:
    """The version of the trust set that began this count of generations; 0: none did."""
    return table.count("epoch", 0, at_least=0, at_most=strictjson.MAX_INTEGER)


def read_times(table: Table) -> tuple[float, float]:
    """`issued` and `expires`, in seconds since 1970."""
    issued, expires = (_time(table, key) for key in ("issued", "expires"))
    if issued and expires and issued >= expires:
        table.problem("expires", "must be later than issued")
    return issued, expires


def read_validity(table: Table) -> Validity:
    """The same, in whole seconds, as they are written again."""
    return Validity(*map(math.floor, read_times(table)))


def read_plugins(
    table: Table, defaults: Limits, report: Report, form: int
) -> tuple[PluginEntry, ...]:
    """All entries; `defaults` and `report` are for what they leave open.

    `form` is the number of the kind of document (docs/fleet-protocol.md).
    """
    if "plugins" not in table:  # an empty list is said, or every plugin would end by mistake
        table.problem("plugins", "is missing")
    found: dict[str, PluginEntry] = {}
    for each in table.tables("plugins", at_least=0, at_most=MAX_PLUGINS):
        entry = _entry(each, defaults, report, form)
        if entry.name in found:
            each.problem("name", f'"{entry.name}" is there twice')
        found[entry.name] = entry
    return tuple(found.values())


def _entry(table: Table, defaults: Limits, report: Report, form: int) -> PluginEntry:
    select = table.table("select")
    labels = select.table("labels").string_map(pattern=LABEL_PATTERN, form=LABEL_FORM)
    select.end()
    settings = read_settings(table, defaults, report)
    _check_known(table, form)
    plugin = Release(
        name=_required(table, "name", NAME_PATTERN, NAME_FORM),
        index=_required(table, "index", _INDEX, "two digits, as a string"),
        digest=NO_DIGEST,
        size=0,
        config=_config(table, ""),
        settings=settings,
    )
    return PluginEntry(
        name=plugin.name,
        index=plugin.index,
        select=MappingProxyType(labels),
        offers=_offers(table, plugin, form),
    )


def _config(table: Table, default: str) -> str:
    return table.text(
        "config",
        default,
        pattern=rf"[\s\S]{{0,{MAX_CONFIG_CHARACTERS}}}",
        form=f"a string of at most {MAX_CONFIG_CHARACTERS} characters",
    )


def _offers(table: Table, plugin: Release, form: int) -> tuple[Offer, ...]:
    """`plugin` has what is the same for all releases, unless one has its own."""
    found: dict[str, Offer] = {}
    if "releases" not in table:
        table.problem("releases", "is missing")
        return ()
    for each in table.tables("releases", at_least=1, at_most=MAX_RELEASES):
        offer = _offer(each, plugin, form)
        version = offer.release.version
        if version in found:
            each.problem("version", f'"{version}" is there twice')
        found[version] = offer
    return tuple(found.values())


def _sources(table: Table) -> tuple[str, ...]:
    sources = table.texts("sources", ("mqtt",), pattern=_SOURCE, form=_SOURCE_FORM)
    if not sources:
        table.problem("sources", "must name one at least")
    return sources


def _offer(table: Table, plugin: Release, form: int) -> Offer:
    sources = _sources(table)
    version = _required(table, "version", VERSION_PATTERN, VERSION_FORM)
    blob = _blob(table.table("blob"), on_mqtt="mqtt" in sources)
    rollout = _rollout(table.table("rollout"), form) if "rollout" in table else None
    release = replace(
        plugin,
        version=version,
        digest=blob.digest,
        size=blob.size,
        config=_config(table, plugin.config),
        settings=_own_settings(table, plugin.settings, form),
    )
    codes = tuple(map(_code, table.tables("code", at_least=0, at_most=MAX_CODES)))
    return Offer(release, blob, sources, rollout, codes)


def _code(table: Table) -> CodeOffer:
    """An unknown field is an error here: it may be another thing that the code assumes."""
    sources = _sources(table)
    blob = _blob(table.table("blob"), on_mqtt="mqtt" in sources)
    code = Code(
        engine=_required(table, "engine", _WORD, _WORD_FORM),
        version=_required(table, "version", _WORD, _WORD_FORM),
        target=_required(table, "target", _WORD, _WORD_FORM),
        settings=_required(table, "settings", _ASSUMED, _ASSUMED_FORM),
        features=_features(table),
        digest=blob.digest,
        size=blob.size,
    )
    table.end()
    return CodeOffer(code, blob, sources)


def _features(table: Table) -> tuple[str, ...]:
    if "features" not in table:
        table.problem("features", "is missing; it is a list, of nothing for any such processor")
    found = table.texts("features", (), pattern=_WORD, form=_WORD_FORM)
    if len(found) > MAX_FEATURES:
        table.problem("features", f"must have at most {MAX_FEATURES} entries")
    return found


def _own_settings(table: Table, entry: PluginSettings, form: int) -> PluginSettings:
    """The settings of the entry, with those that the release sets itself in their place."""
    own = [each for each in (*SETTINGS, "config") if each in table]
    if form < 2 and own:  # older agents pass over them, and would run it with the entry's
        table.problem(own[0], "is possible in a document of the second kind only")
    _check_known(table, form)
    found = read_settings(table, entry.limits, entry.report)
    changed = {each: getattr(found, each) for each in own if each != "config"}
    return replace(entry, **changed)


def _check_known(table: Table, form: int) -> None:
    """Note what is only in later forms: older agents pass over it, and would enforce, or use an
    instance again."""
    if form < 3 and MODE in table:
        table.problem(MODE, "is possible in a document of the third kind only")
    if form < 4 and INSTANCE in table:
        table.problem(INSTANCE, "is possible in a document of the fourth kind only")


def _rollout(table: Table, form: int) -> Rollout:
    rollout = Rollout(
        percent=_required_count(table, "percent", 0, 100),
        seed=_required(table, "seed", _SEED, _SEED_FORM),
    )
    if form >= 2:
        nodes = table.texts("nodes", (), pattern=NODE_PATTERN, form=NODE_FORM)
        rollout = replace(rollout, nodes=nodes, rings=_rings(table))
    table.end()
    return rollout


def _rings(table: Table) -> tuple[Mapping[str, str], ...]:
    found = []
    for each in table.tables("rings", at_least=0, at_most=MAX_RINGS):
        labels = each.string_map(pattern=LABEL_PATTERN, form=LABEL_FORM)
        if not labels:
            table.problem("rings", "must each name a label, or they would be every node")
        found.append(MappingProxyType(labels))
    return tuple(found)


def _blob(table: Table, *, on_mqtt: bool) -> Blob:
    cut = on_mqtt or "parts" in table or "part_size" in table
    blob = Blob(
        digest=Digest(_required(table, "digest", DIGEST, _DIGEST_FORM)),
        size=_required_count(table, "size", MIN_BLOB_BYTES, MAX_BLOB_BYTES),
        encoding=table.choice("encoding", Encoding, Blob.encoding),
        parts=_required_count(table, "parts", 1, MAX_PARTS) if cut else 0,
        part_size=_required_count(table, "part_size", MIN_PART_BYTES, MAX_PART_BYTES) if cut else 0,
    )
    _check_parts(table, blob)
    return blob


def _check_parts(table: Table, blob: Blob) -> None:
    """Note what numbers that are in themselves possible cannot be together."""
    if not (blob.size and blob.parts and blob.part_size):
        return
    most = -(-max_encoded_bytes(blob.size, blob.encoding) // blob.part_size)
    if blob.parts > most or (blob.encoding == "none" and blob.parts < most):
        needed = "exactly" if blob.encoding == "none" else "at most"
        table.problem("parts", f"is {blob.parts}; {blob.size} bytes need {needed} {most}")


def _required(table: Table, key: str, pattern: str, form: str) -> str:
    if key not in table:
        table.problem(key, f"is missing; it is {form}")
    return table.text(key, "", pattern=pattern, form=form)


def _required_count(table: Table, key: str, at_least: int, at_most: int) -> int:
    if key not in table:
        table.problem(key, "is missing; it is a whole number")
        return 0
    return table.count(key, 0, at_least=at_least, at_most=at_most)


def _time(table: Table, key: str) -> float:
    """Seconds since 1970; 0 if it is wrong."""
    text = _required(table, key, _TIME.pattern, _TIME_FORM)
    try:
        return datetime.fromisoformat(text).astimezone(UTC).timestamp() if text else 0.0
    except ValueError:  # the 31st of a month of 30 days
        table.problem(key, f"must be {_TIME_FORM}; there is no such time")
        return 0.0
