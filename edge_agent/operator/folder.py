"""The fleet's folder: files that people edit and share, usually under git. It has no secrets.

fleet.toml          the fleet's name, brokers and trusted keys
deployment.toml     what runs on which nodes
nodes.toml          keys of enrolled nodes (operator/enrolment)
trust/              public keys, NAME.pem, their version and validity: the files for new nodes
releases/NAME/VERSION.toml   a version that `publish` brought to the broker
deployed.toml       the last deployment from this folder
"""

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edge_agent.config.units import Validity
from edge_agent.errors import OperatorError, StoreError
from edge_agent.fleet.trustfiles import written_validity
from edge_agent.fleet_protocol.keys import PublicKey, public_pem
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.operator.fleet_toml import FleetSettings, load_settings
from edge_agent.operator.keyring import read_public
from edge_agent.store import files

FLEET_FILE = "fleet.toml"
SHARED_FILE = 0o644
# A commit's answer takes a moment; a hook or a network file system may take longer.
GIT_TIMEOUT_S = 20.0
DIRTY = "-dirty"  # git's own word, behind a commit
_PRIVATE_MARK = b"PRIVATE KEY-----"


class FleetFolder:
    """One folder; each file is read when its method is called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.deployment_file = path / "deployment.toml"
        self.deployed_file = path / "deployed.toml"
        self.nodes_file = path / "nodes.toml"
        self.trust_folder = path / "trust"
        self.releases_folder = path / "releases"
        self.own_folder = path / ".edge-agent"  # of this machine only

    def settings(self) -> FleetSettings:
        """`fleet.toml`. ConfigError, OperatorError."""
        return load_settings(self.path / FLEET_FILE)

    def public_keys(self, names: Sequence[str]) -> tuple[PublicKey, ...]:
        """The keys in trust/ of these names. OperatorError."""
        self.refuse_private_keys()
        return tuple(read_public(self.trust_folder / f"{name}.pem") for name in names)

    def trust_set(self) -> TrustSet:
        """The trusted keys of fleet.toml. ConfigError, OperatorError."""
        settings = self.settings()
        if not settings.keys:
            raise OperatorError(
                f"{self.path}/fleet.toml: [trust] names no key; make one with `edge-agent fleet"
                " keygen NAME`, put its NAME.pem into trust/ and its name into keys"
            )
        keys, threshold = self.public_keys(settings.keys), settings.threshold
        if threshold > len(keys):
            raise OperatorError(
                f"{self.path}/fleet.toml: threshold is {threshold}, and only {len(keys)} keys are"
                " trusted"
            )
        return TrustSet(settings.name, settings.trust_version, threshold, keys, settings.validity)

    def key_names(self, keys: Iterable[PublicKey]) -> list[str]:
        """The names that fleet.toml has for keys, sorted; an unknown key's id in short."""
        known = self.settings().keys
        public = dict(zip((key.keyid for key in self.public_keys(known)), known, strict=True))
        return sorted(public.get(key.keyid, key.keyid[:12]) for key in keys)

    def refuse_private_keys(self) -> None:
        """OperatorError: there is a private key in this shared folder."""
        for path in (*self.path.glob("*.pem"), *self.path.glob("*.key"), *self._trust_files()):
            if path.is_file() and _PRIVATE_MARK in path.read_bytes()[:8192]:
                raise OperatorError(
                    f"{path}: is a private key in a folder that is shared; move it away, and if it"
                    " was ever committed or copied, make a new one and rotate it out"
                )

    def release_file(self, name: str, version: str) -> Path:
        return self.releases_folder / name / f"{version}.toml"

    def write(self, path: Path, text: str) -> None:
        """Put `text` in the place of a file of this folder. OperatorError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, text.encode(), SHARED_FILE)
        except (OSError, StoreError) as error:
            raise OperatorError(f"{path}: cannot be written: {error}") from error

    def write_trust(
        self, keys: Mapping[str, PublicKey], version: int, validity: Validity | None
    ) -> None:
        """Make trust/ what nodes read as their first keys (fleet/trustfiles): these and no others.

        OperatorError.
        """
        for path in self._trust_files():
            if path.suffix == ".pem" and path.stem not in keys:
                files.remove(path)
        for name, key in keys.items():
            self.write(self.trust_folder / f"{name}.pem", public_pem(key))
        self.write(self.trust_folder / "version", f"{version}\n")
        if validity is None:
            files.remove(self.trust_folder / "validity")
        else:
            self.write(self.trust_folder / "validity", written_validity(validity))

    def commit(self) -> str | None:
        """The present commit, with "-dirty" if there are changes; None: no git."""
        head = self.git("rev-parse", "--short=12", "HEAD")
        if not head:
            return None
        return f"{head}{DIRTY}" if self.git("status", "--porcelain", "--", ".") else head

    def git(self, *words: str) -> str | None:
        git = shutil.which("git")
        if git is None:
            return None
        try:
            done = subprocess.run(
                [git, "-C", str(self.path), *words],
                capture_output=True,
                text=True,
                timeout=GIT_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    def _trust_files(self) -> list[Path]:
        return sorted(self.trust_folder.glob("*")) if self.trust_folder.is_dir() else []


def find(start: Path) -> FleetFolder:
    """The fleet's folder that `start` is in. OperatorError."""
    for path in (start, *start.absolute().parents):
        if (path / FLEET_FILE).is_file():
            return FleetFolder(path)
    raise OperatorError(
        f"{start}: no fleet.toml there or above; go into the fleet's folder, name it with"
        " -C FOLDER, or make one with: edge-agent fleet init FOLDER"
    )


