"""Compiled modules, kept and trusted only if this very node made them.

    STATE/artifacts.secret               32 random bytes of this node, mode 0600
    STATE/artifacts/KEY.artifact         what the engine compiled; mapped as it is
    STATE/artifacts/KEY.mac              its size, and a keyed BLAKE2b of key, size and bytes
    STATE/artifacts/lock                 held while something is built or removed

An engine runs whatever it is given, so nothing damaged, foreign or half may reach it:
what does not verify is compiled again. What was verified is what is mapped: both go
through one open descriptor, and no file is ever changed in place.

Machine code that the fleet made for this node (docs/adr/0050) is the one exception: what the signed
deployment names by its digest, compared each time with the bytes behind that descriptor.
"""

import logging
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

from edge_agent.errors import EngineError, StoreError
from edge_agent.store import files
from edge_agent.store.digest import Digest, keyed, sha256, sha256_hex
from edge_agent.store.release import Machine
from edge_agent.wasm import compiler
from edge_agent.wasm.engine import FUEL_RULES, Engine, Module, Portable, metered_settings
from edge_agent.wasm.modulefile import ModuleFile

log = logging.getLogger(__name__)

SECRET_BYTES = 32
MAX_SECRET_FILE_BYTES = 4096  # anything but 32 bytes is refused; this only bounds the read
MAX_MAC_FILE_BYTES = 256
# Not to hang on a named pipe, which cannot be read at an offset.
OPENED = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_PART_BYTES = 64 << 10  # read at once
_GROWTH = 3  # an artifact has 2.2 times the bytes of a Go module of 10 MB
_FORMAT = "edge-agent artifact 2"  # a change of this file's rules makes all artifacts stale
# Of /proc/cpuinfo, by architecture: what code may use. Not the clock's rate and the like.
_CPU_FIELDS = frozenset(
    ("flags", "Features", "CPU architecture", "isa", "mmu", "uarch", "features")
)


