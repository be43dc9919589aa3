"""Keys and certificates that end: what the operator is told, and the commands that renew them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.cli import fleet_upkeep
from edge_agent.errors import ConfigError
from edge_agent.fleet.trustfiles import read_root
from edge_agent.fleet_protocol import trust
from edge_agent.mqtt import certificate
from edge_agent.operator.fleet_toml import load_settings
from edge_agent.operator.folder import FleetFolder
from edge_agent.operator.overview import troubles
from edge_agent.operator.tool_client import Received
from edge_agent.operator.view import View
from tests.operator.conftest import Home
from tests.operator.peer import Peer
from tests.support.agent import Agent
from tests.support.fleetbroker import FLEET, FleetBroker
from tests.support.fleetbroker import certificate as certify
from tests.support.mosquitto import needs_mosquitto, needs_openssl

DAY = 86_400
Peers = Callable[..., list[Peer]]


def ends(home: Home, days: float, valid: float = 730) -> None:
    """Let the fleet's keys count for so many days more."""
    now = int(time.time())
    issued, expires = (now + (days - valid) * DAY, now + days * DAY)
    text = (home.path / "fleet.toml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("issued", "expires"))]
    told = [
        f'{name} = "{_written(each)}"' for name, each in zip(TIMES, (issued, expires), strict=True)
    ]
    (home.path / "fleet.toml").write_text("\n".join([*lines, *told]) + "\n")


TIMES = ("issued", "expires")


def _written(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def trusted(home: Home) -> trust.TrustSet:
    return FleetFolder(home.path).trust_set()


@pytest.mark.system
@needs_mosquitto
def test_a_new_fleets_keys_count_for_two_years_unless_somebody_says_otherwise(
    home: Home, tmp_path: Path
) -> None:
    validity = trusted(home).validity
    assert validity is not None
    assert validity.expires - validity.issued == 730 * DAY
    assert read_root(home.path / "trust", fleet="greenhouse", threshold=1) == trusted(home)
    for word, valid in (("90d", 90 * DAY), ("none", None)):
        path = tmp_path / word
        words = ("--broker", f"mqtt://127.0.0.1:{home.port}", "--valid-for", word)
        home.fleet("init", str(path), "--name", "greenhouse", *words)
        found = FleetFolder(path).trust_set().validity
        assert (found and found.expires - found.issued) == valid
        assert (path / "trust" / "validity").exists() == (valid is not None)
        root = read_root(path / "trust", fleet="greenhouse", threshold=1)
        assert root == FleetFolder(path).trust_set()


@pytest.mark.system
@needs_mosquitto
def test_the_end_is_told_by_every_command_from_the_last_third_on(home: Home) -> None:
    commands = (("nodes",), ("plan",), ("watch", "--seconds", "0.1"), ("results",))
    for words in commands:
        assert "trusted keys" not in home.fleet(*words)
    ends(home, 200)
    said = "the set of trusted keys, version 1, expires in 200 days; renew it: edge-agent fleet"
    for words in commands:
        assert said in home.fleet(*words)
    (found,) = fleet_upkeep.ending(FleetFolder(home.path), time.time())
    assert (found.level, found.subject, said in found.text) == ("warn", "trust", True)


@pytest.mark.system
@needs_mosquitto
def test_renewed_keys_count_again_and_no_deployment_has_to_be_signed_anew(
    published: Home, peers: Peers
) -> None:
    (board,) = peers("board")
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    ends(published, 20)
    told = published.fleet("trust", "renew", "-y", "--valid-for", "400d")
    assert "the fleet trusts version 2: alice" in told
    assert "next:" not in told
    after = trusted(published)
    assert after.validity is not None
    assert (after.version, after.validity.ending(time.time())) == (2, "")
    assert read_root(published.path / "trust", fleet="greenhouse", threshold=1) == after
    with published.opened() as fleet:
        assert fleet.current().problem == ""
    assert "deployed generation 2" in published.fleet("deploy", "-y")
    board.wait_for(2)


@pytest.mark.system
@needs_mosquitto
def test_nothing_is_deployed_under_keys_that_expired_and_they_can_be_renewed(
    published: Home,
) -> None:
    ends(published, -1)
    words = ("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    code, _, errors = published.tried(*words)
    assert code == 1
    assert "edge-agent fleet trust renew" in errors
    assert "(trust-expired)" in errors
    code, told, _ = published.tried("doctor")
    assert (code, "fail  trust" in told) == (1, True)
    assert "nodes take no deployment before you renew it" in published.fleet("nodes")
    published.fleet("trust", "renew", "-y")
    assert "deployed generation 1" in published.fleet(*words)


@pytest.mark.system
@needs_mosquitto
def test_two_who_must_sign_renew_together(home: Home) -> None:
    home.fleet("keygen", "bob")
    home.fleet("trust", "rotate", "--add", "bob", "--threshold", "2", "-y")
    (home.keys / "bob.key").rename(home.keys / "away")
    code, told, _ = home.tried("trust", "renew", "--valid-for", "100d", "-y")
    assert (code, "nothing is published yet" in told) == (1, True)
    (home.keys / "away").rename(home.keys / "bob.key")
    file = str(home.path / "trust-3.dsse.json")
    home.fleet("sign", file, "-y")
    told = home.fleet("trust", "rotate", "--signed", file, "-y")
    assert "the fleet trusts version 3" in told
    validity = trusted(home).validity
    assert validity is not None
    assert validity.expires - validity.issued == 100 * DAY


@pytest.mark.system
@needs_mosquitto
def test_keys_without_an_end_stay_so_only_where_that_is_said(home: Home) -> None:
    home.fleet("trust", "renew", "--valid-for", "none", "-y")
    assert trusted(home).validity is None
    assert not (home.path / "trust" / "validity").exists()
    assert "expires" not in (home.path / "fleet.toml").read_text().replace("# ", "")


@pytest.mark.parametrize(
    "lines",
    [
        'issued = "2026-01-01T00:00:00Z"',
        'expires = "2026-01-01T00:00:00Z"',
        'issued = "2026-01-01T00:00:00Z"\nexpires = "soon"',
        'issued = "2026-01-01T00:00:00Z"\nexpires = "2025-01-01T00:00:00Z"',
        "issued = 5\nexpires = 6",
    ],
)
def test_times_in_fleet_toml_that_are_none_are_named(tmp_path: Path, lines: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(f'name = "f"\n[mqtt]\nurl = "mqtt://a"\n[trust]\n{lines}\n')
    with pytest.raises(ConfigError, match=r"issued|expires"):
        load_settings(file)


# --- certificates


def state(**more: object) -> View:
    view = View()
    for leaf, document in (("status", {"status": "lost"}), ("state", more)):
        topic = f"edge/v1/greenhouse/nodes/board/{leaf}"
        view.feed(Received(topic, json.dumps(document).encode(), True))
    return view


def test_a_nodes_certificate_is_told_before_and_after_its_end() -> None:
    now = time.time()

    def told(days: float) -> list[str]:
        times = {"issued": int(now + (days - 90) * DAY), "expires": int(now + days * DAY) + 60}
        return [each.text for each in troubles(state(certificate=times), {}, now=now)]

    renew = "configs/mosquitto/certificate renew board"
    assert told(40) == ["lost: its connection ended without an offline message"]
    assert told(20)[1:] == [f"its certificate expires in 20 days: {renew}"]
    assert told(-20)[1:][0].startswith("its certificate expired on 20")


@pytest.mark.parametrize(
    "told",
    [
        *(5, [], "x", {}, {"expires": "x"}, {"expires": -1}, {"expires": True}),
        *({"expires": 1e300}, {"expires": 10**400}, {"expires": 253_402_300_800}),
    ],
)
def test_a_certificate_that_a_node_makes_up_ends_no_command(told: object) -> None:
    view = state(certificate=told)
    assert view.nodes["board"].certificate is None
    troubles(view, {}, now=time.time())


@pytest.mark.system
@needs_mosquitto
@needs_openssl
def test_a_real_nodes_certificate_is_in_its_state_its_doctor_and_the_fleets_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broker").mkdir()
    with FleetBroker(tmp_path / "broker", "board-1") as broker:
        home = Home(tmp_path / "operator", broker.operators_port, capsys)
        home.fleet("keygen", "alice")
        authority, cert, key = map(str, broker.credentials("operator"))
        tls = ("--ca-file", authority, "--cert-file", cert, "--key-file", key)
        url = f"mqtts://localhost:{broker.operators_port}"
        home.fleet("init", str(home.path), "--name", FLEET, "--broker", url, *tls)
        certify(broker.folder, "renew", "board-1", "1")
        certify(broker.folder, "renew", "operator", "1")
        authority, cert, key = map(str, broker.credentials("board-1"))
        mqtt = {
            "url": f"mqtts://localhost:{broker.port}",
            "ca_file": authority,
            "cert_file": cert,
            "key_file": key,
        }
        socket = tmp_path / "nri.sock"
        with Agent(
            tmp_path / "agent", sockets=[socket], node="board-1", fleet=FLEET, mqtt=mqtt
        ) as agent:
            agent.wait_for(lambda status: "certificate" in status, "it tells")
            found = certificate.read(Path(cert))
            told = agent.wait_for(lambda status: status["mqtt"]["state"] == "connected", "in")
            assert told["certificate"] == {
                "issued": int(found.issued),
                "expires": int(found.expires),
            }
            view = View()
            with home.opened() as fleet:
                while not view.nodes.get("board-1") or not view.nodes["board-1"].certificate:
                    view = fleet.view()
            assert view.nodes["board-1"].certificate == found
            # After a while that is its last third:
            later = found.expires - 3600
            texts = [each.text for each in troubles(view, {}, now=later)]
            assert (
                "its certificate expires in 1 hours: configs/mosquitto/certificate renew"
                in (texts[0])
            )
            certify(broker.folder, "renew", "board-1", "365")  # in its place
            agent.reload()
            renewed = int(certificate.read(Path(cert)).expires)
            agent.wait_for(
                lambda status: status["certificate"]["expires"] == renewed, "the new one is told"
            )
