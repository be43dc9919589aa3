"""Keys in PKCS #11 tokens (smart cards, HSMs, YubiKeys, SoftHSM), which never leave the token.

A key is named by a URI of RFC 7512, which tells its token and the module, the token's driver:

    pkcs11:token=fleet;object=alice?module-path=/usr/lib/softhsm/libsofthsm2.so

A token's PIN is asked for, or read from the file that `pin-source` names; never from the URI.
Keys are Ed25519 (CKM_EDDSA) or P-256 (CKM_ECDSA), which older tokens have instead.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote_to_bytes

from edge_agent.errors import KeyFormatError, OperatorError
from edge_agent.fleet_protocol import keys
from edge_agent.fleet_protocol.keys import ED25519, P256, PublicKey
from edge_agent.store.digest import sha256

EXAMPLE = "pkcs11:token=fleet;object=alice?module-path=/usr/lib/softhsm/libsofthsm2.so"
MAX_URI_CHARACTERS = 2000
MAX_PIN_BYTES = 256
# Of a token, and of the key in it; one not named here might have told another key.
_TOKEN, _KEY = ("token", "serial", "manufacturer", "model"), ("object", "id", "type")
_QUERY = ("module-path", "pin-source")
# CKA_EC_PARAMS: the curve's object identifier, or the name that PKCS #11 2.40 drafts had.
_CURVES = {
    bytes.fromhex("06032b6570"): ED25519,
    b"\x13\x0cedwards25519": ED25519,
    bytes.fromhex("06082a8648ce3d030107"): P256,
}
_OCTETS = 0x04  # CKA_EC_POINT is wrapped in this by some, and bare with others


@dataclass(frozen=True)
class KeyUri:
    """A key's URI, read."""

    text: str
    module: Path
    token: Mapping[str, bytes]
    key: Mapping[str, bytes]
    pin_file: Path | None = None


class TokenKey:
    """One key of a token; signs as edge_agent.fleet_protocol.keys.SigningKey does."""

    def __init__(
        self, uri: KeyUri, public: PublicKey, ask: Callable[[str], str] | None = None
    ) -> None:
        """`ask` shows a question and returns a PIN; None: no terminal to ask at."""
        self.public = public
        self._uri = uri
        self._ask = ask
        self._pin: str | None = None  # asked for once

    def there(self) -> bool:
        """Whether its token is present; asks for no PIN."""
        try:
            with _errors(self._uri):
                _token(_library(), self._uri)
        except OperatorError:
            return False
        return True

    def sign(self, message: bytes) -> bytes:
        """The signature of 64 bytes. OperatorError: the token or the person refuses."""
        with _errors(self._uri), self._session() as (pkcs11, session):
            key = _only(session, self._uri, pkcs11.ObjectClass.PRIVATE_KEY)
            again = {"pin": self._pin} if self._pin and _asks_each_time(pkcs11, key) else {}
            if self.public.algorithm == ED25519:
                signature = key.sign(message, mechanism=pkcs11.Mechanism.EDDSA, **again)
            else:
                digest = sha256()
                digest.update(message)
                mechanism = pkcs11.Mechanism.ECDSA
                signature = key.sign(digest.digest(), mechanism=mechanism, **again)
        if not keys.verify(self.public, message, signature):
            raise OperatorError(
                f"{self._uri.text}: what the token signs does not fit {self.public.keyid[:12]}: is"
                " the URI still that of this key?"
            )
        return bytes(signature)

    @contextmanager
    def _session(self) -> Iterator[tuple[ModuleType, Any]]:
        pkcs11 = _library()
        token = _token(pkcs11, self._uri)
        if pkcs11.TokenFlag.LOGIN_REQUIRED not in token.flags:
            secret: object = None
        elif pkcs11.TokenFlag.PROTECTED_AUTHENTICATION_PATH in token.flags:
            secret = pkcs11.types.PROTECTED_AUTH  # a PIN pad
        else:
            secret = self._pin = self._pin or self._read_pin(token.label)
        with token.open(user_pin=secret) as session:
            yield pkcs11, session

    def _read_pin(self, label: str) -> str:
        if (file := self._uri.pin_file) is not None:
            try:
                with file.open("rb") as opened:
                    return opened.read(MAX_PIN_BYTES).decode().rstrip("\n")
            except (OSError, ValueError) as error:
                raise OperatorError(f"{file}: the PIN cannot be read: {error}") from error
        if self._ask is None:
            raise OperatorError(
                f"{self._uri.text}: its token wants a PIN, and there is no terminal to ask at; name"
                " a file with it: pin-source"
            )
        return self._ask(f"PIN of the token {label}: ")


