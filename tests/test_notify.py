"""The notify protocol as a real socket receives it, from the notifier and from the agent."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.loop import Loop
from edge_agent.notify import MAX_UNSENT, Notifier, from_environment
from tests.support.agent import Agent, guest
from tests.support.notify import NotifySocket
from tests.support.turning import turn_until
from tests.support.wait import TIMEOUT_S, wait_until

PID = 4711
WATCHDOG_S = 0.2


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(tmp_path / "notify") as manager:
        yield manager


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


def notifier_for(manager: NotifySocket, **more: str) -> Notifier:
    return from_environment({"NOTIFY_SOCKET": manager.address, **more}, PID)


def test_messages_arrive_in_order(manager: NotifySocket, loop: Loop) -> None:
    notifier = notifier_for(manager)
    notifier.start(loop)
    notifier.ready()
    notifier.status("well")
    notifier.status("well")  # said already
    notifier.reloading()
    notifier.ready()
    notifier.stopping()
    messages = manager.messages()
    assert [each.partition("=")[0] for each in messages] == [
        "READY",
        "STATUS",
        "RELOADING",
        "READY",
        "STOPPING",
    ]
    assert messages[1] == "STATUS=well"
    first, second = messages[2].split("\n")
    assert first == "RELOADING=1"
    assert second.removeprefix("MONOTONIC_USEC=").isdecimal()


def test_an_abstract_socket_is_reached(loop: Loop) -> None:
    with NotifySocket() as manager:
        assert manager.address[0] == "@"
        notifier = notifier_for(manager)
        notifier.start(loop)
        notifier.ready()
        assert manager.messages() == ["READY=1"]


@pytest.mark.parametrize("address", [None, "", "vsock:2:1", "relative"])
def test_without_a_manager_nothing_happens(address: str | None, loop: Loop) -> None:
    variables = {} if address is None else {"NOTIFY_SOCKET": address}
    notifier = from_environment(variables, PID)
    notifier.start(loop)
    notifier.ready()
    notifier.stopping()
    notifier.close()


def test_no_child_inherits_the_managers_variables(manager: NotifySocket) -> None:
    variables = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(PID),
        "PATH": "/bin",
    }
    from_environment(variables, PID)
    assert variables == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("watchdog", "pings"),
    [
        ({"WATCHDOG_USEC": "20000"}, True),
        ({"WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(PID)}, True),
        ({"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
        ({}, False),
    ],
)
def test_only_a_watchdog_that_is_meant_for_us_is_fed(
    manager: NotifySocket, loop: Loop, watchdog: dict[str, str], pings: bool
) -> None:
    notifier_for(manager, **watchdog).start(loop)
    over: list[bool] = []
    loop.call_later(0.1, lambda: over.append(True))
    turn_until(loop, lambda: bool(over), "some turns")
    assert manager.has("WATCHDOG=1", times=2) == pings
    assert manager.has("WATCHDOG=1") == pings


def test_the_watchdog_hears_nothing_while_a_callback_hangs(
    manager: NotifySocket, loop: Loop
) -> None:
    notifier_for(manager, WATCHDOG_USEC=str(int(WATCHDOG_S * 1e6))).start(loop)
    hangs, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        goes_on.wait()

    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        wait_until(lambda: manager.has("WATCHDOG=1", times=2), "the loop's pings")
        loop.call_soon(hang)
        assert hangs.wait(TIMEOUT_S)
        manager.forget()
        assert not pings_within(manager, 5 * WATCHDOG_S)
        goes_on.set()
        wait_until(lambda: manager.has("WATCHDOG=1"), "pings once the loop turns again")
    finally:
        goes_on.set()
        loop.call_soon(loop.stop)
        thread.join()


@pytest.mark.parametrize(
    ("absences", "told"),
    [
        ([0.0, 0.1, 0.15], []),
        ([0.3], ["WATCHDOG_USEC=400000"]),
        ([0.3, 0.3], ["WATCHDOG_USEC=400000"]),
        ([0.3, 0.6, 0.0], ["WATCHDOG_USEC=400000", "WATCHDOG_USEC=800000", "WATCHDOG_USEC=200000"]),
    ],
)
def test_a_watchdog_is_told_only_what_it_must_know(
    manager: NotifySocket, loop: Loop, absences: list[float], told: list[str]
) -> None:
    notifier = notifier_for(manager, WATCHDOG_USEC=str(int(WATCHDOG_S * 1e6)))
    notifier.start(loop)
    for seconds in absences:
        notifier.expect_absence(seconds)
    assert [each for each in manager.messages() if each.startswith("WATCHDOG_U")] == told


def test_a_watchdog_that_shall_wait_less_is_fed_at_once(manager: NotifySocket, loop: Loop) -> None:
    notifier = notifier_for(manager, WATCHDOG_USEC=str(int(WATCHDOG_S * 1e6)))
    notifier.start(loop)
    notifier.expect_absence(600.0)
    # The next ping is planned by this time.
    turn_until(loop, lambda: manager.has("WATCHDOG=1", 2), "the ping after the start's")
    manager.forget()
    notifier.expect_absence(0.0)
    turn_until(loop, lambda: manager.has("WATCHDOG=1", 2), "pings in the shorter time")


def test_who_has_no_watchdog_is_told_of_none(manager: NotifySocket, loop: Loop) -> None:
    notifier = notifier_for(manager)
    notifier.expect_absence(100.0)  # before it began
    notifier.start(loop)
    notifier.expect_absence(100.0)
    assert manager.messages() == []


def pings_within(manager: NotifySocket, seconds: float) -> bool:
    """Whether any ping comes within a time in which several would be due."""
    over = threading.Event()
    timer = threading.Timer(seconds, over.set)
    timer.start()
    wait_until(lambda: over.is_set() or manager.has("WATCHDOG=1"), "pings or their absence")
    timer.cancel()
    return manager.has("WATCHDOG=1")


def test_what_a_full_queue_refuses_is_sent_later_and_in_order(
    manager: NotifySocket, loop: Loop
) -> None:
    fill(manager)
    notifier = notifier_for(manager)
    notifier.start(loop)
    notifier.ready()
    notifier.status("well")
    notifier.stopping()
    assert set(manager.messages()) == {"x"}
    manager.forget()
    turn_until(loop, lambda: manager.has("STOPPING"), "what was refused")
    assert manager.messages() == ["READY=1", "STATUS=well", "STOPPING=1"]


def fill(manager: NotifySocket) -> None:
    """Send until not even a sender with nothing of its own under way can send more."""
    sent = True
    while sent:
        sent = False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
            try:
                while True:
                    other.sendto(b"x", manager.address)
                    sent = True
            except BlockingIOError:
                pass


def test_a_manager_that_never_reads_takes_no_memory(manager: NotifySocket, loop: Loop) -> None:
    fill(manager)
    notifier = notifier_for(manager)
    notifier.start(loop)
    for number in range(10 * MAX_UNSENT):
        notifier.status(f"{number}")
    notifier.stopping()
    manager.forget()
    turn_until(loop, lambda: manager.has("STOPPING"), "the newest")
    assert len(manager.messages()) <= MAX_UNSENT


def test_a_manager_that_comes_back_is_told(
    tmp_path: Path, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "notify"
    notifier = from_environment({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "20000"}, PID)
    notifier.start(loop)
    notifier.ready()
    over: list[bool] = []
    loop.call_later(0.1, lambda: over.append(True))
    turn_until(loop, lambda: bool(over), "pings that nobody takes")
    assert sum("does not take messages" in each for each in caplog.messages) == 1
    with NotifySocket(path) as manager:
        turn_until(loop, lambda: manager.has("READY=1"), "the late message")


# --- the agent


@pytest.fixture
def agent(
    tmp_path: Path, manager: NotifySocket, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Agent]:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1e6)))
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    plugins = {"10-bench": guest("bench")}
    sockets = [tmp_path / "nri.sock"]
    # Of a deadline of 1 s the watchdog would be told.
    with (
        manager.served(),
        Agent(tmp_path, sockets=sockets, plugins=plugins, limits={"deadline": "10ms"}) as agent,
    ):
        yield agent


def test_the_watchdog_is_told_of_long_calls_and_of_short_ones_again(
    agent: Agent, manager: NotifySocket
) -> None:
    wait_until(lambda: manager.has("READY=1"), "the agent is ready")
    assert not manager.has("WATCHDOG_USEC=")
    agent.put("20-bench", guest("bench"), settings={"limits": {"deadline": "6s"}})
    # At one runtime an answer and what a successor is shown: 12 s, and a ping's time.
    wait_until(lambda: manager.has("WATCHDOG_USEC=16000000"), "it is told")
    agent.remove("20-bench")
    wait_until(lambda: manager.has("WATCHDOG_USEC=200000"), "it is told again")


def test_the_agent_is_ready_once_it_answers_and_knows_its_plugins(
    agent: Agent, manager: NotifySocket
) -> None:
    wait_until(lambda: manager.has("READY=1"), "the agent is ready")
    assert agent.entries("10-bench")
    status = "STATUS=0 of 1 plugins running, connected to 0 of 1 runtimes"
    wait_until(lambda: manager.has(status), "the agent says how it goes")
    assert agent.stop() == 0
    assert manager.messages()[-1] == "STOPPING=1"


def test_a_reload_begins_and_ends_also_with_a_wrong_configuration(
    agent: Agent, manager: NotifySocket
) -> None:
    wait_until(lambda: manager.has("READY=1"), "the agent is ready")
    for text in (agent.config_path.read_text(), "wrong"):
        manager.forget()
        agent.config_path.write_text(text)
        agent.reload()
        wait_until(lambda: manager.has("READY=1"), "the reload is over")
        states = [each for each in manager.messages() if each.startswith(("RELOAD", "READY"))]
        assert [each.partition("=")[0] for each in states] == ["RELOADING", "READY"]


def test_a_stopped_agent_feeds_no_watchdog(agent: Agent, manager: NotifySocket) -> None:
    wait_until(lambda: manager.has("WATCHDOG=1", times=3), "the agent's pings")
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        state = Path(f"/proc/{agent.pid}/stat")
        wait_until(lambda: state.read_text().split()[2] == "T", "it is stopped")
        manager.forget()
        assert not pings_within(manager, 5 * WATCHDOG_S)
    finally:
        os.kill(agent.pid, signal.SIGCONT)
    wait_until(lambda: manager.has("WATCHDOG=1"), "pings go on")
