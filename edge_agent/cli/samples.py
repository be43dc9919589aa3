"""Requests for trying a plugin: from a file, or derived from a request of a real containerd."""

import json
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from edge_agent.errors import ConfigError
from edge_agent.nri.difference import message_types
from edge_agent.nri.events import EXPORTS
from edge_agent.pb import nri_pb2
from edge_agent.store import files

MAX_REQUEST_BYTES = 16 << 20  # JSON takes some four times what ttRPC carries
_CAPTURE = Path(__file__).with_name("create_container_request.bin")  # containerd 2.1.9


def method_named(word: str) -> str | None:
    """CreateContainer for "create_container", "CreateContainer" or the guest's export."""
    plain = word.lower().removeprefix("plugin_").replace("_", "").replace("-", "")
    return next((method for method in EXPORTS if method.lower() == plain), None)


def read_request(path: Path, method: str) -> Message:
    """A request in protobuf's binary form or as JSON (protobuf's mapping), told by content.

    ConfigError: the file is missing or no such request.
    """
    kind = message_types(method)[0]
    data = files.read(path, MAX_REQUEST_BYTES)
    if data is None:
        raise ConfigError(f"{path}: no such file")
    name = kind.DESCRIPTOR.name
    # Not told by the first byte: a serialized message may begin with a newline and "{".
    not_json = _no_json_object(data)
    if not_json is None:
        try:
            return json_format.Parse(data, kind(), max_recursion_depth=64)
        except json_format.ParseError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{path}: no {name} in JSON: {reason}") from error
    try:
        return kind.FromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: neither JSON ({not_json}) nor a serialized {name}") from error


def _no_json_object(data: bytes) -> str | None:
    """Why these bytes are not an object in JSON, or None if they are."""
    try:
        return None if isinstance(json.loads(data), dict) else "not an object"
    except UnicodeDecodeError:
        return "not text"
    except json.JSONDecodeError as error:
        return str(error)
    except (ValueError, RecursionError):
        return "numbers or brackets without end"


def sample(method: str) -> Message:
    """A request of any method about one pod with one container."""
    captured = nri_pb2.CreateContainerRequest.FromString(_CAPTURE.read_bytes())
    pod, container = captured.pod, captured.container
    request = message_types(method)[0]()
    if isinstance(request, nri_pb2.SynchronizeRequest):
        request.pods.append(pod)
        request.containers.append(container)
    for name, value in (("pod", pod), ("container", container)):
        if name in request.DESCRIPTOR.fields_by_name:
            getattr(request, name).CopyFrom(value)
    if isinstance(request, nri_pb2.UpdateContainerRequest | nri_pb2.UpdatePodSandboxRequest):
        request.linux_resources.CopyFrom(container.linux.resources)
    if isinstance(request, nri_pb2.ValidateContainerAdjustmentRequest):
        _adjust(request)
    return request


def message(method: str) -> Message:
    """An empty request."""
    return message_types(method)[0]()


def _adjust(request: nri_pb2.ValidateContainerAdjustmentRequest) -> None:
    """The adjustment of one other plugin: an annotation, a variable and a device."""
    plugin = nri_pb2.PluginInstance(index="10", name="sample")
    request.plugins.append(plugin)
    request.adjust.annotations["sample.example.com/touched"] = "yes"
    request.adjust.env.add(key="SAMPLE", value="yes")
    request.adjust.linux.devices.add(path="/dev/gpiochip0", type="c", major=254)
    owners = request.owners.owners[request.container.id]
    for field, key in (
        (nri_pb2.Annotations, "sample.example.com/touched"),
        (nri_pb2.Env, "SAMPLE"),
        (nri_pb2.Devices, "/dev/gpiochip0"),
    ):
        owners.compound[field].owners[key] = f"{plugin.index}-{plugin.name}"