def parse(text: str) -> KeyUri:
    """A URI of RFC 7512. OperatorError: invalid, or with unknown attributes."""
    if not text.startswith("pkcs11:") or len(text) > MAX_URI_CHARACTERS:
        raise OperatorError(f'"{text[:60]}" is no key of a token; such as {EXAMPLE}')
    path, _, query = text.removeprefix("pkcs11:").partition("?")
    if "pin-value" in query:
        raise OperatorError("pin-value: a PIN is no part of a URI; leave it out, or use pin-source")
    attributes = _attributes(path, ";", (*_TOKEN, *_KEY))
    asked = _attributes(query, "&", _QUERY)
    if attributes.get("type", b"private") != b"private":
        raise OperatorError(f"{text}: a private key is wanted: type=private")
    if "module-path" not in asked:
        raise OperatorError(f"{text}: module-path is missing, the token's driver: {EXAMPLE}")
    source = asked.get("pin-source")
    return KeyUri(
        text,
        Path(os.fsdecode(asked["module-path"])),
        {name: attributes[name] for name in _TOKEN if name in attributes},
        {name: attributes[name] for name in ("object", "id") if name in attributes},
        None if source is None else Path(os.fsdecode(source.removeprefix(b"file:"))),
    )


def public_key(uri: KeyUri) -> PublicKey:
    """The public key of a key in the token. OperatorError."""
    with _errors(uri):
        pkcs11 = _library()
        with _token(pkcs11, uri).open() as session:
            found = _only(session, uri, pkcs11.ObjectClass.PUBLIC_KEY)
            curve = bytes(found[pkcs11.Attribute.EC_PARAMS])
            point = bytes(found[pkcs11.Attribute.EC_POINT])
    algorithm = _CURVES.get(curve)
    if algorithm is None:
        raise OperatorError(f"{uri.text}: it is a key of another kind than Ed25519 and P-256")
    if len(point) > 2 and point[0] == _OCTETS and point[1] == len(point) - 2:
        point = point[2:]
    try:
        return keys.public_key(point, algorithm)
    except KeyFormatError as error:
        raise OperatorError(f"{uri.text}: {error}") from error


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for each in text.split(separator) if text else ():
        name, equals, value = each.partition("=")
        if name not in known or not equals or name in found:
            raise OperatorError(
                f'"{each[:60]}" in a URI of a key: known are {", ".join(known)}, each once'
            )
        if re.search(r"%(?![0-9A-Fa-f]{2})", value):
            raise OperatorError(f'"{each[:60]}" in a URI of a key: % is written %25')
        found[name] = unquote_to_bytes(value)
    return found


def _token(pkcs11: ModuleType, uri: KeyUri) -> Any:
    """The one token that fits. OperatorError."""
    found = []
    for token in pkcs11.lib(str(uri.module)).get_tokens():
        told = {
            "token": token.label.encode(),
            "serial": token.serial.strip(b"\0 "),
            "manufacturer": token.manufacturer_id.encode(),
            "model": token.model.encode(),
        }
        if all(told[name].rstrip() == value for name, value in uri.token.items()):
            found.append(token)
    if len(found) != 1:
        raise OperatorError(f"{uri.text}: {len(found)} tokens fit; one must: is it there?")
    return found[0]


def _only(session: Any, uri: KeyUri, kind: Any) -> Any:
    """The one object of this class (CKO_...) that fits. OperatorError."""
    import pkcs11

    wanted: dict[Any, Any] = {pkcs11.Attribute.CLASS: kind}
    if "object" in uri.key:
        wanted[pkcs11.Attribute.LABEL] = uri.key["object"].decode(errors="replace")
    if "id" in uri.key:
        wanted[pkcs11.Attribute.ID] = uri.key["id"]
    found = list(session.get_objects(wanted))
    if len(found) != 1:
        what = kind.name.replace("_", " ").lower()
        raise OperatorError(f"{uri.text}: {len(found)} of its objects are such a {what}; one must")
    return found[0]


def _asks_each_time(pkcs11: ModuleType, key: Any) -> bool:
    try:
        return bool(key[pkcs11.Attribute.ALWAYS_AUTHENTICATE])
    except pkcs11.exceptions.PKCS11Error:
        return False  # a token that does not know the attribute


@contextmanager
def _errors(uri: KeyUri) -> Iterator[None]:
    """Errors of the library as OperatorError."""
    pkcs11 = _library()
    try:
        yield
    except pkcs11.exceptions.PKCS11Error as error:
        name = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower()
        detail = f" ({error})" if str(error) else ""
        raise OperatorError(f"{uri.text}: the token refuses: {name}{detail}") from error
    except (RuntimeError, OSError) as error:  # the module cannot be loaded
        raise OperatorError(f"{uri.text}: {error}") from error


def _library() -> ModuleType:
    try:
        import pkcs11
        import pkcs11.types
    except ImportError as error:
        raise OperatorError(
            "keys of tokens need python-pkcs11: pip install 'edge-agent[pkcs11]'"
        ) from error
    return pkcs11
