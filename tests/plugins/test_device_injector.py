"""device-injector, and rules that say the same: annotations in, devices, mounts and so on out."""

import json
from collections.abc import Callable
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.pb import nri_pb2

from . import as_rules
from .guest import PLUGINS, Guest, GuestError, capture, plugin

CREATE = nri_pb2.CreateContainerRequest.FromString(capture("create_container"))
DEVICES, OLD_DEVICES = "devices.noderesource.dev", "devices.nri.io"
MOUNTS, OLD_MOUNTS = "mounts.noderesource.dev", "mounts.nri.io"
MAIN = f"{DEVICES}/container.main"
NULL = "- path: /dev/nri-null\n  type: c\n  major: 1\n  minor: 3\n"


def configured(text: str = "") -> Guest:
    guest = Guest(plugin("device-injector"))
    guest.configure(text)
    return guest


def by_rules(text: str = "") -> Guest:
    guest = Guest(plugin("rules"))
    guest.configure(as_rules.device_injector(text))
    return guest


Make = Callable[[str], Guest]
NAMES = ["device-injector", "rules"]
BOTH = pytest.mark.parametrize("make", [configured, by_rules], ids=NAMES)
# They keep nothing from one request to the next.
EITHER = pytest.mark.parametrize("guest", [configured(), by_rules()], ids=NAMES)


def inject(guest: Guest, annotations: dict[str, str]) -> nri_pb2.ContainerAdjustment:
    request = nri_pb2.CreateContainerRequest()
    request.CopyFrom(CREATE)
    request.pod.annotations.update(annotations)
    return guest.create(request).adjust


def devices(guest: Guest, text: str, key: str = MAIN) -> list[nri_pb2.LinuxDevice]:
    return list(inject(guest, {key: text}).linux.devices)


def paths(guest: Guest, annotations: dict[str, str]) -> list[str]:
    return [device.path for device in inject(guest, annotations).linux.devices]


@EITHER
def test_without_annotations_nothing_is_adjusted(guest: Guest) -> None:
    assert guest.call("create_container", capture("create_container")) == b""
    assert inject(guest, {MAIN: ""}) == nri_pb2.ContainerAdjustment()
    assert inject(guest, {MAIN: "# nothing yet\n"}) == nri_pb2.ContainerAdjustment()
    assert inject(guest, {MAIN: "[]"}) == nri_pb2.ContainerAdjustment()


@EITHER
def test_upstreams_sample_annotations(guest: Guest) -> None:
    adjust = inject(
        guest,
        {
            MAIN: NULL,
            f"{MOUNTS}/container.main": dedent("""\
                - source: /home
                  destination: /host-home
                  type: bind
                  options:
                  - bind
                  - ro
                """),
        },
    )
    (device,) = adjust.linux.devices
    assert device == nri_pb2.LinuxDevice(path="/dev/nri-null", type="c", major=1, minor=3)
    assert list(adjust.mounts) == [
        nri_pb2.Mount(source="/home", destination="/host-home", type="bind", options=["bind", "ro"])
    ]


@EITHER
def test_every_key_of_a_device(guest: Guest) -> None:
    text = NULL + "  file_mode: 0640\n  uid: 0\n  gid: 44\n"
    assert devices(guest, text) == [
        nri_pb2.LinuxDevice(
            path="/dev/nri-null",
            type="c",
            major=1,
            minor=3,
            file_mode=nri_pb2.OptionalFileMode(value=0o640),
            uid=nri_pb2.OptionalUInt32(value=0),
            gid=nri_pb2.OptionalUInt32(value=44),
        )
    ]


@EITHER
@pytest.mark.parametrize(
    ("text", "mode"), [("0640", 0o640), ("0o640", 0o640), ("416", 0o640), ("0x1a0", 0o640)]
)
def test_file_modes_are_read_as_yaml_does(guest: Guest, text: str, mode: int) -> None:
    (device,) = devices(guest, f"{NULL}  file_mode: {text}\n")
    assert device.file_mode.value == mode


@EITHER
def test_a_fifo_has_no_numbers(guest: Guest) -> None:
    (device,) = devices(guest, "- path: /run/pipe\n  type: p\n")
    assert (device.type, device.major, device.minor) == ("p", 0, 0)


