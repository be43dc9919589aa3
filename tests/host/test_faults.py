"""Guests that misbehave: containers go on or fail by policy, and the runtime keeps the plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.agent import Agent, guest
from tests.support.gobuild import go_annotator_module, require_go
from tests.support.gopeers import NriRuntime
from tests.support.wait import wait_until

pytestmark = pytest.mark.system

# What the guest does -> the kind of failure that is counted.
FAULTS = {
    "loop": "timeout",
    "recurse": "trap",
    "oob": "trap",
    "trap": "trap",
    "bad-pointer-reply": "abi",
    "huge-reply": "abi",
    "free-traps": "trap",
    "malloc-returns-outside": "abi",
    # Whichever limit a flood meets first, on a fast or a slow machine.
    "host-calls": "timeout or calls",
    "log-flood": "timeout or calls",
}
QUICK = {"deadline": "200ms"}


def put_hostile(agent: Agent, behaviour: str, policy: str) -> None:
    agent.put(
        "10-hostile",
        guest("hostile"),
        config=f"create_container:{behaviour}\n",
        settings={"failure_policy": policy, "limits": QUICK},
    )
    agent.wait_running("10-hostile")


@pytest.mark.parametrize("behaviour", FAULTS)
def test_ignore_lets_containers_go_on(runtime: NriRuntime, agent: Agent, behaviour: str) -> None:
    put_hostile(agent, behaviour, "Ignore")
    agent.put("20-edge", guest("edge"))
    agent.wait_running("20-edge")
    for number in range(3):
        outcome = runtime.create_container(f"c{number}")
        assert outcome.error == ""
        assert outcome.annotations["edge.test/count"] == str(number + 1)
    agent.wait_for(
        lambda _: agent.entry("10-hostile")["failures"].keys() & set(FAULTS[behaviour].split()),
        f"a {FAULTS[behaviour]} is counted",
    )
    runtime.wait_for_plugins("10-hostile", "20-edge")  # answered in time: not dropped


@pytest.mark.parametrize("behaviour", ["loop", "trap", "huge-reply"])
def test_fail_names_the_plugin(runtime: NriRuntime, agent: Agent, behaviour: str) -> None:
    put_hostile(agent, behaviour, "Fail")
    for number in range(2):
        assert "plugin 10-hostile: " in runtime.create_container(f"c{number}").error
    # The guest is made anew beside the failing session, and answers what it can.
    agent.wait_for(lambda _: agent.entry("10-hostile")["restarts"] > 0, "a new guest")
    assert runtime.run_pod().error == ""


def test_an_error_that_the_guest_returns_is_its_answer_whatever_the_policy(
    runtime: NriRuntime, agent: Agent
) -> None:
    put_hostile(agent, "error", "Ignore")
    assert "plugin 10-hostile: " in runtime.create_container().error
    entry = agent.entry("10-hostile")
    assert (entry["status"], entry["failures"], entry["restarts"]) == ("running", {}, 0)


def test_a_guest_that_fails_is_made_anew_each_time(runtime: NriRuntime, agent: Agent) -> None:
    put_hostile(agent, "trap", "Ignore")
    for number in range(3):
        assert runtime.create_container(f"c{number}").error == ""
        agent.wait_replaced("10-hostile", number)
    assert agent.entry("10-hostile")["failures"] == {"trap": 3}
    runtime.wait_for_plugins("10-hostile")


def test_a_guest_that_fails_at_every_event_does_not_stop_the_runtime(
    runtime: NriRuntime, agent: Agent
) -> None:
    """No successor survives what it is shown before it takes over: the policy answers on."""
    put_hostile(agent, "trap", "Ignore")
    runtime.burst_start(life=["PostCreateContainer"], pause_us=1000)
    agent.wait_for(lambda _: agent.entry("10-hostile")["failures"].get("trap", 0) > 3, "tries")
    made = runtime.burst_stop()
    assert not [each.errors for each in made if each.errors]
    agent.wait_running("10-hostile")  # as soon as it is left in peace


def test_a_reply_beyond_its_permissions_is_refused_and_counted(
    runtime: NriRuntime, agent: Agent
) -> None:
    settings = {"permissions": ["env"], "failure_policy": "Ignore"}
    agent.put("10-bench", guest("bench"), settings=settings)
    agent.wait_running("10-bench")
    outcome = runtime.create_container("c1")
    assert outcome.error == ""
    assert outcome.annotations == {}
    agent.wait_for(lambda _: agent.entry("10-bench")["failures"] == {"denied": 1}, "denied")
    agent.put("10-bench", settings={"permissions": ["env"]})
    agent.wait_for(
        lambda _: "annotations" in runtime.create_container("c2").error, "refused under Fail"
    )


def test_an_update_beyond_its_permissions_is_refused_with_the_reply(
    runtime: NriRuntime, agent: Agent
) -> None:
    """`edge.update_containers` is no way around `permissions`."""
    granted = ["annotations", "update"]
    agent.put("10-edge", guest("edge"), settings={"permissions": granted[:1]})
    agent.wait_running("10-edge")
    wish = {"edge.test/update": "c1 33554432"}
    assert runtime.create_container("c1").error == ""
    assert "touches update" in runtime.create_container("c2", annotations=wish).error
    assert agent.entry("10-edge")["failures"] == {"denied": 1}
    agent.put("10-edge", settings={"permissions": granted})
    agent.wait_replaced("10-edge", 0)
    assert runtime.create_container("c3", annotations=wish).error == ""
    wait_until(lambda: runtime.updates(), "the permitted update arrives")
    assert len(runtime.updates()) == 1


def test_a_successor_that_never_returns_does_not_cost_another_plugin_its_time(
    tmp_path: Path,
) -> None:
    """It is shown the event while the runtime waits for the next plugin, which loops too."""
    require_go()
    socket = tmp_path / "nri.sock"
    with (
        # Long, so that a busy machine does not count.
        NriRuntime(socket, request_timeout_ms=8000) as runtime,
        Agent(tmp_path / "agent", sockets=[socket], limits={"deadline": "60s"}) as agent,
    ):
        policy = {"failure_policy": "Ignore"}
        agent.put("10-hostile", guest("hostile"), config="* : ok\n", settings=policy)
        agent.put("20-loop", guest("hostile"), config="create_container:loop\n", settings=policy)
        agent.wait_running("10-hostile", "20-loop")
        agent.put("10-hostile", config="create_container:loop\n")
        runtime.wait_for_plugins("10-hostile", "10-hostile", "20-loop")  # a handover, for 1 s
        outcome = runtime.create_container()
        assert outcome.error == ""
        assert [call for call in outcome.calls if call.error] == []
        for identity in ("10-hostile", "20-loop"):
            assert agent.entry(identity)["failures"] == {"timeout": 1}


def test_a_memory_limit_holds(runtime: NriRuntime, agent: Agent) -> None:
    agent.put(
        "10-hostile",
        guest("hostile"),
        config="create_container:leak 600000\n",
        settings={"failure_policy": "Ignore", "limits": {"memory": "1MiB", **QUICK}},
    )
    agent.wait_running("10-hostile")
    for number in range(3):
        assert runtime.create_container(f"c{number}").error == ""
    assert 512 << 10 < agent.entry("10-hostile")["memory_bytes"] <= 1 << 20


def test_a_module_that_begins_with_more_memory_than_it_may_is_told(
    runtime: NriRuntime, agent: Agent
) -> None:
    agent.put("10-edge", guest("edge"))
    settings = {"failure_policy": "Ignore", "limits": {"memory": "1MiB"}}
    agent.put("20-go", go_annotator_module(), settings=settings)
    agent.wait_running("10-edge")
    agent.wait_for_line("its limit is 1048576")
    assert runtime.create_container().plugins == ["10-edge"]
