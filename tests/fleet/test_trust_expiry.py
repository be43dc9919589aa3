"""Sets of trusted keys that expire: what a node goes on doing, and what it takes no more."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent import strictjson
from edge_agent.config.units import Validity
from edge_agent.errors import ConfigError, RefusedError, RequestError
from edge_agent.fleet.request_verifier import RequestVerifier
from edge_agent.fleet.trustfiles import read_root, written_validity
from edge_agent.fleet.updater import EXPIRY_LOOK_S
from edge_agent.fleet_protocol import deployment, requests, signed_requests, trust
from edge_agent.fleet_protocol.requests import Sealed
from edge_agent.fleet_protocol.signed_requests import Addressed
from edge_agent.store.catalogue import NOTHING_KNOWN, Known
from tests.fleet_protocol.papers import DEPLOYMENT, sealed
from tests.support.fleetnode import (
    FLEET,
    KEYS,
    NOW,
    TOPICS,
    Board,
    Operator,
    plugin,
    release,
    trust_set,
    wasm,
)
from tests.support.shelf import Shelf

DAY = 86_400.0
A, B = wasm(1), wasm(2)
OLD = Path(__file__).parents[1] / "data" / "trust-0.1.0"


def until(days: float) -> Validity:
    """A year that ends so many days from now."""
    return Validity(NOW + (days - 365) * DAY, NOW + days * DAY)


@pytest.fixture
def operator(shelf: Shelf) -> Operator:
    operator = Operator(shelf)
    operator.upload(A)
    operator.upload(B)
    return operator


@pytest.fixture
def board(tmp_path: Path, shelf: Shelf, operator: Operator) -> Board:
    """It runs generation 1, under keys that count for another 30 days."""
    board = Board(tmp_path / "board", shelf)
    operator.rotate(trust_set(KEYS[0], version=2, validity=until(30)))
    operator.deploy(plugin("guard", release("1", A)), expires="2028-01-01T00:00:00Z")
    board.start()
    board.wait(1)
    board.keep("10-guard")
    board.wait(1)
    assert board.running() == {"10-guard": "1"}
    return board


def renewed(operator: Operator, *to: trust.TrustSet) -> None:
    """The chain from the first set on, with `to` behind version 2."""
    operator.signers = list(KEYS[:1])
    operator.rotate(trust_set(KEYS[0], version=2, validity=until(30)), *to)


def test_what_runs_goes_on_and_nothing_new_is_taken_until_a_new_set_comes(
    board: Board, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    told = board.status()["trust"]
    assert (told["expires"], told["expired"]) == (int(until(30).expires), False)
    board.clock += 31 * DAY
    operator.deploy(plugin("guard", release("2", B)), expires="2028-01-01T00:00:00Z")
    with caplog.at_level(logging.WARNING):
        board.wait(5)
    assert board.running() == {"10-guard": "1"}
    status = board.status()
    assert status["trust"]["expired"] is True
    assert status["refused"]["reason"] == "trust-expired"
    assert status["refused"]["generation"] == 2  # trusted keys did sign it
    assert status["expired"] is False
    said = [each.getMessage() for each in caplog.records if "what runs goes on" in each.message]
    assert len(said) == 1
    assert "fleet trust renew" in said[0]
    board.shelf.subscribed.clear()
    board = Board(board.folder, board.shelf, clock=board.clock).start()  # after a restart too
    board.wait(5)
    assert board.running() == {"10-guard": "1"}
    assert board.status()["refused"]["reason"] == "trust-expired"
    renewed(operator, trust_set(KEYS[0], version=3, validity=until(400)))
    board.wait(5)  # what was refused is looked at again by itself
    assert board.running() == {"10-guard": "2"}
    assert board.status()["trust"]["version"] == 3
    assert board.status()["trust"]["expired"] is False
    assert board.status()["refused"] is None


def test_keys_that_expired_hand_on_to_others_and_nobody_else_does(
    board: Board, operator: Operator
) -> None:
    board.clock += 31 * DAY
    operator.signers = [KEYS[3]]
    operator.rotate(trust_set(KEYS[3], version=3))
    board.wait(5)
    assert board.status()["trust"]["version"] == 2
    renewed(operator, trust_set(KEYS[1], version=3, validity=until(400)))
    board.wait(5)
    assert board.status()["trust"]["version"] == 3
    operator.deploy(plugin("guard", release("2", B)), expires="2028-01-01T00:00:00Z")
    board.wait(5)
    assert board.running() == {"10-guard": "2"}


def test_that_it_expired_is_told_though_nothing_comes(board: Board) -> None:
    for _ in range(30 * 24 + 1):
        due = board.turn()
        assert due - board.now <= EXPIRY_LOOK_S
        board.now += due - board.now
        board.clock += EXPIRY_LOOK_S
    board.turn()
    assert board.status()["trust"]["expired"] is True


def test_the_document_that_runs_is_no_refusal_when_it_comes_again(
    board: Board, operator: Operator
) -> None:
    raw = operator.shelf.retained[TOPICS.deployment]  # type: ignore[attr-defined]
    board.clock += 31 * DAY
    operator.shelf.publish(TOPICS.deployment, raw)
    board.wait(5)
    assert board.status()["refused"] is None


def test_a_board_without_a_clock_judges_by_what_was_signed_last(
    tmp_path: Path, shelf: Shelf, operator: Operator
) -> None:
    board = Board(tmp_path, shelf, clock=1000.0)
    operator.rotate(trust_set(KEYS[0], version=2, validity=until(30)))
    operator.deploy(plugin("guard", release("1", A)), expires="2028-01-01T00:00:00Z")
    board.start()
    board.wait(5)
    assert board.status()["trust"]["expired"] is False
    later = {"issued": "2026-12-25T12:00:00Z", "expires": "2028-01-01T00:00:00Z"}
    operator.deploy(plugin("guard", release("2", B)), **later)
    board.wait(5)
    assert board.running() == {"10-guard": "2"}
    assert board.status()["trust"]["expired"] is True  # by the document's own time
    operator.deploy(plugin("guard", release("1", A)), **later)
    board.wait(5)
    assert board.status()["refused"]["reason"] == "trust-expired"
    renewed(operator, trust_set(KEYS[0], version=3, validity=until(400)))
    board.wait(5)
    assert board.running() == {"10-guard": "1"}


def test_a_set_tells_a_board_without_a_clock_how_late_it_is_too() -> None:
    late = trust_set(KEYS[0], version=2, validity=until(400))
    assert late.validity is not None
    assert deployment.best_time(0.0, NOTHING_KNOWN, late) == late.validity.issued
    known = Known(1, "", late.validity.issued + 1)
    assert deployment.best_time(0.0, known, late) == known.issued


def test_a_set_that_was_signed_by_a_clock_far_ahead_is_mended_by_the_next(
    board: Board, operator: Operator
) -> None:
    ahead = Validity(NOW + 20 * 365 * DAY, NOW + 22 * 365 * DAY)
    renewed(operator, trust_set(KEYS[0], version=3, validity=ahead))
    board.wait(5)
    operator.deploy(plugin("guard", release("2", B)), expires="2028-01-01T00:00:00Z")
    board.wait(5)
    assert board.status()["refused"]["reason"] == "expired"
    mended = trust_set(KEYS[0], version=4, validity=until(400))
    renewed(operator, trust_set(KEYS[0], version=3, validity=ahead), mended)
    board.wait(5)  # the deployment does not come again
    assert board.running() == {"10-guard": "2"}
    assert board.status()["refused"] is None


def request(signer: int = 0) -> tuple[Sealed, Addressed]:
    to = Addressed(FLEET, "board", "logs")
    raw = signed_requests.seal(
        *(to, "1", {}), issued=NOW + 31 * DAY, valid_s=60.0, signers=KEYS[signer : signer + 1]
    )
    found = requests.read("logs", raw)
    assert isinstance(found, Sealed)
    return found, to


def test_requests_of_keys_that_expired_are_refused(board: Board, operator: Operator) -> None:
    board.clock += 31 * DAY
    verifier = RequestVerifier(board.folder / "asked.json", board.updater.trust_in_force)
    with pytest.raises(RequestError, match="trust-expired: the trusted keys, version 2"):
        verifier.request(*request())
    renewed(operator, trust_set(KEYS[0], version=3, validity=until(396)))
    board.wait(5)
    assert verifier.request(*request()).verb == "logs"


# --- documents


def test_a_set_that_expires_goes_into_a_document_and_back() -> None:
    value = trust_set(*KEYS[:2], version=2, threshold=2, validity=until(30))
    payload = trust.to_payload(value)
    assert trust.parse(payload, FLEET) == value
    assert json.loads(payload)["expires"] == "2026-12-24T12:00:00Z"


def test_a_set_without_an_end_is_the_same_bytes_as_before() -> None:
    told = json.loads((OLD / "catalogue.json").read_text())["body"]["trust"]
    assert trust.to_payload(trust_set(KEYS[1], version=3)).decode() == told


def test_fractions_of_a_second_are_no_other_set() -> None:
    values = json.loads(trust.to_payload(trust_set(KEYS[0], version=2, validity=until(30))))
    odd = {**values, "issued": "2025-12-24T12:00:00.5Z", "expires": "2026-12-24T12:00:00.75Z"}
    assert trust.parse(strictjson.dumps(odd), FLEET).validity == until(30)


@pytest.mark.parametrize(
    "change",
    [
        *({"issued": None}, {"expires": None}, {"expires": 5}, {"expires": "soon"}),
        *({"expires": "2026-12-24"}, {"expires": "2025-12-24T12:00:00Z"}, {"issued": ...}),
        {"expires": ...},
    ],
)
def test_times_that_are_none_are_refused(change: dict[str, object]) -> None:
    values = json.loads(trust.to_payload(trust_set(KEYS[0], version=2, validity=until(30))))
    changed = {key: value for key, value in {**values, **change}.items() if value is not ...}
    with pytest.raises(RefusedError) as caught:
        trust.parse(strictjson.dumps(changed), FLEET)
    assert caught.value.reason == "malformed"


def test_the_last_second_counts_and_the_next_does_not() -> None:
    def accepted(now: float) -> bool:
        under = trust_set(KEYS[0], version=1, validity=until(30))
        values = {**DEPLOYMENT, "expires": "2028-01-01T00:00:00Z"}
        deployment.accept(sealed(values), fleet=FLEET, trust=under, known=NOTHING_KNOWN, clock=now)
        return True

    assert accepted(until(30).expires - 1)
    with pytest.raises(RefusedError) as caught:
        accepted(until(30).expires)
    assert caught.value.reason == "trust-expired"


def test_an_older_document_is_a_rollback_under_expired_keys_too() -> None:
    under = trust_set(KEYS[0], version=1, validity=until(-1))
    with pytest.raises(RefusedError) as caught:
        deployment.accept(sealed(), fleet=FLEET, trust=under, known=Known(99, "ab", 0.0), clock=NOW)
    assert caught.value.reason == "rollback"


# --- files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(OLD / "0.pem", tmp_path)
    return tmp_path


def test_files_may_say_when_they_expire(folder: Path) -> None:
    assert read_root(folder, fleet=FLEET, threshold=1).validity is None
    (folder / "validity").write_text(written_validity(until(30)))
    assert read_root(folder, fleet=FLEET, threshold=1).validity == until(30)


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026-12-24T12:00:00Z", "2026-12-24T12:00:00Z never", "one two"),
        *("2026-12-24T12:00:00Z 2025-12-24T12:00:00Z", written_validity(until(30)) + "more"),
    ],
)
def test_a_validity_that_is_none_is_named(folder: Path, text: str) -> None:
    (folder / "validity").write_text(text)
    with pytest.raises(ConfigError, match="validity"):
        read_root(folder, fleet=FLEET, threshold=1)


def test_files_beside_which_their_end_is_written_are_no_others(folder: Path) -> None:
    """Or a node would begin anew with older keys than it trusts."""
    before = read_root(folder, fleet=FLEET, threshold=1)
    (folder / "validity").write_text(written_validity(until(30)))
    after = read_root(folder, fleet=FLEET, threshold=1)
    newest = trust_set(KEYS[1], version=2, validity=until(99))
    payload = trust.to_payload(newest).decode()
    assert trust.in_force(after, payload, trust.name(before)) == newest


def test_files_of_a_set_in_another_order_are_that_set() -> None:
    signed = trust_set(KEYS[1], KEYS[0], version=2)
    files = replace(signed, keys=tuple(reversed(signed.keys)))
    shelf = Shelf()
    Operator(shelf).rotate(signed)
    raw = shelf.retained[TOPICS.trust]
    assert trust.rotated(raw, files) is None
    with pytest.raises(RefusedError):
        trust.rotated(raw, replace(files, threshold=2))


# --- as it was before


def test_the_disk_of_an_earlier_agent_is_gone_on_with(
    tmp_path: Path, shelf: Shelf, operator: Operator
) -> None:
    board = Board(tmp_path, shelf)
    (tmp_path / "store").mkdir(exist_ok=True)
    shutil.copy(OLD / "catalogue.json", tmp_path / "store")
    assert (OLD / "0.pem").read_text() == (tmp_path / "trust" / "0.pem").read_text()
    for topic, name in ((TOPICS.trust, "trust"), (TOPICS.deployment, "deployment")):
        shelf.publish(topic, (OLD / f"{name}.json").read_bytes())
    board.start()
    board.wait(5)
    assert board.running() == {"10-guard": "1"}
    status = board.status()
    keys = [KEYS[1].public.keyid]
    assert status["trust"] == {"version": 3, "threshold": 1, "keys": keys, "refused": None}
    assert (status["generation"], status["refused"]) == (2, None)
    board.clock += 10 * 365 * DAY  # it never ends
    operator.signers, operator.generation = [KEYS[1]], 2
    operator.deploy(plugin("guard", release("2", B)), expires="2099-01-01T00:00:00Z")
    board.wait(5)
    assert board.running() == {"10-guard": "2"}


@pytest.mark.usefixtures("operator")  # who uploaded the modules
def test_a_new_board_follows_the_chain_of_an_earlier_tool(tmp_path: Path, shelf: Shelf) -> None:
    for topic, name in ((TOPICS.trust, "trust"), (TOPICS.deployment, "deployment")):
        shelf.publish(topic, (OLD / f"{name}.json").read_bytes())
    board = Board(tmp_path, shelf).start()
    board.wait(5)
    assert board.running() == {"10-guard": "1"}
    assert board.status()["trust"]["version"] == 3