@EITHER
@pytest.mark.parametrize(
    "text",
    [
        "- path: /dev/a\n  type: c\n  major: 1\n  minor: 3\n",
        "  - minor: 3   # the last first\n    major: 1\n\n    type: c\n    path: /dev/a",
        "-\n   path: '/dev/a'\n   type: \"c\"\n   major: 1\n   minor: 3\r\n",
        "- {path: /dev/a, type: c, major: 1, minor: 3}\n",
        '[{"path": "/dev/a", "type": "c", "major": 1, "minor": 3}]',
        "[ {path : /dev/a, # here\n type: c,\n major: 1, minor: 3,\n},\n]\n",
        "# first\n- path:   /dev/a\n  type: c\n  major: 1\n  minor: 3\n# last",
    ],
)
def test_styles_of_the_same_list(guest: Guest, text: str) -> None:
    assert devices(guest, text) == [nri_pb2.LinuxDevice(path="/dev/a", type="c", major=1, minor=3)]


DEVICE_LISTS = st.lists(
    st.fixed_dictionaries(
        {
            "path": st.text("ab-_./: #0", max_size=10).map("/dev/x{}x".format),
            "type": st.sampled_from("bc"),
            "major": st.integers(0, 2**32 - 1),
            "minor": st.integers(0, 255),
        },
        optional={"file_mode": st.integers(0, 0o7777), "uid": st.integers(0, 2**32 - 1)},
    ),
    max_size=4,
)


def as_block(wanted: list[dict[str, object]]) -> str:
    lines = []
    for entry in wanted:
        pairs = [f"{key}: {json.dumps(value)}" for key, value in entry.items()]
        lines += ["- " + pairs[0], *("  " + pair for pair in pairs[1:])]
    return "\n".join(lines)


@EITHER
@given(DEVICE_LISTS)
def test_any_list_in_block_and_in_json_style(guest: Guest, wanted: list[dict[str, object]]) -> None:
    for text in (json.dumps(wanted), json.dumps(wanted, indent=1), as_block(wanted)):
        got = [
            {
                "path": device.path,
                "type": device.type,
                "major": device.major,
                "minor": device.minor,
                **({"file_mode": device.file_mode.value} if device.HasField("file_mode") else {}),
                **({"uid": device.uid.value} if device.HasField("uid") else {}),
            }
            for device in devices(guest, text)
        ]
        assert got == wanted


@EITHER
@given(st.text("- {}[]:,#'\"\n\t path: /d type c major 1 minor 3 options &", max_size=80))
def test_any_text_is_understood_or_refused_with_its_place(guest: Guest, text: str) -> None:
    for key in (MAIN, MOUNTS):
        try:
            inject(guest, {key: text})
        except GuestError as error:
            refused = str(error)
        else:
            continue
        assert refused.startswith(f"annotation {key}, line ")


@EITHER
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/dev/null", "line 1: a list is wanted: a dash before each entry"),
        ("path: /dev/null", "line 1: a list is wanted: a dash before each entry"),
        ("- /dev/null", "line 1: a key and a colon are wanted, not /dev/null"),
        ("\n- type: c", "line 2: path is missing"),
        ("- path: /dev/a", "line 1: type is missing"),
        ("- path: /dev/a\n  type: c\n  minor: 1", "line 1: major is missing"),
        ("- path: /dev/a\n  type: c\n  major: 1", "line 1: minor is missing"),
        (NULL + "- path: dev/a\n  type: p", "line 5: path is dev/a, not an absolute path"),
        ("- path: /a\n  type: char", "line 2: type is char, not c (character), b (block), u or p"),
        (NULL + "  uid: root", "line 5: uid is root, not a number from 0 to 4294967295"),
        (NULL + "  gid: '5'", "line 5: gid is 5 in quotes, not a number from 0 to 4294967295"),
        (NULL + "  uid: -1", "line 5: uid is -1, not a number from 0 to 4294967295"),
        (NULL + "  file_mode: 0888", "line 5: file_mode is 0888, not a number from 0 to 4095"),
        (NULL + "  file_mode: 010000", "line 5: file_mode is 010000, not a number from 0 to 4095"),
        (NULL + "  mode: 1", "line 5: unknown key mode; known are path, type, major, minor,"),
        (NULL + "  path: /b", "line 5: path is given twice"),
        (NULL + " uid: 1", "line 5: the indentation fits no entry above"),
        (NULL + "   uid: 1", "line 5: the indentation fits no entry above"),
        ("  - path: /a\n    type: p\n- path: /b", "line 3: the indentation fits no list above"),
        (NULL + "  uid:\n", "line 5: a value is missing for uid"),
        (NULL + "  uid:\n  gid: 1", "line 5: a value is missing for uid"),
        (NULL + "  uid: [1]", "line 5: uid wants one value, not a list"),
        (NULL + "\tuid: 1", "line 5: a tab; YAML indents with blanks"),
        ("- path: '/dev/a", "line 1: the quote is not closed"),
        ('- path: "/dev/\\x"', "line 1: escapes (\\) are not understood; use '...' instead"),
        ("- path: &a /dev/a", "line 1: YAML's & is not understood here"),
        ("- path: |\n    /dev/a", "line 1: YAML's | is not understood here"),
        ("- path: /dev: a", "line 1: the line goes on where it should end"),
        ("- path: '/dev/a'b", "line 1: text follows the closing quote"),
        ("[{path: /dev/a", "line 1: a comma or } is wanted"),
        ("[{path: /dev/a, type: p}", "line 1: a comma or ] is wanted"),
        ("[{path: /dev/a, type: p}] x", "line 1: text follows the list"),
        ("[/dev/a]", "line 1: an entry {key: value, ...} is wanted"),
        ("[{path: [[a]]}]", "line 1: YAML's [ is not understood here"),
    ],
)
def test_wrong_annotations_fail_the_container(guest: Guest, text: str, says: str) -> None:
    with pytest.raises(GuestError) as caught:
        devices(guest, text)
    assert str(caught.value).startswith(f"annotation {MAIN}, {says}")
    assert devices(guest, NULL)  # and the next one is served