def create(
    path: Path,
    *,
    name: str,
    url: str,
    keys: dict[str, PublicKey],
    threshold: int,
    validity: Validity | None = None,
    **mqtt: str,
) -> FleetFolder:
    """Make a fleet's folder, under git where git is there. OperatorError.

    Without `validity` the keys do not expire. `mqtt` are further keys of [mqtt], such as ca_file.
    An existing folder must have none of the files.
    """
    folder = FleetFolder(path)
    texts = {
        path / FLEET_FILE: fleet_text(name, url, sorted(keys), threshold, validity, mqtt),
        folder.deployment_file: DEPLOYMENT,
        path / ".gitignore": GITIGNORE,
    }
    for file in texts:
        if file.exists():
            raise OperatorError(f"{file}: is there already; nothing was changed")
    try:
        for kept in (folder.trust_folder, folder.releases_folder):
            kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"{path}: cannot be made: {error.strerror}") from error
    folder.write_trust(keys, 1, validity)
    for file, text in texts.items():
        folder.write(file, text)
    if folder.git("rev-parse", "--show-toplevel") is None:
        folder.git("init", "--quiet")
    folder.settings()  # what was written can be read
    return folder


# --- the texts of a new folder


_FLEET = """\
# The fleet: its name, its broker and whose signatures count. Shared; no secret belongs here.
name = {name}
# Whether watched rollouts count only what enrolled nodes signed (edge-agent fleet enrol).
# Without this line: as soon as one node is enrolled. A broker that lies could else carry one on.
# require_signed_states = true

[mqtt]
# Or several, tried in turn: urls = ["mqtts://a:8883", "mqtts://b:8883"]
url = {url}
{mqtt}
[trust]
# Public keys, trust/NAME.pem. Change them with `edge-agent fleet trust rotate`.
keys = {keys}
# How many of them must sign what the nodes take.
threshold = {threshold}
version = 1
{validity}"""
_VALIDITY = """\
# Until then: `edge-agent fleet trust renew`. Later nodes take the renewal too, but no deployment.
issued = "{issued}"
expires = "{expires}"
"""
_MQTT_KEYS = {
    "ca_file": '"ca.pem"                                   # who signed the broker\'s certificate',
    "cert_file": '"operator.pem"                           # this operator\'s certificate ...',
    "key_file": '"~/.config/edge-agent/operator.key"       # ... and its key, kept elsewhere',
    "username": '"operator"                                # or a name and a password',
    "password_file": '"~/.config/edge-agent/password"',
    "tls_server_name": '"broker.example"',
}

DEPLOYMENT = """\
# What runs on which nodes. `edge-agent fleet plan` shows what a change here would do,
# `edge-agent fleet deploy` signs and publishes it, `edge-agent fleet rollout` edits it.

# How long nodes take this document once it is signed; what runs already goes on running.
valid_for = "30d"

# [[plugins]]
# name = "resource-guard"
# index = "20"                              # the order in which plugins are called: 00 to 99
# select = { labels = { board = "rpi4" } }  # labels of the nodes; none: every node
# config_file = "resource-guard.conf"       # or: config = "text", handed to the plugin
# failure_policy = "Ignore"                 # or "Fail"
# mode = "monitor"                          # only reports what it would do; here or in a release
# instance = "per-event"                    # a fresh instance for each event; here or in a release
# permissions = ["linux.resources", "update"]
# runtimes = ["containerd", "cri-o"]        # none: each that carries what is permitted
# report = "changes"
# limits = { memory = "16MiB", deadline = "200ms" }
#
# [[plugins.releases]]                      # the first that a node is chosen for runs there
# version = "1.1.0"
# rollout = { percent = 10, seed = "1.1.0" }
#
# [[plugins.releases]]
# version = "1.0.0"
"""

GITIGNORE = """\
# Private keys and passwords do not belong into a fleet's folder, and never under git.
*.key
*-key.pem
*.p12
*password*
# Of this machine only.
.edge-agent/
"""


def fleet_text(
    name: str,
    url: str,
    keys: Sequence[str],
    threshold: int,
    validity: Validity | None,
    mqtt: Mapping[str, str],
) -> str:
    """`fleet.toml`, with what is not given as comments where it helps."""
    lines = []
    for key, example in _MQTT_KEYS.items():
        value = mqtt.get(key)
        lines.append(f"# {key} = {example}" if value is None else f"{key} = {json.dumps(value)}")
    return _FLEET.format(
        name=json.dumps(name),
        url=json.dumps(url),
        mqtt="\n".join(lines) + "\n",
        keys=json.dumps(list(keys)),
        threshold=threshold,
        validity="" if validity is None else _VALIDITY.format(**validity.as_document()),
    )
