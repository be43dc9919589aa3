"""The operator's private keys: one file each, for nobody else to read, outside any fleet folder."""

import os
import re
from collections.abc import Collection
from pathlib import Path

from edge_agent.errors import KeyFormatError, OperatorError
from edge_agent.fleet.keys import MAX_PEM_BYTES, PublicKey, SigningKey, parse_public, public_pem
from edge_agent.operator.settings import KEY_FORM, KEY_PATTERN
from edge_agent.store import files

PUBLIC_FILE = 0o644
# Folders whose content is copied to other machines.
_SHARED = ("fleet.toml", ".git")


class Keyring:
    """A folder of `NAME.key` (private, PKCS #8) and `NAME.pem` (public) files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def private_file(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def public_file(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def generate(self, name: str) -> PublicKey:
        """Make a key. OperatorError: there is one of this name, or the folder is shared."""
        if not re.fullmatch(KEY_PATTERN, name):
            raise OperatorError(f'"{name}" cannot name a key; a name is {KEY_FORM}')
        self._refuse_shared_folder()
        private = self.private_file(name)
        if private.exists():
            raise OperatorError(f"{private}: there is a key of this name; give another name")
        files.make_folder(self.folder)
        key = SigningKey.generate()
        files.write(private, key.to_pem().encode(), files.PRIVATE_FILE)
        files.write(self.public_file(name), public_pem(key.public).encode(), PUBLIC_FILE)
        return key.public

    def names(self) -> list[str]:
        """The keys that are here, in order."""
        return sorted(path.stem for path in self.folder.glob("*.key"))

    def load(self, name: str) -> SigningKey:
        """A private key. OperatorError: absent, readable by others, or no key."""
        return _read_private(self.private_file(name))

    def at_hand(self, wanted: Collection[PublicKey]) -> list[SigningKey]:
        """The private keys here whose public ones are `wanted`. OperatorError as for `load`."""
        keyids = {key.keyid for key in wanted}
        keys = [self.load(name) for name in self.names()]
        return [key for key in keys if key.public.keyid in keyids]

    def _refuse_shared_folder(self) -> None:
        for parent in (self.folder, *self.folder.absolute().parents):
            for mark in _SHARED:
                # A home folder under git is somebody's own decision about that folder, not a fleet.
                if (parent / mark).exists() and parent != Path.home():
                    raise OperatorError(
                        f"{self.folder}: is inside {parent}, which is shared ({mark} is there);"
                        " private keys stay apart, give another folder with --keys"
                    )


def read_public(path: Path) -> PublicKey:
    """The public key in a PEM file. OperatorError names the file and what is wrong."""
    try:
        return parse_public(_read(path))
    except KeyFormatError as error:
        raise OperatorError(f"{path}: {error}") from error


def _read_private(path: Path) -> SigningKey:
    text = _read(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise OperatorError(f"{path}: others can read this private key: chmod 600 {path}")
    try:
        return SigningKey.from_pem(text)
    except KeyFormatError as error:
        raise OperatorError(f"{path}: {error}") from error


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_PEM_BYTES + 1).decode("ascii")
    except OSError as error:
        raise OperatorError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from error
    except UnicodeDecodeError as error:
        raise OperatorError(f"{path}: is no PEM text") from error
