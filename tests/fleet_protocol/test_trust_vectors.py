"""docs/fleet-trust-vectors.json is what this agent does."""

import json
from datetime import datetime
from typing import Any

import pytest

from edge_agent import strictjson
from edge_agent.errors import RefusedError
from edge_agent.fleet_protocol import deployment, trust
from edge_agent.store.catalogue import NOTHING_KNOWN
from tests.fleet_protocol import trustvectors

NOW = datetime.fromisoformat(trustvectors.TIME).timestamp()
VECTORS: list[dict[str, Any]] = json.loads(trustvectors.FILE.read_text())


def test_the_file_is_fresh() -> None:
    assert trustvectors.FILE.read_text() == trustvectors.everything()


@pytest.mark.parametrize("vector", VECTORS, ids=[each["name"] for each in VECTORS])
def test_vector(vector: dict[str, Any]) -> None:
    current = trust.parse(strictjson.dumps(vector["before"]), "greenhouse")
    result: int | str = current.version
    if vector["chain"]:
        try:
            current = trust.rotated(strictjson.dumps(vector["chain"]), current) or current
            result = current.version
        except RefusedError as error:
            result = error.reason
    assert result == vector["result"]
    raw = strictjson.dumps(vector["deployment"])
    deployed = "taken"
    try:
        deployment.accept(raw, fleet="greenhouse", trust=current, known=NOTHING_KNOWN, clock=NOW)
    except RefusedError as error:
        deployed = error.reason
    assert deployed == vector["deployment_result"]