@EITHER
def test_the_most_specific_annotation_counts(guest: Guest) -> None:
    named = {
        key: f"- {{path: /dev/{number}, type: p}}"
        for number, key in enumerate(
            [
                f"{DEVICES}/container.main",
                f"{OLD_DEVICES}/container.main",
                f"{DEVICES}/pod",
                f"{OLD_DEVICES}/pod",
                DEVICES,
                OLD_DEVICES,
            ]
        )
    }
    other = {f"{DEVICES}/container.other": "broken"}
    for number, key in enumerate(list(named)):
        assert paths(guest, named | other) == [f"/dev/{number}"]
        del named[key]
    assert paths(guest, other) == []


@EITHER
def test_mounts_in_both_styles(guest: Guest) -> None:
    text = dedent("""\
        - source: tmpfs
          destination: /scratch
          type: tmpfs
          options: [nosuid, "size=64k"]
        - destination: /data
          options:
              - rbind

              - 'rw'   # as the host
          type: bind
          source: /srv/data
        - {source: none, destination: /x, type: tmpfs, options: []}
        """)
    got = inject(guest, {OLD_MOUNTS: text}).mounts
    assert [(mount.destination, list(mount.options)) for mount in got] == [
        ("/scratch", ["nosuid", "size=64k"]),
        ("/data", ["rbind", "rw"]),
        ("/x", []),
    ]


@EITHER
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- source: /a\n  type: bind", "line 1: destination is missing"),
        ("- {source: /a, destination: b, type: bind}", "line 1: destination is b, not an absolute"),
        ("- options: ro", "line 1: options wants a list"),
        ("- options:\n    - - ro", "line 2: YAML's - is not understood here"),
        ("- options:\n  - ro\n    rw", "line 3: the indentation fits no entry above"),
        ("- options:\n   - a\n  - b", "line 3: the indentation fits no list above"),
    ],
)
def test_wrong_mounts_fail_the_container(guest: Guest, text: str, says: str) -> None:
    with pytest.raises(GuestError) as caught:
        inject(guest, {MOUNTS: text})
    assert str(caught.value).startswith(f"annotation {MOUNTS}, {says}")


@BOTH
def test_what_was_injected_and_what_was_refused_is_logged(make: Make) -> None:
    guest = make("")
    devices(guest, NULL)
    with pytest.raises(GuestError):
        devices(guest, "x")
    assert guest.lines[0] == "pod-0/main: device /dev/nri-null (c 1:3)"
    assert guest.lines[1].startswith(f"pod-0/main: annotation {MAIN}, line 1")


# ---- CDI devices ----

CDI = "cdi-devices.noderesource.dev"
COUNTERFEIT = ("vendor.com", "vendor.com/class", "/class=a", "vendor.com/=a", "vendor.com/class=")