class Artifacts:
    """The artifacts of one state folder. Everything waits: for worker threads only."""

    def __init__(
        self,
        state_dir: Path,
        *,
        timeout_s: float = compiler.TIMEOUT_S,
        memory_bytes: int = compiler.MEMORY_BYTES,
    ) -> None:
        self._state_dir = state_dir
        self._folder = state_dir / "artifacts"
        self._secret_file = state_dir / "artifacts.secret"
        self.timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._cpu = cpu_features()

    def key(self, engine: Engine, digest: Digest, metered: bool = False) -> str:
        """The name of the artifact of the module with this SHA-256 (hexadecimal)."""
        return artifact_key(digest, engine, self._cpu, metered)

    def stored(self, engine: Engine, source: ModuleFile) -> Module | None:
        """Load a module, or None if `module` would have to compile it. StoreError.

        What this node compiled goes before what the fleet did for it.
        """
        key = self.key(engine, source.digest, source.metered)
        return self._load(engine, key, source) or _of_the_fleet(engine, source)

    def module(self, engine: Engine, source: ModuleFile) -> Module:
        """Load a module, compiling it in a child process unless a good artifact is here.

        ModuleError: not valid Wasm, or its file is another by now. EngineError: the compiler
        failed. StoreError: the artifact cannot be kept, such as on a full disk.
        """
        key = self.key(engine, source.digest, source.metered)
        module = self._load(engine, key, source)
        if module is not None:
            return module
        with files.locked(self._folder / "lock"):
            # Another process may have built it while this one waited for the lock.
            module = self._load(engine, key, source)
            if module is not None:
                return module
            self._build(engine, key, source)
            fd = self._open_genuine(key)
            if fd is None:
                raise StoreError(
                    f"{self._artifact(key)}: is damaged right after it was written; "
                    "check the disk and the memory of this node"
                )
            return self._map(engine, key, fd, source)

    def remove_damaged(self) -> list[Path]:
        """Remove and name what is no longer as this node wrote it: after the process died of a
        fault. What has no sidecar was never finished, and is no damage. StoreError never."""
        damaged = []
        try:
            secret = self._secret()
            found = sorted(self._folder.glob("*.artifact")) if secret is not None else []
        except (StoreError, OSError) as error:
            log.warning("artifacts are not checked: %s", error)
            return []
        for path in found:
            key = path.stem
            if secret is None or not self._mac(key).exists():
                continue
            try:
                fd = os.open(path, OPENED)
            except OSError as error:
                log.warning("%s", files.failure("read", path, error))
                continue
            try:
                genuine = self._genuine(secret, key, fd)
            finally:
                os.close(fd)
            if not genuine:
                files.remove(path)
                files.remove(self._mac(key))
                damaged.append(path)
        return damaged

    def collect(self, keep: Collection[str]) -> int:
        """Remove all but the artifacts with these keys, and what crashes left; bytes freed."""
        if not self._folder.is_dir():
            return 0
        freed = 0
        with files.locked(self._folder / "lock"):
            files.remove_leftovers(self._folder)
            for path in sorted(self._folder.iterdir()):
                if path.suffix in (".artifact", ".mac") and path.stem not in keep:
                    size = path.lstat().st_size
                    if files.remove(path):
                        freed += size
        return freed

    def _artifact(self, key: str) -> Path:
        return self._folder / f"{key}.artifact"

    def _mac(self, key: str) -> Path:
        return self._folder / f"{key}.mac"

    def _load(self, engine: Engine, key: str, source: ModuleFile) -> Module | None:
        """The module, or None if it must be built."""
        fd = self._open_genuine(key)
        if fd is None:
            return None
        try:
            return self._map(engine, key, fd, source)
        except EngineError as error:
            log.warning("%s; compiling again", error)
            return None

    def _map(self, engine: Engine, key: str, fd: int, source: ModuleFile) -> Module:
        """Give a verified descriptor to the engine, and close it. EngineError."""
        try:
            return mapped(engine, fd, self._artifact(key), source)
        finally:
            os.close(fd)

    def _open_genuine(self, key: str) -> int | None:
        """A descriptor of the artifact, or None if there is none that this node made."""
        path = self._artifact(key)
        secret = self._secret()
        if secret is None:
            return None
        try:
            fd = os.open(path, OPENED)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s; compiling again", files.failure("read", path, error))
            return None
        if self._genuine(secret, key, fd):
            return fd
        os.close(fd)
        log.warning("%s is damaged or not this node's; compiling again", path)
        return None

    def _genuine(self, secret: bytes, key: str, fd: int) -> bool:
        """Whether the sidecar is that of what the descriptor holds."""
        try:
            said = files.read(self._mac(key), MAX_MAC_FILE_BYTES)
            # Nothing to hide from a timer: who can write here is the agent itself.
            return said is not None and said == sidecar(secret, key, fd)
        except (StoreError, OSError) as error:
            log.warning("%s: %s", self._artifact(key), error)
            return False

    def _build(self, engine: Engine, key: str, source: ModuleFile) -> None:
        files.remove_leftovers(self._folder)
        files.require_space(self._folder, _GROWTH * source.info.size)
        secret = self._secret() or self._new_secret()
        artifact = self._artifact(key)
        with files.placing(artifact) as temporary:
            compiler.compile_module(
                engine.name,
                source.path,
                source.digest,
                temporary,
                metered=source.metered,
                timeout_s=self.timeout_s,
                memory_bytes=self._memory_bytes,
            )
            fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
            try:
                proof = sidecar(secret, key, fd)
            finally:
                os.close(fd)
        try:
            files.write(self._mac(key), proof)
        except StoreError:
            files.remove(artifact)
            raise

    def _secret(self) -> bytes | None:
        """The node's secret, or None if there is none that nobody else can know."""
        try:
            status = self._secret_file.lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise files.failure("read", self._secret_file, error) from error
        private = (
            stat.S_ISREG(status.st_mode)
            and status.st_mode & 0o077 == 0
            and status.st_uid == os.geteuid()
        )
        secret = files.read(self._secret_file, MAX_SECRET_FILE_BYTES) if private else None
        if secret is None or len(secret) != SECRET_BYTES:
            log.warning(
                "%s is not 32 bytes that only this user can read: all plugins are compiled anew",
                self._secret_file,
            )
            return None
        return secret

    def _new_secret(self) -> bytes:
        secret = os.urandom(SECRET_BYTES)
        files.write(self._secret_file, secret)
        return secret


