"""The first set of trusted keys, as an operator puts it on a node.

TRUST_DIR/*.pem        public keys, one in each file
TRUST_DIR/version      which version of the fleet's set they are; absent: the first
"""

from pathlib import Path

from edge_agent.config.document import read_text
from edge_agent.errors import ConfigError, KeyFormatError
from edge_agent.fleet import keys
from edge_agent.fleet.trust import MAX_KEYS, TrustSet

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
        return TrustSet(fleet, _version(folder / "version"), threshold, found)
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
