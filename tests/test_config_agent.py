"""What agent.toml may say and what is said about each kind of mistake."""

from pathlib import Path

import pytest

from edge_agent.config import (
    AgentConfig,
    Broker,
    UpdatesConfig,
    load_agent_config,
    parse_agent_config,
)
from edge_agent.errors import ConfigError

FILE = Path("/etc/edge-agent/agent.toml")


def parse(text: str, hostname: str = "board") -> AgentConfig:
    return parse_agent_config(FILE, text, hostname=hostname)


def problems(text: str, hostname: str = "board") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, hostname)
    return str(caught.value).split("\n")


def problem(text: str) -> str:
    """The only problem of `text`."""
    (only,) = problems(text)
    return only


def test_empty_file_gives_the_defaults() -> None:
    assert parse("") == AgentConfig(node="board")


def test_every_kind_of_value_is_read() -> None:
    config = parse(
        """
        node = "greenhouse-7"
        plugin_dir = "plugins"
        control_socket = "/tmp/control.sock"
        engine = "wasmi"
        [labels]
        "example.org/board" = "rpi4"
        [nri]
        sockets = ["/tmp/nri.sock", "other.sock"]
        reconnect_min = "1.5s"
        [limits]
        memory = 65536
        stack = "64 KiB"
        deadline = "250ms"
        [log]
        level = "debug"
        """
    )
    assert config.node == "greenhouse-7"
    assert config.plugin_dir == Path("/etc/edge-agent/plugins")  # beside the file
    assert config.labels == {"example.org/board": "rpi4"}
    assert config.nri.sockets == (Path("/tmp/nri.sock"), Path("/etc/edge-agent/other.sock"))
    assert config.nri.reconnect_min_s == 1.5
    assert (config.limits.memory_bytes, config.limits.stack_bytes) == (65536, 65536)
    assert config.limits.deadline_ms == 250
    assert (config.log.level, config.engine) == ("debug", "wasmi")


def test_an_engine_of_earlier_versions_is_taken_though_it_is_not_offered() -> None:
    assert parse('engine = "wasm3"').engine == "wasm3"


@pytest.mark.parametrize(
    ("hostname", "node"),
    [
        ("RaspberryPi", "raspberrypi"),
        ("my board.local", "my-board.local"),
        ("-_x", "x"),
        ("a" * 80, "a" * 63),
        ("a" * 62 + "-b", "a" * 62),
    ],
)
def test_node_is_made_of_the_hostname(hostname: str, node: str) -> None:
    assert parse("", hostname).node == node


