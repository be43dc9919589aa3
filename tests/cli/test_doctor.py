"""`doctor`'s rules, by facts, and the command itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.cli.checks import Finding, judge
from edge_agent.cli.doctor import render
from edge_agent.cli.observe import Facts, FolderFacts, SocketFacts, observe
from edge_agent.cli.runtimes import NRI_SOCKET, Runtime
from edge_agent.config import AgentConfig, Broker, MqttConfig, UpdatesConfig
from edge_agent.config.units import Validity
from edge_agent.fleet_protocol.keys import SigningKey, public_pem
from edge_agent.node.exposure import Exposed

CONTAINERD = Runtime("containerd", Path("/etc/containerd/config.toml"), "switch it on")
DOCKER = replace(CONTAINERD, name="Docker Engine", config=Path("/etc/docker/daemon.json"))
LISTENING = SocketFacts(NRI_SOCKET, True, is_socket=True, listening=True, permitted=True)
FOLDER = FolderFacts(Path("/p"), True, True, True, 1 << 30)
MQTT = MqttConfig((Broker("b", 1883, False),), "n")

WELL = Facts(
    euid=0,
    now=1_900_000_000.0,
    config_path=Path("/etc/edge-agent/agent.toml"),
    config=AgentConfig(node="n"),
    config_problem=None,
    engine="wasmtime 50.0.1, as configured",
    engine_problem=None,
    engine_instead="",
    runtimes=(CONTAINERD,),
    sockets=(LISTENING,),
    plugin_dir=FOLDER,
    state_dir=FOLDER,
    plugins=("10-guard",),
    plugin_problems={},
    brokers={},
    trusted="",
    trust_problem=None,
    status={
        "agent": "0.1.0",
        "runtimes": [
            {
                "name": "containerd",
                "version": "2.1.9",
                "nri_version": "0.8",
                "socket": str(NRI_SOCKET),
                "state": "connected",
            },
        ],
        "plugins": [{"name": "guard", "index": "10", "status": "running"}],
    },
    status_problem=None,
)


NO_AGENT = replace(WELL, status=None)  # so files and sockets are all there is to go by


def troubles(facts: Facts) -> list[Finding]:
    """All that is not well; where no agent runs, that apart."""
    found = [finding for finding in judge(facts) if finding.level != "ok"]
    return [each for each in found if facts.status or each.subject != "agent"]


def told(**changes: object) -> Facts:
    """A running agent whose answer differs from that of WELL."""
    assert WELL.status is not None
    return replace(WELL, status={**WELL.status, **changes})


def test_a_machine_that_is_well_has_only_ok_lines() -> None:
    assert troubles(WELL) == []
    texts = [finding.text for finding in judge(WELL)]
    assert f"the agent serves containerd 2.1.9, NRI 0.8 on {NRI_SOCKET}" in texts
    assert "offers NRI, and the agent is connected" in texts
    assert "10-guard: running" in texts


def test_without_an_agent_the_files_are_told_and_what_is_not_known() -> None:
    assert troubles(NO_AGENT) == []
    texts = [finding.text for finding in judge(NO_AGENT)]
    assert f"a runtime listens on {NRI_SOCKET}" in texts
    assert f"offers NRI on {NRI_SOCKET}" in texts
    assert "10-guard: the files are in order; the agent does not run" in texts
    assert "not running: what it would find at the runtimes and the broker is not known" in texts


def _link(state: str, **mqtt: object) -> Facts:
    """A running agent that says this of its broker."""
    said = {"state": state, "broker": "mqtt://b", "protocol": "5", **mqtt}
    return replace(told(mqtt=said), config=replace(WELL.config, mqtt=MQTT))


def _waiting(**mqtt: object) -> Facts:
    """A running agent that says this of its results."""
    return _link("connected", **mqtt)


def _plugin(status: str, **entry: object) -> Facts:
    """A running agent that says this of its plugin."""
    plugin = {"name": "guard", "index": "10", "status": status, "runtime": "/s"}
    return told(plugins=[{**plugin, **entry}])


def _at(state: str, **entry: object) -> Facts:
    """A running agent that says this of its runtime, and somebody listens there."""
    runtime = {"socket": str(NRI_SOCKET), "state": state}
    return told(runtimes=[{**runtime, **entry}])


@pytest.mark.parametrize(
    ("facts", "level", "said", "todo"),
    [
        (replace(WELL, euid=1000), "warn", "running as user 1000", "as root"),
        (replace(WELL, now=0.0), "fail", "it is 1970-01-01 00:00 UTC here", "NTP"),
        (replace(WELL, engine_problem="none works"), "fail", "none works", 'engine = "auto"'),
        (replace(WELL, engine_instead="write wasmi"), "warn", "as configured", "write wasmi"),
        (
            replace(WELL, plugin_dir=FolderFacts(Path("/p"), False, False, True, 1 << 30)),
            "fail",
            "/p is not there",
            "mkdir -p /p",
        ),
        (
            replace(WELL, plugin_dir=FolderFacts(Path("/p"), True, False, False, 1 << 30)),
            "fail",
            "/p cannot be read",
            "right to read",
        ),
        (
            replace(WELL, state_dir=FolderFacts(Path("/s"), True, True, False, 1 << 30)),
            "fail",
            "/s cannot be written",
            "right to write",
        ),
        (
            replace(WELL, state_dir=FolderFacts(Path("/s"), True, True, True, 1 << 20)),
            "fail",
            "/s: only 1 MiB free",
            "free some",
        ),
        (
            replace(WELL, state_dir=FolderFacts(Path("/s"), True, True, True, 100 << 20)),
            "warn",
            "/s: only 100 MiB free",
            "free some",
        ),
        (replace(NO_AGENT, plugins=()), "warn", "/p has no plugin", "NN-name.wasm"),
        (
            replace(WELL, plugin_problems={"20-bad": "/p/20-bad.wasm: truncated"}),
            "fail",
            "/p/20-bad.wasm: truncated",
            "edge-agent plugin check /p/20-bad.wasm",
        ),
        (
            replace(
                NO_AGENT, config=replace(WELL.config, mqtt=MQTT), brokers={"mqtt://b": "refused"}
            ),
            "fail",
            "mqtt://b: refused",
            "check network",
        ),
        (
            replace(NO_AGENT, config=replace(WELL.config, mqtt=MQTT), brokers={"mqtt://b": None}),
            "warn",
            "whether it lets this node in is not known",
            "start the agent",
        ),
        (told(mqtt={"state": "connected"}), "warn", "and the agent uses a broker", "restart"),
        (
            replace(WELL, config=replace(WELL.config, mqtt=MQTT)),
            "warn",
            "configured, and the agent uses no broker",
            "restart the agent",
        ),
        (
            _link("waiting", last_error="mqtt://b: Bad user name or password"),
            "fail",
            "not connected (waiting): mqtt://b: Bad user name or password",
            "password_file",
        ),
        (_link("connecting"), "warn", "no connection so far", "look again"),
        (_link("connected", last_error="may not publish"), "warn", "may not publish", "access"),
        (_plugin("backoff", error="it traps"), "fail", "10-guard: backoff at /s: it traps", "run"),
        (
            _plugin("quarantined", error="two crashes"),
            "fail",
            "10-guard: quarantined at /s: two crashes",
            "edge-agent plugin unquarantine 10-guard",
        ),
        (_plugin("failed", error="bad"), "fail", "10-guard: failed at /s: bad", "plugin check"),
        (
            _plugin("starting", refusing=True),
            "fail",
            "10-guard: starting at /s, containers are refused",
            "look again",
        ),
        (_plugin("starting"), "warn", "10-guard: starting at /s", "look again"),
        (_plugin("starting", error="it traps"), "fail", "starting at /s: it traps", "plugin run"),
        (_plugin("of-a-newer-agent"), "warn", "10-guard: of-a-newer-agent at /s", "status"),
        (_plugin("running", running="sha256:0"), "warn", "still another version", "status"),
        (
            replace(WELL, exposed=(Exposed(Path("/p"), "may be written by everybody"),)),
            "fail",
            "/p may be written by everybody",
            "chmod go-w /p",
        ),
        (
            replace(WELL, unrestricted=("10-guard",)),
            "warn",
            "10-guard: may change everything",
            'permissions = ["*"]',
        ),
        (told(plugins=[]), "warn", "10-guard: is in /p, and the agent does not have it", "restart"),
        (told(runtimes=[]), "warn", "the running agent does not look for it", "restart"),
        (_at("waiting", reason="refused"), "warn", "not connected to /var/run/nri", "restart"),
        (_at("present"), "warn", "no plugin is registered there", "status"),
        (
            _waiting(disk_trouble="/s: the disk is full"),
            "warn",
            "in memory only: /s: the disk is full",
            "is lost when the agent ends",
        ),
        (
            _waiting(disk_bytes=0, disk_limit=16 << 20, queued=0, streams_cut=2),
            "warn",
            "its newest results may be lost",
            'durability = "always"',
        ),
        (
            _waiting(disk_bytes=15 << 20, disk_limit=16 << 20, queued=50_000, dropped=7),
            "warn",
            "50000 results wait, 15360 KiB on disk, which is full: 7 were given up",
            "raise `queue`",
        ),
        (
            replace(NO_AGENT, runtimes=(replace(CONTAINERD, switched_on=False),)),
            "warn",
            "NRI is switched off in /etc/containerd/config.toml",
            "switch it on",
        ),
        (
            replace(NO_AGENT, runtimes=(replace(CONTAINERD, socket=None),)),
            "warn",
            "takes no connections",
            "switch it on",
        ),
        (
            replace(NO_AGENT, runtimes=(replace(CONTAINERD, serves=False),)),
            "warn",
            "its CRI is switched off",
            "disabled_plugins",
        ),
        (
            replace(NO_AGENT, runtimes=(replace(CONTAINERD, problem="line 3"),)),
            "warn",
            "/etc/containerd/config.toml: line 3",
            "switch it on",
        ),
        (
            replace(NO_AGENT, runtimes=(replace(CONTAINERD, socket=Path("/x")),)),
            "warn",
            "offers NRI on /x, unused",
            'add "/x" to [nri] sockets',
        ),
    ],
)
def test_a_trouble_is_told_with_what_to_do(facts: Facts, level: str, said: str, todo: str) -> None:
    trouble, *_ = troubles(facts)
    assert trouble.level == level
    assert said in trouble.text
    assert todo in trouble.todo


@pytest.mark.parametrize(
    ("seen", "level", "said"),
    [
        (SocketFacts(NRI_SOCKET, exists=False), "ok", "is not there; the agent waits"),
        (SocketFacts(NRI_SOCKET, exists=True, permitted=True), "fail", "is not a socket"),
        (SocketFacts(NRI_SOCKET, True, is_socket=True), "fail", "may not be opened"),
        (SocketFacts(NRI_SOCKET, True, True, False, True), "warn", "nobody is seen to listen"),
        (replace(LISTENING, by_name=True), "warn", "or on another file of that name"),
        (replace(LISTENING, listening=False, elsewhere=True), "warn", "has another file there"),
        (LISTENING, "ok", "a runtime listens"),
    ],
)
def test_each_state_of_a_socket_is_told(seen: SocketFacts, level: str, said: str) -> None:
    finding = next(
        each for each in judge(replace(NO_AGENT, sockets=(seen,))) if each.subject == "socket"
    )
    assert (finding.level, said in finding.text) == (level, True)


BY_NAME = replace(LISTENING, by_name=True)  # as on a kernel without unix_diag


def test_where_the_kernel_does_not_tell_who_listens_the_agent_is_to_be_started() -> None:
    (trouble,) = troubles(replace(NO_AGENT, sockets=(BY_NAME,)))
    assert "start the agent" in trouble.todo


@pytest.mark.parametrize(
    ("state", "plugins", "said", "todo"),
    [
        ("present", [], "or on another file of that name", "put one there"),
        (
            "present",
            [{"name": "guard", "index": "10", "status": "running"}],
            "no plugin is registered there",
            "edge-agent status",
        ),
        ("waiting", [], f"not connected to {NRI_SOCKET}: refused", "restart the runtime"),
    ],
)
def test_where_the_kernel_does_not_tell_who_listens_a_running_agent_is_not_to_be_started(
    state: str, plugins: list[object], said: str, todo: str
) -> None:
    entry = {"socket": str(NRI_SOCKET), "state": state, "reason": "refused"}
    facts = replace(told(runtimes=[entry], plugins=plugins), sockets=(BY_NAME,))
    (trouble,) = [each for each in judge(facts) if each.subject == "socket"]
    assert trouble.level == "warn"
    assert said in trouble.text
    assert todo in trouble.todo


def test_one_socket_in_use_is_enough_for_the_other_to_be_absent() -> None:
    absent = SocketFacts(Path("/other.sock"), exists=False)
    assert troubles(replace(NO_AGENT, sockets=(LISTENING, absent))) == []


def test_no_runtime_at_all_tells_how_each_is_switched_on() -> None:
    facts = replace(NO_AGENT, runtimes=(), sockets=(SocketFacts(NRI_SOCKET, exists=False),))
    (trouble,) = troubles(facts)
    assert trouble.level == "fail"
    for word in ("containerd", "enable_nri = true", '"nri-opts": {"enable": true'):
        assert word in trouble.todo


def test_two_runtimes_on_one_socket_are_told_under_either_name() -> None:
    other = replace(DOCKER, socket=Path("/run/nri/nri.sock"))
    (trouble,) = troubles(replace(NO_AGENT, runtimes=(CONTAINERD, other)))
    assert "containerd and Docker Engine both use /run/nri/nri.sock" in trouble.text


def test_a_plugin_that_is_skipped_by_choice_is_well_with_its_reason() -> None:
    facts = _plugin("skipped", reason="not in runtimes")
    assert troubles(facts) == []
    assert "10-guard: skipped at /s: not in runtimes" in [each.text for each in judge(facts)]


def test_an_agent_that_does_not_answer_is_told() -> None:
    facts = replace(NO_AGENT, status_problem="no answer")
    assert [each.text for each in judge(facts) if each.level != "ok"] == ["no answer"]


def test_the_agent_says_which_runtime_is_at_a_socket() -> None:
    (trouble,) = troubles(replace(WELL, runtimes=(CONTAINERD, DOCKER)))
    assert trouble.subject == "Docker Engine"
    assert f"should offer NRI on {NRI_SOCKET}, where containerd is" in trouble.text


def test_a_runtime_that_the_agent_serves_is_well_whatever_its_files_say() -> None:
    odd = replace(CONTAINERD, problem="line 3", unseen=True)
    assert troubles(replace(WELL, runtimes=(odd,))) == []


def test_a_command_line_that_cannot_be_seen_is_told() -> None:
    (trouble,) = troubles(replace(NO_AGENT, runtimes=(replace(CONTAINERD, unseen=True),)))
    assert "with which words containerd was started cannot be seen" in trouble.text


def test_every_line_of_a_broken_configuration_is_a_failure() -> None:
    found = troubles(replace(WELL, config_problem="a.toml:1: x\na.toml:2: y"))
    assert [(finding.level, finding.text) for finding in found] == [
        ("fail", "a.toml:1: x"),
        ("fail", "a.toml:2: y"),
        ("warn", "the agent will not start with it"),
    ]


def test_lines_are_aligned_and_counted() -> None:
    findings = [Finding("ok", "clock", "fine"), Finding("fail", "mqtt", "bad\x1b", "do\nthis")]
    assert render(findings) == (
        "ok    clock  fine\n"
        "fail  mqtt   bad\\x1b\n"
        "             > do\n"
        "             > this\n"
        "\n"
        "1 to set right, 0 to look at"
    )


def test_the_command_looks_at_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "10-broken.wasm").write_bytes(b"\0asm")
    config = tmp_path / "agent.toml"
    config.write_text(
        'plugin_dir = "plugins"\nstate_dir = "state"\ncontrol_socket = "control.sock"\n'
        '[nri]\nsockets = ["nri.sock"]\n'
    )
    assert main(["doctor", "--json", "-c", str(config)]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    by_subject = {finding["subject"]: finding for finding in found}
    assert by_subject["configuration"]["level"] == "ok"
    assert "10-broken" in by_subject["plugin"]["text"]
    assert by_subject["state_dir"]["level"] == "ok"
    assert not (tmp_path / "state").exists()  # doctor only looks
    assert by_subject["agent"]["text"].startswith("not running")
    assert main(["doctor", "-c", str(config)]) == 1
    assert "to set right" in capsys.readouterr().out


def test_before_a_configuration_doctor_says_how_to_write_one_which_is_then_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "etc" / "agent.toml"
    assert main(["doctor", "-c", str(config)]) == 1
    said = capsys.readouterr().out
    assert f"{config} is not there" in said
    assert f"edge-agent config init -c {config}`" in said
    assert not config.parent.exists()  # doctor only looks
    assert main(["config", "init", "-c", str(config)]) == 0
    assert f"wrote {config}" in capsys.readouterr().out
    main(["doctor", "-c", str(config)])
    assert f"{config} is in order" in capsys.readouterr().out


def test_an_engine_of_earlier_versions_is_told_with_what_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('engine = "wasm3"\n')
    main(["doctor", "--json", "-c", str(config)])
    found = json.loads(capsys.readouterr().out)["findings"]
    (engine,) = (each for each in found if each["subject"] == "engine")
    if engine["level"] == "fail":  # wasmi is not installed
        assert "install the wheel" in engine["text"]
    else:
        assert engine["level"] == "warn"
        assert "as configured: wasm3 is no more" in engine["text"]
        assert engine["todo"] == 'set engine to "auto" or "wasmi"'


def test_a_broken_configuration_does_not_keep_doctor_from_looking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text("[broken\n")
    assert main(["doctor", "-c", str(config)]) == 1
    said = capsys.readouterr().out
    assert "not valid TOML" in said
    assert "clock" in said


UPDATING = replace(
    WELL,
    config=AgentConfig(node="n", mqtt=MQTT, updates=UpdatesConfig()),
    trusted="1 of 1 keys must sign: 0123456789ab",
    plugins=(),
    status={
        **(WELL.status or {}),
        "plugins": [],
        "mqtt": {"state": "connected", "broker": "mqtt://b", "protocol": "5"},
        "updates": {"generation": 1},
    },
)


def updating(**said: object) -> Facts:
    """A running agent that says this of its updates."""
    return replace(UPDATING, status={**(UPDATING.status or {}), "updates": said})


def test_updates_that_are_well_are_told_and_need_no_plugin_in_the_folder() -> None:
    facts = updating(generation=3, refused=None, trust={"refused": None}, rejected={})
    assert troubles(facts) == []
    texts = [finding.text for finding in judge(facts) if finding.subject == "updates"]
    assert texts == ["1 of 1 keys must sign: 0123456789ab", "runs generation 3"]


def test_what_keeps_updates_from_working_is_told() -> None:
    facts = replace(UPDATING, trusted="", trust_problem="no keys there")
    (trouble,) = troubles(facts)
    assert (trouble.level, trouble.text) == ("fail", "no keys there")
    said = troubles(replace(UPDATING, config=AgentConfig(node="n", updates=UpdatesConfig())))
    assert "no broker" in said[-1].text
    status = {key: value for key, value in (UPDATING.status or {}).items() if key != "updates"}
    (trouble,) = troubles(replace(UPDATING, status=status))
    assert "the agent takes no updates" in trouble.text
    facts = updating(
        generation=0,
        refused={"reason": "signature", "text": "0 of 1 signatures"},
        trust={"refused": {"text": "no chain"}},
        rejected={"sha256:" + "a" * 64: "it loops"},
        trouble="the disk is full",
    )
    texts = [trouble.text for trouble in troubles(facts)]
    assert texts == [
        "the disk is full",
        "refuses the broker's deployment: 0 of 1 signatures",
        "refuses the broker's trust: no chain",
        "rejects sha256:aaaaaaaaaaaa: it loops",
    ]


def test_trusted_keys_are_looked_at(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('[updates]\ntrust_dir = "trust"\n')
    assert "put the fleet's public keys there" in str(observe(config).trust_problem)
    (tmp_path / "trust").mkdir()
    key = SigningKey(bytes(32)).public
    (tmp_path / "trust" / "a.pem").write_text(public_pem(key))
    assert observe(config).trusted == f"1 of 1 keys must sign: {key.keyid[:12]}"


def test_what_a_runtime_drops_is_told_before_a_container_is_made() -> None:
    (found,) = troubles(_plugin("running", not_carried=["linux.resources.pids"]))
    assert found.level == "warn"
    assert found.text == (
        "10-guard: the runtime at /s does not carry linux.resources.pids, "
        "which the plugin may touch"
    )
    assert "docs/runtimes.md" in found.todo


def test_a_running_plugin_whose_replies_came_to_nothing_is_not_well() -> None:
    error = "containerd 1.7.24 makes containers without linux.resources.pids.limit"
    (found,) = troubles(_plugin("running", error=error, failures={"dropped": 3}))
    assert (found.level, found.text) == ("warn", f"10-guard: running at /s: {error}")


DAY = 86_400.0
CERTIFIED = replace(
    told(),
    config=AgentConfig(
        node="n", mqtt=MqttConfig((Broker("b", 8883, True),), "n", cert_file=Path("/etc/n.pem"))
    ),
)


@pytest.mark.parametrize(("left", "level"), [(40, "ok"), (20, "warn"), (-1, "fail")])
def test_a_certificate_that_ends_is_told_with_what_renews_it(left: float, level: str) -> None:
    now = CERTIFIED.now
    validity = Validity(now + (left - 90) * DAY, now + left * DAY)
    (found,) = [
        each
        for each in judge(replace(CERTIFIED, certificate=validity))
        if "/etc/n.pem" in each.text
    ]
    assert found.level == level
    assert ("configs/mosquitto/certificate renew n" in found.todo) == (level != "ok")


@pytest.mark.parametrize(("left", "level"), [(400, ""), (200, "warn"), (-1, "fail")])
def test_trusted_keys_that_end_are_told(left: float, level: str) -> None:
    now = UPDATING.now
    trust = {
        "version": 1,
        "issued": int(now + (left - 730) * DAY),
        "expires": int(now + left * DAY),
        "expired": left < 0,
    }
    status = {**(UPDATING.status or {}), "updates": {"generation": 1, "trust": trust}}
    facts = replace(UPDATING, status=status)
    found = [each for each in judge(facts) if "trusted keys" in each.text]
    assert [each.level for each in found] == ([level] if level else [])
    assert all("edge-agent fleet trust renew" in each.todo for each in found)
