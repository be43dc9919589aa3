"""What the guests that lay an SDK open (sdk-rust, sdk-zig) answer to CreateContainer."""

from edge_agent.pb import nri_pb2


def expected(request: nri_pb2.CreateContainerRequest) -> nri_pb2.ContainerAdjustment:
    """The reply to a request, made by the library."""
    container = request.container
    memory = container.linux.resources.memory

    def optional(name: str) -> str:
        if not memory.HasField(name):
            return "None"
        return f"Some({str(getattr(memory, name).value).lower()})"

    adjust = nri_pb2.ContainerAdjustment(
        annotations=request.pod.labels, mounts=container.mounts, args=container.args
    )
    for key, value in (
        ("name", container.name),
        ("state", str(container.state)),
        ("exit", str(container.exit_code)),
        ("created", str(container.created_at)),
        ("limit", optional("limit")),
        ("oom", optional("disable_oom_killer")),
        ("linux", str(container.HasField("linux")).lower()),
        ("gids", str(list(container.user.additional_gids))),
    ):
        adjust.env.add(key=key, value=value)
    adjust.linux.SetInParent()
    for device in container.linux.devices:
        copy = adjust.linux.devices.add()
        copy.path, copy.type = device.path, device.type
        copy.major, copy.minor = device.major, device.minor
        if device.HasField("file_mode"):
            copy.file_mode.CopyFrom(device.file_mode)
    for name, net in container.linux.net_devices.items():
        adjust.linux.net_devices[name].CopyFrom(net)
    return adjust
