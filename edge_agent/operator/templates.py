"""The texts of a new fleet folder. Pure."""

import json
from collections.abc import Mapping, Sequence

from edge_agent.validity import Validity

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


def fleet(
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
        validity="" if validity is None else _VALIDITY.format(**validity.told()),
    )