def mapped(engine: Engine, fd: int, named: Path, source: ModuleFile) -> Module:
    """The code behind the descriptor of a file that was verified through it. EngineError."""
    try:
        return engine.load(Path(f"/proc/self/fd/{fd}"), source.info, source.stack_bytes)
    except EngineError as error:
        advice = ""
        if os.fstatvfs(fd).f_flag & os.ST_NOEXEC:
            advice = "; state_dir is on a file system mounted noexec, no code can run from it"
        reason = " ".join(str(error).split())
        raise EngineError(f"{named} is refused: {reason}{advice}") from error


def _of_the_fleet(engine: Engine, source: ModuleFile) -> Module | None:
    """The module from the fleet's machine code; None: there is none that can be used."""
    code = source.code
    if code is None:
        return None
    try:
        fd = os.open(code.path, OPENED)
        try:
            digest = sha256()
            _feed(digest, fd)
            if Digest.made(digest) != code.digest:
                raise EngineError(f"{code.path} is refused: it is not what the deployment names")
            return mapped(engine, fd, code.path, source)
        finally:
            os.close(fd)
    except (EngineError, OSError) as error:
        why = error if isinstance(error, EngineError) else files.failure("read", code.path, error)
        log.warning("machine code of the fleet's: %s; compiling here", why)
        return None


def machine_of(engine: Engine) -> Machine | None:
    """The machine that code must be made for to run here; None: the engine loads no code of other
    machines."""
    features = engine.features() if isinstance(engine, Portable) else None
    if features is None:
        return None
    settings = engine.settings()
    return Machine(
        engine=engine.name,
        version=engine.version,
        target=os.uname().machine,
        settings=settings,
        metered=metered_settings(settings),
        features=features,
    )


def artifact_key(digest: Digest, engine: Engine, cpu: str, metered: bool = False) -> str:
    """SHA-256 over all that an artifact depends on, as 64 hexadecimal characters."""
    parts = [_FORMAT, digest.hex, engine.name, engine.version, engine.settings(), cpu]
    if metered:
        parts.append(f"fuel={FUEL_RULES}")
    return sha256_hex("\0".join(parts).encode())


def sidecar(secret: bytes, key: str, fd: int) -> bytes:
    """The sidecar's line for the artifact behind `fd`: format, size, code; one line. OSError."""
    size = os.fstat(fd).st_size
    mac = keyed(secret)
    mac.update(f"{_FORMAT}\0{key}\0{size}\0".encode())
    read = _feed(mac, fd)
    return f"{_FORMAT} {read} {mac.hexdigest()}\n".encode()


def _feed(digest: Any, fd: int) -> int:
    """Feed a digest with what is behind a descriptor; how many bytes that is. OSError."""
    buffer = bytearray(_PART_BYTES)
    view = memoryview(buffer)
    at = 0
    while count := os.preadv(fd, [buffer], at):
        digest.update(view[:count])
        at += count
    return at


def cpu_features() -> str:
    """The machine and what its processors can do: code for one may not run on another."""
    return f"{os.uname().machine} " + " ".join(sorted(_cpuinfo()))


def _cpuinfo() -> set[str]:
    # Cores of one chip can differ, so the lines of all cores are taken together.
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return set()
    found = set()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in _CPU_FIELDS:
            found.add(f"{name.strip()}={value.strip()}")
    return found
