"""The operator's files on this node that say which keys are trusted first.

TRUST_DIR/*.pem        public keys, one in each file
TRUST_DIR/version      which version of the fleet's set they are; absent: the first
TRUST_DIR/validity     when it was issued and when it expires; absent: it does not expire

What the fleet's rotations make of them: `TrustKeeper` in edge_agent.fleet.documents.
"""

from pathlib import Path

from edge_agent.config.document import Document, read_text
from edge_agent.config.table import Table
from edge_agent.config.units import Validity
from edge_agent.errors import ConfigError, KeyFormatError
from edge_agent.fleet_protocol import form, keys
from edge_agent.fleet_protocol.trust import MAX_KEYS, TrustSet

MAX_VERSION_DIGITS = 15  # all of them are whole numbers in any JSON


def read_root(folder: Path, *, fleet: str, threshold: int) -> TrustSet:
    """The set in `folder`. ConfigError names the file and what is wrong with it."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".pem")
    except OSError as error:
        raise ConfigError(
            f"{folder}: {error.strerror}; put the fleet's public keys there, *.pem, as "
            "`edge-agent fleet init` writes them"
        ) from error
    if len(paths) > MAX_KEYS:
        raise ConfigError(f"{folder}: {len(paths)} keys; at most {MAX_KEYS} can be trusted")
    found = tuple(_key(path) for path in paths)
    try:
        version, validity = _version(folder / "version"), _validity(folder / "validity")
        return TrustSet(fleet, version, threshold, found, validity)
    except KeyFormatError as error:
        raise ConfigError(f"{folder}: {error}") from error


def _key(path: Path) -> keys.PublicKey:
    try:
        return keys.parse_public(read_text(path))
    except KeyFormatError as error:
        raise KeyFormatError(f"{path}: {error}") from error


def _version(path: Path) -> int:
    if not path.exists():
        return 1
    text = read_text(path).strip()
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_VERSION_DIGITS):
        raise ConfigError(f"{path}: must be a whole number alone, the version of the trusted keys")
    return int(text)


def written_validity(validity: Validity) -> str:
    """What the file `validity` holds."""
    return " ".join(validity.as_document().values()) + "\n"


def _validity(path: Path) -> Validity | None:
    if not path.exists():
        return None
    words = read_text(path).split()
    document = Document(path, "", dict(zip(("issued", "expires"), words, strict=False)))
    found = form.read_validity(Table(document))
    if len(words) > 2:
        raise ConfigError(f"{path}: must be two times, issued and expires, and nothing else")
    document.check()
    return found
