"""The operator's private keys, outside any fleet folder, and the documents that they sign."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

from edge_agent import strictjson
from edge_agent.errors import KeyFormatError, OperatorError
from edge_agent.fleet_protocol import envelope
from edge_agent.fleet_protocol.keys import (
    MAX_PEM_BYTES,
    PublicKey,
    Signer,
    SigningKey,
    parse_public,
    public_pem,
)
from edge_agent.operator import ssh_agent, tokens
from edge_agent.operator.fleet_toml import KEY_FORM, KEY_PATTERN
from edge_agent.operator.tokens import TokenKey
from edge_agent.store import files

PUBLIC_FILE = 0o644
# Files that mark a folder whose content is copied to other machines.
_SHARED = ("fleet.toml", ".git")


class Keyring:
    """A folder of `NAME.key` (private, PKCS #8) and `NAME.pem` (public) files; `NAME.pkcs11` has
    the URI of a key in a token instead of the first."""

    def __init__(self, folder: Path, ask: Callable[[str], str] | None = None) -> None:
        """`ask` shows a question and returns a passphrase; None: no terminal to ask at."""
        self.folder = folder
        self._ask = ask
        self._opened: dict[Path, SigningKey] = {}  # a passphrase is asked for once
        self._tokens: dict[str, TokenKey] = {}  # the same

    def private_file(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def public_file(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def token_file(self, name: str) -> Path:
        return self.folder / f"{name}.pkcs11"

    def generate(self, name: str, passphrase: str = "") -> PublicKey:
        """Make a key, encrypted with a `passphrase`. OperatorError: there is one of this name, or
        the folder is shared."""
        private = self._make_room(name)
        key = SigningKey.generate()
        text = _lock(key.to_pem(), passphrase) if passphrase else key.to_pem()
        files.write(private, text.encode(), files.PRIVATE_FILE)
        files.write(self.public_file(name), public_pem(key.public).encode(), PUBLIC_FILE)
        return key.public

    def adopt(self, name: str, uri: str) -> PublicKey:
        """Note a key in a token (operator/tokens.py), after a trial signature. OperatorError as for
        `generate`, and what is wrong with URI, token or PIN."""
        read = tokens.parse(uri)
        self._make_room(name)
        public = tokens.public_key(read)
        key = tokens.TokenKey(read, public, self._ask)
        key.sign(b"edge-agent: does this key sign?")
        files.write(self.token_file(name), f"{uri}\n".encode(), files.PRIVATE_FILE)
        files.write(self.public_file(name), public_pem(public).encode(), PUBLIC_FILE)
        self._tokens[name] = key
        return public

    def names(self) -> list[str]:
        """The names of the keys here, sorted."""
        found = {path.stem for kind in ("key", "pkcs11") for path in self.folder.glob(f"*.{kind}")}
        return sorted(found)

    def load(self, name: str) -> SigningKey:
        """A private key. OperatorError: absent, readable by others, no key, or not opened."""
        path = self.private_file(name)
        return self._opened.get(path) or self._read_private(path)

    def at_hand(self, wanted: Collection[PublicKey]) -> list[Signer]:
        """The available private keys for the `wanted` public keys: files and tokens, then the keys
        of the ssh-agent.

        OperatorError as for `load`. An ssh-agent that does not answer is no error if a file signs:
        SSH_AUTH_SOCK often names an agent that has ended. Nor is an absent token, since a lost one
        could otherwise not be rotated out.
        """
        keyids = {key.keyid for key in wanted}
        found: dict[str, Signer] = {}
        for name in self.names():
            if self._is_another(name, keyids):
                continue  # its passphrase is not needed
            private = self.private_file(name).exists()
            key: Signer = self.load(name) if private else self._token_key(name)
            found[key.public.keyid] = key
        if keyids - found.keys():
            for other in self._of_agent(needed=not found):
                found.setdefault(other.public.keyid, other)
        signing = [key for keyid, key in found.items() if keyid in keyids]
        there = [key for key in signing if not isinstance(key, TokenKey) or key.there()]
        return there or signing  # signing with an absent token raises the error

    def _make_room(self, name: str) -> Path:
        """The file for a private key of this name. OperatorError: wrong name or folder."""
        if not re.fullmatch(KEY_PATTERN, name):
            raise OperatorError(f'"{name}" cannot name a key; a name is {KEY_FORM}')
        self._refuse_shared_folder()
        private = self.private_file(name)
        for each in (private, self.token_file(name)):
            if each.exists():
                raise OperatorError(f"{each}: there is a key of this name; give another name")
        files.make_folder(self.folder)
        return private

    def _token_key(self, name: str) -> TokenKey:
        """A key in a token; the token need not be present before the signature."""
        if name not in self._tokens:
            uri = tokens.parse(_read(self.token_file(name)).strip())
            public = read_public(self.public_file(name))
            self._tokens[name] = tokens.TokenKey(uri, public, self._ask)
        return self._tokens[name]

    def _of_agent(self, *, needed: bool) -> list[ssh_agent.AgentKey]:
        try:
            return ssh_agent.signers()
        except OperatorError:
            if needed:
                raise
            return []

    def _is_another(self, name: str, keyids: Collection[str]) -> bool:
        """Whether the public file of a key proves that it is not one of `keyids`."""
        try:
            return read_public(self.public_file(name)).keyid not in keyids
        except OperatorError:
            return False

    def _read_private(self, path: Path) -> SigningKey:
        text = _read(path)
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise OperatorError(f"{path}: others can read this private key: chmod 600 {path}")
        try:
            if ENCRYPTED_MARK in text:
                if self._ask is None:
                    raise OperatorError("it is encrypted, and there is no terminal to ask at")
                text = _unlock(text, self._ask(f"passphrase of {path}: "))
                self._opened[path] = SigningKey.from_pem(text)
                return self._opened[path]
            return SigningKey.from_pem(text)
        except (KeyFormatError, OperatorError) as error:
            raise OperatorError(f"{path}: {error}") from error

    def _refuse_shared_folder(self) -> None:
        for parent in (self.folder, *self.folder.absolute().parents):
            for mark in _SHARED:
                # A home folder under git is no fleet's folder.
                if (parent / mark).exists() and parent != Path.home():
                    raise OperatorError(
                        f"{self.folder}: is inside {parent}, which is shared ({mark} is there);"
                        " private keys stay apart, give another folder with --keys"
                    )


class Signed(NamedTuple):
    """An envelope and its valid signatures; it is a file until it has enough of them."""

    raw: bytes
    payload_type: str
    payload: bytes
    signers: frozenset[PublicKey]  # trusted keys with a valid signature

    @classmethod
    def read(cls, raw: bytes, trusted: Sequence[PublicKey]) -> Self:
        """The content of an envelope and the trusted keys that signed it. RefusedError."""
        envelope.check_size(raw)
        found = envelope.read(raw)
        return cls(raw, found.payload_type, found.payload, envelope.signers(found, trusted))

    @classmethod
    def sign(
        cls,
        payload_type: str,
        payload: bytes,
        trusted: Sequence[PublicKey],
        keys: Sequence[Signer],
    ) -> Self:
        """A new envelope, signed by all of `keys`."""
        return cls.read(envelope.seal(payload_type, payload, keys), trusted)

    def add(self, trusted: Sequence[PublicKey], keys: Sequence[Signer]) -> Self:
        """The envelope with the signatures of those `keys` that have not signed yet."""
        new = [key for key in keys if key.public not in self.signers]
        if not new:
            return self
        values = cast(dict[str, Any], strictjson.loads(self.raw))
        added = envelope.seal(self.payload_type, self.payload, new)
        values["signatures"] += cast(dict[str, Any], strictjson.loads(added))["signatures"]
        return self.read(strictjson.dumps(values), trusted)

    def enough(self, threshold: int) -> bool:
        return len(self.signers) >= threshold


def read_public(path: Path) -> PublicKey:
    """The public key in a PEM file, or in a .pub of ssh. OperatorError: what is wrong with it."""
    try:
        text = _read(path)
        return (
            ssh_agent.parse_public(text)
            if text.startswith(("ssh-", "ecdsa-"))
            else parse_public(text)
        )
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


# --- encrypted keys: PKCS #8, encrypted and opened by openssl
#
# Neither Python's library nor PyNaCl has the ciphers. The passphrase goes through a pipe, never
# through a command line or a file.

ENCRYPTED_MARK = "-----BEGIN ENCRYPTED PRIVATE KEY-----"
_LOCK_WORDS = ("pkcs8", "-topk8", "-v2", "aes-256-cbc", "-scrypt", "-passout")
_UNLOCK_WORDS = ("pkey", "-passin")


def _lock(pem: str, passphrase: str) -> str:
    """The PEM text of a private key, encrypted. OperatorError."""
    return _openssl(_LOCK_WORDS, pem, passphrase, "the key cannot be encrypted")


def _unlock(pem: str, passphrase: str) -> str:
    """The PEM text of an encrypted key as it was before. OperatorError: not this passphrase."""
    return _openssl(_UNLOCK_WORDS, pem, passphrase, "it does not open; is that its passphrase?")


def _openssl(words: Sequence[str], pem: str, passphrase: str, trouble: str) -> str:
    program = shutil.which("openssl")
    if program is None:
        raise OperatorError("encrypted keys need openssl, which is not installed")
    if not passphrase or "\n" in passphrase:
        raise OperatorError("a passphrase has at least one character, and one line")
    reading, writing = os.pipe()
    try:
        os.write(writing, passphrase.encode() + b"\n")  # a pipe holds more than a line
        os.close(writing)
        done = subprocess.run(
            [program, *words, f"fd:{reading}"],
            input=pem.encode(),
            pass_fds=(reading,),
            capture_output=True,
            check=False,
        )
    finally:
        os.close(reading)
    if done.returncode != 0 or not done.stdout:
        raise OperatorError(trouble)
    return done.stdout.decode()
