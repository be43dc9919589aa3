"""docs/fleet-protocol-vectors.json is what this agent does."""

import json
from datetime import datetime
from typing import Any

import pytest

from edge_agent.errors import RefusedError
from edge_agent.fleet_protocol import deployment
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.store.catalogue import NOTHING_KNOWN, Known
from tests.fleet_protocol import vectors

ISSUED = datetime.fromisoformat("2026-11-23T18:00:00Z").timestamp()
VECTORS: list[dict[str, Any]] = json.loads(vectors.FILE.read_text())


def test_the_file_is_fresh() -> None:
    assert vectors.FILE.read_text() == vectors.everything()


@pytest.mark.parametrize("vector", VECTORS, ids=[each["name"] for each in VECTORS])
def test_vector(vector: dict[str, Any]) -> None:
    before = vector["known"]
    known = Known(**before, issued=ISSUED) if before else NOTHING_KNOWN
    trust = TrustSet("greenhouse", vector["trust_version"], 1, (vectors.KEY.public,))
    raw = json.dumps(vector["envelope"]).encode()
    found = None
    try:
        found = deployment.accept(raw, fleet="greenhouse", trust=trust, known=known, clock=ISSUED)
    except RefusedError as error:
        result = error.reason
    else:
        result = "taken" if found else "known"
    assert result == vector["result"]
    for told in vector.get("runs", ()):
        assert found is not None
        chosen = deployment.wanted(found, told["node"], told["labels"])
        assert told["plugins"] == {
            identity: [each.release.version, each.release.config]
            for identity, each in chosen.items()
        }
    for key, setting in (("modes", "mode"), ("instances", "instance")):
        for told in vector.get(key, ()):
            assert found is not None
            chosen = deployment.wanted(found, told["node"], told["labels"])
            settings = {identity: each.release.settings for identity, each in chosen.items()}
            values = {identity: getattr(each, setting) for identity, each in settings.items()}
            assert told["plugins"] == values


def test_no_agent_of_before_takes_what_is_only_to_be_monitored() -> None:
    """As was recorded of them; what the tool signs is of that kind."""
    monitored = [
        each
        for each in VECTORS
        if any("monitor" in told["plugins"].values() for told in each.get("modes", ()))
    ]
    assert len(monitored) >= 1
    for vector in monitored:
        assert vector["result"] == "taken"
        assert vector["by_0.1.0"] == vector["by_form_2"] == "kind"
    entry = {**vectors.guard(), "mode": "monitor"}
    assert deployment.kind_of([entry]) == deployment.KIND_3
    assert deployment.kind_of([vectors.guard(mode="monitor")]) == deployment.KIND_3
    assert deployment.kind_of([vectors.guard(), vectors.guard(config="x")]) == deployment.KIND_2
    assert deployment.kind_of([vectors.guard()]) == deployment.KIND


def test_no_agent_of_before_takes_what_is_to_have_an_instance_for_each_event() -> None:
    """As was recorded of them; what the tool signs is of that kind."""
    one_shot = [each for each in VECTORS if "instances" in each]
    assert len(one_shot) == 2
    for vector in one_shot:
        older = [vector[f"by_{each}"] for each in ("0.1.0", "form_2", "form_3")]
        assert (vector["result"], older) == ("taken", ["kind"] * 3)
    entry = {**vectors.guard(), "instance": "per-event"}
    assert deployment.kind_of([entry]) == deployment.KIND_4
    both = [vectors.guard(mode="monitor"), vectors.guard(instance="per-event")]
    assert deployment.kind_of(both) == deployment.kind_of(both[::-1]) == deployment.KIND_4


def test_the_step_is_the_pages() -> None:
    assert vectors.STEP == deployment.MAX_GENERATION_STEP
    page = (vectors.FILE.parent / "fleet-protocol.md").read_text()
    assert f"at most {vectors.STEP:,} (2^32) more" in page