def cdi(guest: Guest, text: str, key: str = f"{CDI}/container.main") -> list[str]:
    return [device.name for device in inject(guest, {key: text}).CDI_devices]


@EITHER
@pytest.mark.parametrize(
    "text",
    [
        "- vendor0.com/device=dev0\n- vendor1.com/device=a:b\n",
        "  - 'vendor0.com/device=dev0'   # first\n\n  -  vendor1.com/device=a:b",
        '["vendor0.com/device=dev0", vendor1.com/device=a:b]',
    ],
)
def test_cdi_devices_in_each_style(guest: Guest, text: str) -> None:
    for key in (f"{CDI}/container.main", f"{CDI}/pod", "cdi-devices.nri.io"):
        assert cdi(guest, text, key) == ["vendor0.com/device=dev0", "vendor1.com/device=a:b"]
    assert cdi(guest, text, f"{CDI}/container.other") == []


@EITHER
@pytest.mark.parametrize(
    ("text", "says"),
    [
        *((f"- a.b/c=d\n- {name}", f"line 2: {name} is no CDI device") for name in COUNTERFEIT),
        ("a.b/c=d", "line 1: a list is wanted: a dash before each entry"),
        ("- a.b/c=d\n - a.b/c=e", "line 2: the indentation fits no list above"),
        ("- a.b/c=d\na.b/c=e", "line 2: the indentation fits no list above"),
        ("-\n- a.b/c=d", "line 1: a value is missing"),
        ("- - a.b/c=d", "line 1: YAML's - is not understood here"),
        ("- {name: a.b/c=d}", "line 1: YAML's { is not understood here"),
        ("- name: a.b/c=d", "line 1: the line goes on where it should end"),
        ("[a.b/c=d", "line 1: a comma or ] is wanted"),
        ("[a.b/c=d] x", "line 1: text follows the list"),
    ],
)
def test_wrong_cdi_devices_fail_the_container(guest: Guest, text: str, says: str) -> None:
    with pytest.raises(GuestError) as caught:
        cdi(guest, text)
    assert str(caught.value).startswith(f"annotation {CDI}/container.main, {says}")
    assert cdi(guest, "- a.b/c=d") == ["a.b/c=d"]


@BOTH
def test_rules_for_cdi_devices(make: Make) -> None:
    guest = make("cdi-device hailo.example/*=0\ndevice c 89:* /dev/i2c-*")
    assert cdi(guest, "[hailo.example/npu=0]") == ["hailo.example/npu=0"]
    for name in ("hailo.example/npu=all", "other.example/npu=0", "hailo.example.evil/npu=0x"):
        with pytest.raises(GuestError, match="no rule of the configuration allows CDI device"):
            cdi(guest, f"[hailo.example/npu=0, {name}]")


# ---- network devices ----

NET = "network-devices.noderesource.dev"


def net(guest: Guest, text: str, key: str = NET) -> dict[str, str]:
    found = inject(guest, {key: text}).linux.net_devices
    return {host: device.name for host, device in found.items()}


@pytest.mark.parametrize(
    "text",
    [
        "- hostIf: can0\n  name: vcan\n- {hostIf: ens2.100, Name: lan}",  # as upstream's sample
        '[{"hostIf": "can0", "name": "vcan"}, {"hostIf": "ens2.100", "name": "lan"}]',
    ],
)
def test_network_devices_in_both_styles(text: str) -> None:
    for key in (f"{NET}/container.main", f"{NET}/pod", "network-devices.nri.io"):
        assert net(configured(), text, key) == {"can0": "vcan", "ens2.100": "lan"}
    both = inject(configured(), {NET: text, DEVICES: NULL}).linux
    assert [device.path for device in both.devices] == ["/dev/nri-null"]
    assert len(both.net_devices) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- hostIf: can0", "line 1: name is missing"),
        ("- name: can0", "line 1: hostIf is missing"),
        ("- hostIf: can0\n  name: a/b", "line 2: name is a/b, not the name of an interface"),
        ("- hostIf: ..\n  name: a", "line 1: hostIf is .., not the name of an interface"),
        (
            "- hostIf: can0\n  name: abcdefghijklmnop",
            "line 2: name is abcdefghijklmnop, not the na",
        ),
        ("- hostIf: can0\n  name: ''", "line 2: name is , not the name of an interface"),
        ("- hostIf: can0\n  name: a\n  mtu: 1", "line 3: unknown key mtu; known are hostIf, name"),
        ("- hostIf: [a]\n  name: a", "line 1: hostIf wants one value, not a list"),
        ("- hostIf: a\n  name: a\n  Name: b", "line 3: name is given twice"),
    ],
)
def test_wrong_network_devices_fail_the_container(text: str, says: str) -> None:
    guest = configured()
    with pytest.raises(GuestError) as caught:
        net(guest, text)
    assert str(caught.value).startswith(f"annotation {NET}, {says}")