def test_hostname_without_a_usable_letter_asks_for_a_node() -> None:
    (only,) = problems("", hostname="ÄÖ")
    assert "node: must be set" in only


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('engin = "auto"', "agent.toml:1: engin: unknown key; did you mean engine?"),
        ("\n[lmits]\nmemory = 1", "agent.toml:2: lmits: unknown key; did you mean limits?"),
        ("[limits]\nzzz = 1", "agent.toml:2: limits.zzz: unknown key; known here: deadline,"),
        ("[limits]\nmemory_bytes = 1", "did you mean memory?"),
        ('[limits]\nmemory = "32MB"', 'a string such as "64KiB" or "32MiB", not "32MB"'),
        ('[limits]\nmemory = "1GiB"\nstack = "1GiB"', "between 32KiB and 4MiB, not 1GiB"),
        ("[limits]\nmemory = true", "limits.memory: must be bytes as a number"),
        ("[limits]\nmemory = -1", "between 64KiB and 1GiB"),
        ("[limits]\ndeadline = 5", 'a string with its unit (ms, s, m, h) such as "500ms"'),
        ('[limits]\ndeadline = "0ms"', "between 1ms and 1m, not 0ms"),
        ("[limits]\nlog_lines_per_s = 1.5", "must be a whole number, not 1.5"),
        ("[limits]\nfuel = -1", "limits.fuel: must be between 0 and 1000000000000000, not -1"),
        ("[limits]\nfuel = 9_999_999_999_999_999", "between 0 and 1000000000000000"),
        ('[limits]\nfuel = "1M"', 'must be a whole number, not "1M"'),
        ("limits = { memory = 1 }", "agent.toml:1: limits.memory"),
        ("limits.memory = 1", "agent.toml:1: limits.memory"),
        ("limits = 3", "limits: must be a table, [limits], not 3"),
        ('engine = "wasmtimes"', '"wasmi", not "wasmtimes"; did you mean "wasmtime"?'),
        ("engine = []", 'must be one of "auto", "wasmtime", "wasmer", "wasmi", not a list'),
        ('engine = "wasm"', 'must be one of "auto", "wasmtime", "wasmer", "wasmi", not "wasm"'),
        ('node = "Upper"', "node: must be 1 to 63 of a-z"),
        ('fleet = "../x"', "fleet: must be 1 to 63 of a-z"),
        ('plugin_dir = ""', "plugin_dir: must be a path"),
        ('plugin_dir = "a\\u0000b"', 'plugin_dir: must be a path, not "a\\x00b"'),
        (f'control_socket = "/{"x" * 107}"', "longer than the 107 bytes of a socket's path"),
        ("[nri]\nsockets = []", "nri.sockets: must be a list of 1 to 100 entries"),
        ('[nri]\nsockets = "/a"', 'must be a list of 1 to 100 entries, not "/a"'),
        ("[nri]\nsockets = [1]", "nri.sockets: must be a path, not 1"),
        ('[nri]\nsockets = ["/a", "/a"]', "names a socket twice"),
        ('[nri]\nreconnect_min = "1m"', "reconnect_max: must not be shorter than reconnect_min"),
        ('[labels]\n"a b" = "x"', 'labels."a b": is not a name here'),
        ("[labels]\na = 1", "labels.a: must be a string"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_right(text: str, said: str) -> None:
    assert said in problem(text)


def test_all_problems_of_a_file_are_reported_in_its_order() -> None:
    found = problems('[log]\nlevel = "loud"\nfromat = "json"\n[limits]\nmemory = 1\nstack = 1\n')
    assert [line.split(": ")[1] for line in found] == [
        "log.level",
        "log.fromat",
        "limits.memory",
        "limits.stack",
    ]
    assert [line.split(":")[1] for line in found] == ["2", "3", "5", "6"]


def test_a_flood_of_problems_is_cut_and_counted() -> None:
    found = problems("\n".join(f"key{number} = 1" for number in range(5000)))
    assert len(found) == 51
    assert found[-1] == f"{FILE}: and 4950 more"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\n[b\n", ":2: not valid TOML: Expected ']'"),
        ("a = 1\na = 2\n", ":2: not valid TOML: Cannot overwrite a value"),
        ("a =", ":1: not valid TOML: Invalid value"),
        ("a = " + "[" * 100_000, "not valid TOML: a value is far too long or deep"),
        ("a = " + "1" * 5_000, "not valid TOML: a value is far too long or deep"),
        ("#" * 300_000, "larger than 256KiB"),
    ],
)
def test_what_is_not_toml_is_refused_with_its_line(text: str, said: str) -> None:
    assert said in problem(text)


def test_a_message_never_carries_control_characters() -> None:
    found = problems('"\\u001b[2J\\n" = 1\nengine = "\\u001b]0;x\\u0007"\n')
    assert len(found) == 2
    assert all(line.isprintable() for line in found)


@pytest.mark.parametrize(
    ("text", "size"), [("", 16 << 20), ("queue = 0", 0), ('queue = "2MiB"', 2 << 20)]
)
def test_the_queue_on_disk_has_a_size_or_is_off(text: str, size: int) -> None:
    mqtt = parse(f'[mqtt]\nurl = "mqtt://b"\n{text}').mqtt
    assert mqtt is not None
    assert mqtt.queue_bytes == size


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("mqtt://broker", Broker("broker", 1883, False)),
        ("mqtts://broker", Broker("broker", 8883, True)),
        ("mqtt://10.0.0.1:2000/", Broker("10.0.0.1", 2000, False)),
        ("mqtts://[fe80::1]:1", Broker("fe80::1", 1, True)),
    ],
)
def test_broker_url_is_taken_apart(url: str, broker: Broker) -> None:
    mqtt = parse(f'[mqtt]\nurl = "{url}"').mqtt
    assert mqtt is not None
    assert mqtt.brokers == (broker,)
    assert mqtt.client_id == "board"
    assert parse(f'[mqtt]\nurl = "{broker.url}"').mqtt == mqtt


