"""The node's own key, which signs its reported state: made at the first start, kept on the disk.

STATE/node.key   the private key, for nobody else to read (PEM, as `openssl pkey` reads it)
STATE/node.pem   the public one, for whoever enrols this node with its fleet

A file that is missing or damaged costs the node its enrolment and nothing else: a new key is
made. Where the disk gives no key the state goes out unsigned, and it is tried again.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypedDict

from edge_agent.errors import CryptoError, KeyFormatError, StoreError
from edge_agent.fleet_protocol import keys, libcrypto, signed_states
from edge_agent.loop import Loop
from edge_agent.store import files
from edge_agent.store.digest import sha256_hex

log = logging.getLogger(__name__)

PRIVATE_NAME, PUBLIC_NAME = "node.key", "node.pem"
PUBLIC_FILE = 0o644
RETRY_S = 60.0  # after a disk that gave no key


class Key(NamedTuple):
    """Both halves, 32 bytes each."""

    seed: bytes
    public: bytes


class KeyStatus(TypedDict, total=False):
    """For `edge-agent status`."""

    id: str  # SHA-256 of the public key, in hex
    file: str  # of the public key
    trouble: str  # why nothing is signed


class NodeKey:
    """`begin` and `status` belong to the loop's thread; any thread may seal."""

    def __init__(
        self,
        loop: Loop,
        run: Callable[[Callable[[], None]], None],
        changed: Callable[[], None],
        folder: Path,
    ) -> None:
        """`run` has something done on a thread that may wait for the disk; `changed` is called
        when states are signed from now on."""
        self._loop = loop
        self._run = run
        self._changed = changed
        self._folder = folder
        self._key: Key | None = None
        self._last_error = "the key was not read yet"

    def begin(self) -> None:
        """Read the key, or make it."""
        self._run(self._look)

    def seal(self, document: bytes, payload_type: str = signed_states.PAYLOAD_TYPE) -> bytes:
        """The state, a JSON object in bytes, with its signature; as it is while there is no key.

        Other messages have another `payload_type`, so that none passes for a state.
        """
        key = self._key
        if key is None:
            return document
        try:
            signature = libcrypto.sign(key.seed, signed_states.to_sign(document, payload_type))
        except CryptoError as error:
            self._failed(str(error))
            return document
        return signed_states.sealed(document, key.public, signature)

    def status(self) -> KeyStatus:
        """Which key signs, or why none does."""
        told: KeyStatus = {"trouble": self._last_error} if self._last_error else {}
        if self._key is not None:
            told["id"] = sha256_hex(self._key.public)
            told["file"] = str(self._folder / PUBLIC_NAME)
        return told

    def _look(self) -> None:
        """On the other thread."""
        try:
            key = load(self._folder)
        except (StoreError, CryptoError) as error:
            self._failed(str(error))
            self._loop.call_soon(self._try_later)
            return
        self._key, self._last_error = key, ""
        self._loop.call_soon(self._changed)

    def _try_later(self) -> None:
        self._loop.call_later(RETRY_S, self.begin)

    def _failed(self, error: str) -> None:
        if error != self._last_error:
            log.warning("what this node says of itself is not signed: %s", error)
        self._last_error = error


def load(folder: Path) -> Key:
    """The key in this folder, made if there is none that can be used. StoreError, CryptoError."""
    path = folder / PRIVATE_NAME
    seed = _read(path)
    if seed is None:
        seed = os.urandom(libcrypto.KEY_BYTES)
        public = libcrypto.public_of(seed)
        files.make_folder(folder)
        files.write(path, keys.private_pem(seed).encode(), files.PRIVATE_FILE)
        log.info("%s: made this node's key %s", path, sha256_hex(public))
    else:
        public = libcrypto.public_of(seed)
    _tell(folder / PUBLIC_NAME, keys.public_pem(keys.public_key(public)).encode())
    return Key(seed, public)


def _read(path: Path) -> bytes | None:
    """None: a new one is to be made. StoreError: the disk does not say."""
    try:
        text = files.read(path, keys.MAX_PEM_BYTES)
    except StoreError as error:
        if not _too_large(path):
            raise
        log.warning("%s; a new key is made, by which the fleet does not know this node", error)
        return None
    if text is None:
        return None
    try:
        return keys.parse_private(text.decode("ascii", "replace"))
    except KeyFormatError as error:
        log.warning(
            "%s: %s; a new key is made, by which the fleet does not know this node", path, error
        )
        return None


def _too_large(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > keys.MAX_PEM_BYTES
    except OSError:
        return False


def _tell(path: Path, pem: bytes) -> None:
    """The public half is for people: the node can do without that file."""
    try:
        if files.read(path, keys.MAX_PEM_BYTES) == pem:
            return
    except StoreError:
        pass
    try:
        files.write(path, pem, PUBLIC_FILE)
    except StoreError as error:
        log.warning("%s", error)
