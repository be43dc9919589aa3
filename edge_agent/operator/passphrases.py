"""Private keys behind a passphrase: PKCS #8, encrypted and opened by openssl.

Neither Python's library nor PyNaCl has the ciphers. The passphrase goes through a pipe, never a
command line or a file.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence

from edge_agent.errors import OperatorError

MARK = "-----BEGIN ENCRYPTED PRIVATE KEY-----"
_LOCK = ("pkcs8", "-topk8", "-v2", "aes-256-cbc", "-scrypt", "-passout")
_UNLOCK = ("pkey", "-passin")


def lock(pem: str, passphrase: str) -> str:
    """The PEM text of a private key, encrypted. OperatorError."""
    return _openssl(_LOCK, pem, passphrase, "the key cannot be encrypted")


def unlock(pem: str, passphrase: str) -> str:
    """The PEM text of an encrypted key as it was before. OperatorError: not this passphrase."""
    return _openssl(_UNLOCK, pem, passphrase, "it does not open; is that its passphrase?")


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