def test_rules_for_network_devices() -> None:
    guest = configured("net-device can*")
    assert net(guest, "[{hostIf: can0, name: eth0}]") == {"can0": "eth0"}
    with pytest.raises(GuestError, match="no rule of the configuration allows network device eth0"):
        net(guest, "[{hostIf: eth0, name: can0}]")


def test_a_configuration_of_before_allows_neither() -> None:
    """It names devices and mounts only; a new version of the plugin must open nothing."""
    for text in ("device c 89:* /dev/i2c-*", "mount /srv/*"):
        guest = configured(text)
        with pytest.raises(GuestError, match="no rule of the configuration allows CDI device"):
            cdi(guest, "[a.b/c=d]")
        with pytest.raises(GuestError, match="no rule of the configuration allows network device"):
            net(guest, "[{hostIf: can0, name: can0}]")


# ---- configuration ----

I2C = "- {path: /dev/i2c-1, type: c, major: 89, minor: 1}"


@BOTH
@pytest.mark.parametrize(
    ("rules", "text", "allowed"),
    [
        ("device c 89:* /dev/i2c-*", I2C, True),
        ("device c 89:1 /dev/i2c-?", I2C, True),
        ("device c 8?:* *", I2C, True),
        ("mount /srv/*", I2C, True),  # no rule for devices
        ("device b 89:* /dev/i2c-*", I2C, False),
        ("device c 90:* /dev/i2c-*", I2C, False),
        ("device c 89:2 /dev/i2c-*", I2C, False),
        ("device c 89:* /dev/spidev*", I2C, False),
        # The name of something harmless, the numbers of a disk.
        ("device c 89:* /dev/i2c-*", "- {path: /dev/i2c-1, type: b, major: 8, minor: 0}", False),
    ],
)
def test_rules_for_devices(make: Make, rules: str, text: str, allowed: bool) -> None:
    guest = make(rules)
    if allowed:
        assert len(devices(guest, text)) == 1
    else:
        with pytest.raises(GuestError, match="no rule of the configuration allows device"):
            devices(guest, text)


@BOTH
@pytest.mark.parametrize(
    ("source", "allowed"),
    [("/srv/a/b", True), ("/etc", False), ("/srv/../etc", False), ("/srv/a/..", False)],
)
def test_rules_for_mounts(make: Make, source: str, allowed: bool) -> None:
    guest = make("mount /srv/*")
    text = {MOUNTS: f"- {{source: {source}, destination: /d, type: bind}}"}
    if allowed:
        assert len(inject(guest, text).mounts) == 1
    else:
        with pytest.raises(GuestError, match="no rule of the configuration allows mounting"):
            inject(guest, text)


@BOTH
def test_the_sample_configuration(make: Make) -> None:
    guest = make((PLUGINS / "device-injector" / "device-injector.conf").read_text())
    assert len(devices(guest, I2C)) == 1
    with pytest.raises(GuestError):
        devices(guest, NULL)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (
            "allow /dev/null",
            "line 1: a rule begins with device, mount, cdi-device or net-device, not a",
        ),
        ("\n# x\ndevice /dev/null", "line 3: wanted: device TYPE MAJOR:MINOR PATH"),
        ("device c 1 /dev/null", "line 1: wanted: device TYPE MAJOR:MINOR PATH"),
        ("device c 1:3 /dev/null more", "line 1: wanted: device TYPE MAJOR:MINOR PATH"),
        ("mount", "line 1: wanted: device TYPE MAJOR:MINOR PATH"),
        ("cdi-device", "line 1: wanted: device TYPE MAJOR:MINOR PATH"),
        ("net-device a b", "line 1: wanted: device TYPE MAJOR:MINOR PATH"),
        ("mount /a\n" * 65, "line 65: more than 64 rules"),
    ],
)
def test_wrong_rules_fail_configure(rules: str, says: str) -> None:
    with pytest.raises(GuestError) as caught:
        configured(rules)
    assert str(caught.value).startswith(says)