def test_several_brokers_are_tried_in_turn() -> None:
    mqtt = parse('[mqtt]\nurls = ["mqtt://a", "mqtts://b"]\nca_file = "ca.pem"').mqtt
    assert mqtt is not None
    assert [broker.url for broker in mqtt.brokers] == ["mqtt://a:1883", "mqtts://b:8883"]
    assert mqtt.ca_file == Path("/etc/edge-agent/ca.pem")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('url = "mqtt://b"\nqueue = "1MiB"', "mqtt.queue: must be 0 or at least 2MiB"),
        ('url = "mqtt://b"\nqueue = -1', "mqtt.queue: must be between 0B and 4GiB"),
        ("", 'mqtt.url: must name the broker: "mqtt://host:1883"'),
        ('url = "broker:1883"', 'is "mqtt://broker:1883" meant?'),
        ('url = "\U000e0041"', 'is "mqtt://\\U000e0041" meant?'),
        ('url = "mqtt://host:99999"', "mqtt.url: must be"),
        ('url = "mqtt://host:0"', "mqtt.url: must be"),
        ('url = "wss://host/mqtt"', "MQTT over WebSocket is not supported"),
        ("url = 5", "mqtt.url: must be a string"),
        ("urls = []", "mqtt.urls: must name the broker"),
        ("urls = [5]", "mqtt.urls: must be a list; 5 in it must be a string"),
        ('url = "mqtt://a"\nurls = ["mqtt://b"]', "keep one of the two"),
        ('url = "mqtt://a"\npassword = "secret"', "unknown key; did you mean password_file?"),
        ('url = "mqtt://a"\npassword_file = "p"', "mqtt.password_file: needs username"),
        ('url = "mqtt://a"\nca_file = "p"', 'no broker\'s URL starts with "mqtts://"'),
        ('url = "mqtts://a"\ncert_file = "p"', "mqtt.cert_file: needs key_file"),
        ('url = "mqtts://a"\nkey_file = "p"', "mqtt.key_file: needs cert_file"),
        ('url = "mqtt://a"\nencoding = "jason"', 'did you mean "json"?'),
        ('url = "mqtt://a"\nkeepalive = "1s"', "between 5s and 65535s, not 1s"),
    ],
)
def test_a_mistake_in_mqtt_is_named(text: str, said: str) -> None:
    assert any(said in line for line in problems(f"[mqtt]\n{text}"))


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    said = problem('[mqtt]\nurl = "mqtt://me:hunter2@host"')
    assert "username and password_file" in said
    assert "hunter2" not in said


def test_updates_are_off_unless_their_table_is_there() -> None:
    assert parse("").updates is None
    assert parse("[updates]").updates == UpdatesConfig()


def test_settings_of_updates_are_read() -> None:
    updates = parse(
        """
        [updates]
        trust_dir = "trust"
        threshold = 2
        sources = ["oci", "mqtt"]
        max_plugin = "1MiB"
        probation = "5m"
        """
    ).updates
    assert updates is not None
    assert updates.trust_dir == Path("/etc/edge-agent/trust")
    assert (updates.threshold, updates.sources) == (2, ("oci", "mqtt"))
    assert (updates.max_plugin_bytes, updates.probation_s) == (1 << 20, 300.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("threshold = 0", "between 1 and 16, not 0"),
        ('sources = ["ftp"]', 'updates.sources: "ftp" is unknown; known are "mqtt"'),
        ('sources = ["mqqt"]', 'did you mean "mqtt"?'),
        ("sources = [[1]]", "updates.sources: a list is unknown"),
        ('sources = ["mqtt", "mqtt"]', "names a word twice"),
        ("sources = []", "must be a list of 1 to 100 entries"),
        ('max_plugin = "1GiB"', "between 1KiB and 64MiB"),
    ],
)
def test_a_mistake_in_updates_is_named(text: str, said: str) -> None:
    assert said in problem(f"[updates]\n{text}")


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agent\.toml: cannot be read: No such file"):
        load_agent_config(tmp_path / "agent.toml")


def test_a_file_that_is_not_text_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_bytes(b"# ok\nnode = \xff\n")
    with pytest.raises(ConfigError, match=r"agent\.toml:2: not UTF-8"):
        load_agent_config(file)


def test_recording_for_the_fleet_is_what_somebody_wrote_down() -> None:
    plain = parse("").requests
    assert "record" not in plain.allow
    assert plain.allow == ("sync", "restart", "logs", "diagnose", "release")
    assert plain.record_hides[0] == "env"
    text = '[requests]\nallow = ["record"]\nrecord_hides = ["labels", "env:TOKEN*"]'
    assert parse(text).requests.allow == ("record",)
    assert parse(text).requests.record_hides == ("labels", "env:TOKEN*")
    assert parse("[requests]\nrecord_hides = []").requests.record_hides == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('record_hides = "env"', "requests.record_hides: must be a list"),
        ('record_hides = ["enf"]', "must be env, annotations, labels, args, or one of them with"),
        ('record_hides = ["env:A,labels"]', "requests.record_hides: must be a list"),
        (f"record_hides = {['env'] * 17}", "requests.record_hides: must have at most 16 entries"),
        ('unsigned = ["sync", "record"]', "requests.unsigned: cannot name record"),
    ],
)
def test_a_mistake_in_what_is_hidden_is_named(text: str, said: str) -> None:
    assert said in problem(f"[requests]\n{text}")
