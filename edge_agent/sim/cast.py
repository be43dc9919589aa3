"""The plugins that play in the demonstration: their modules, names and configurations."""

import hashlib
from pathlib import Path

MODULES = Path(__file__).parent / "modules"

INJECTOR, GUARD, LOGGER, STUCK = "device-injector", "resource-guard", "event-logger", "stuck"
IDENTITIES = {INJECTOR: "10-device-injector", GUARD: "50-resource-guard", LOGGER: "90-event-logger"}
STUCK_IDENTITY = "70-stuck"
DIGEST_CHARS = 8  # as many as tell versions apart for people

# No placeholder stands in while they are compiled: the scenes count what is registered.
SETTINGS = 'failure_policy = "Ignore"\n'
CONFIGS = {
    INJECTOR: "device c 89:* /dev/i2c-*\ndevice c 254:* /dev/gpiochip*\n",
    GUARD: "[default]\nmemory.default = 64Mi\nmemory.maximum = 512Mi\npids.default = 128\n",
    LOGGER: "log = info\nreport = on\n",
}


def module(name: str) -> bytes:
    """A plugin that comes with the package."""
    return (MODULES / f"{name}.wasm").read_bytes()


def another_build(content: bytes, version: str) -> bytes:
    """The same module with a custom section: other bytes, so another version to the agent."""
    name = b"demo.version"
    body = bytes([len(name)]) + name + version.encode()
    return content + b"\0" + bytes([len(body)]) + body


def digest(content: bytes) -> str:
    """A version's name for people."""
    return hashlib.sha256(content).hexdigest()[:DIGEST_CHARS]
