"""What NN-name.toml beside a plugin may say."""

import re
from pathlib import Path

import pytest

from edge_agent.config import (
    PERMISSIONS,
    Limits,
    PluginSettings,
    load_plugin_settings,
    pressure,
    read_policy,
)
from edge_agent.errors import ConfigError
from edge_agent.pb import nri_pb2

FILE = Path("/plugins/10-guard.toml")


def load(text: str, defaults: Limits | None = None) -> PluginSettings:
    return load_plugin_settings(FILE, text, defaults or Limits())


def test_empty_settings_are_the_defaults() -> None:
    assert load("") == PluginSettings()


def test_limits_lie_over_the_agents() -> None:
    agents = Limits(memory_bytes=1 << 20, deadline_ms=300)
    limits = load('[limits]\ndeadline = "50ms"', agents).limits
    assert limits == Limits(memory_bytes=1 << 20, deadline_ms=50)


def test_a_plugin_may_lift_the_agents_limit_of_fuel() -> None:
    assert load("[limits]\nfuel = 0", Limits(fuel=1000)).limits == Limits()
    assert load("", Limits(fuel=1000)).limits.fuel == 1000


def test_report_comes_from_the_agent_unless_set() -> None:
    assert load_plugin_settings(FILE, "", Limits(), "errors").report == "errors"
    assert load_plugin_settings(FILE, 'report = "changes"', Limits(), "errors").report == "changes"


def test_absent_permissions_mean_everything_and_an_empty_list_nothing() -> None:
    assert load("").permissions is None
    assert load("permissions = []").permissions == ()
    assert load('permissions = ["*"]').permissions is None


def test_a_parent_grants_all_below_it() -> None:
    granted = load('permissions = ["linux", "env"]').permissions
    assert granted == ("env", *(name for name in PERMISSIONS if name.startswith("linux.")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('permissions = ["lnux"]', '"lnux" is unknown; did you mean "linux"?'),
        ('permissions = ["linux.device"]', 'did you mean "linux.devices"?'),
        ('permissions = ["*", "env"]', '"*" is everything, so it stands alone'),
        ("permissions = [1]", "1 in it must be a string"),
        ('permissions = "env"', 'must be a list of 0 to 100 entries, not "env"'),
        ('failure_policy = "ignore"', 'must be one of "Fail", "Ignore", not "ignore"'),
        ("[limit]\n", "limit: unknown key; did you mean limits?"),
        ('[limits]\nreply = "5MiB"', "between 1KiB and 4MiB"),
    ],
)
def test_a_mistake_names_the_file_and_what_is_right(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert str(caught.value).startswith(f"{FILE}:1: ") or "[limits]" in text
    assert said in str(caught.value)


def test_permissions_name_every_field_of_an_adjustment() -> None:
    adjustment = [field.name.lower() for field in nri_pb2.ContainerAdjustment.DESCRIPTOR.fields]
    linux = [field.name for field in nri_pb2.LinuxContainerAdjustment.DESCRIPTOR.fields]
    expected = {name for name in adjustment if name != "linux"}
    expected |= {f"linux.{name}" for name in linux} | {"update", "evict"}
    assert set(PERMISSIONS) == expected


def test_runtimes_are_names_and_sockets() -> None:
    assert load("").runtimes is None
    text = 'runtimes = ["containerd", "cri-o", "docker", "/run/other/nri.sock"]'
    assert load(text).runtimes == ("containerd", "cri-o", "docker", "/run/other/nri.sock")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('["contianerd"]', 'did you mean "containerd"'),
        ('["run/nri.sock"]', "/the/path/of/its/socket"),
        ("[]", "must name one at least"),
        ('["docker", "docker"]', "names a runtime twice"),
        ('"docker"', "must be a list"),
        ("[1]", "must be a name or a path"),
        (f'["/{"x" * 107}"]', "107 bytes at most"),
    ],
)
def test_a_runtime_that_cannot_be_is_told(value: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"runtimes = {value}")
    assert "10-guard.toml:1: runtimes: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ('failure_policy = "Ignore"\nlimits = 1', "Ignore"),
        ('failure_policy = "Fail"\nlimits = 1', "Fail"),
        ("limits = 1", "Fail"),
        ('failure_policy = "ignore"', "Fail"),
        ("failure_policy = [[]]", "Fail"),
        ('failure_policy = "Ignore', "Fail"),
        ("[" * 10_000, "Fail"),
    ],
)
def test_the_policy_is_read_alone_and_is_fail_in_doubt(text: str, policy: str) -> None:
    assert read_policy(FILE, text).failure_policy == policy


def test_the_mode_is_to_enforce_unless_it_is_said() -> None:
    assert load("").instance == load('instance = "lasting"').instance == "lasting"
    assert load('instance = "per-event"').one_shot
    assert (load("").timer, load('timer = "90s"').timer) == (0.0, 90.0)
    assert load("").pressure == ()
    assert load("").mode == load('mode = "enforce"').mode == "enforce"
    assert load('mode = "monitor"').monitored
    assert not load('mode = "monitor"\nfailure_policy = "Fail"').must_not_be_missed
    assert load("").must_not_be_missed
    assert not load('failure_policy = "Ignore"').must_not_be_missed
    for wrong in ('"observe"', "true", '"Monitor"', "[]"):
        with pytest.raises(ConfigError, match=r"mode: must be one of \"enforce\", \"monitor\""):
            load(f"mode = {wrong}")
    with pytest.raises(ConfigError, match='did you mean "monitor"'):
        load('mode = "moniter"')


@pytest.mark.parametrize(
    ("text", "missed"),
    [
        ('mode = "monitor"\nlimits = 1', False),
        ('mode = "monitor"\nfailure_policy = "Fail"\nlimits = 1', False),
        ('mode = "moniter"', True),
        ('mode = "monitor', True),
    ],
)
def test_a_monitored_plugin_with_another_mistake_is_not_missed(text: str, missed: bool) -> None:
    assert read_policy(FILE, text).must_not_be_missed == missed


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('timer = "500ms"', "between"),
        ('timer = "2d"', "with its unit"),
        ("timer = 30", "with its unit"),
        ('pressure = "high"', "table"),
        ("pressure.memory = 20", "string"),
        ('pressure.memory = "20%"', "some 20% over 10s"),
        ('pressure.memory = "some 0% over 10s"', "above 0%"),
        ('pressure.memory = "full 100.01% over 10s"', "at most 100%"),
        ('pressure.memory = "some 20% over 15s"', "60s or 300s"),
        ('pressure.memory = "some -1% over 10s"', "some 20% over 10s"),
        ('pressure.memory = "some nan% over 10s"', "some 20% over 10s"),
        ('pressure.temperature = "80"', "80 C"),
        ('pressure.temperature = "80 F"', "80 C"),
        ('pressure.throttled = "no"', "left out"),
        ("pressure.throttled = true", "string"),
        ('pressure.disk = "var below 10%"', "/var/lib below 10%"),
        ('pressure.disk = "/var below"', "/var/lib below 10%"),
        ('pressure = { memory = "some 1% over 10s", every = "10ms" }', "1s to 24h"),
        ('pressure.every = "5s"', "without a threshold"),
        ('pressure.swap = "some 1% over 10s"', "is not known"),
    ],
)
def test_a_wrong_time_or_threshold_is_told_with_its_form(line: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)) as told:
        load(line)
    assert ":1:" in str(told.value) or "line 1" in str(told.value)


def test_thresholds_are_read() -> None:
    settings = load(
        """
        [pressure]
        memory = "some 20% over 10s"
        cpu = "some 99.5% over 300s"
        io = "full 5% over 60s"
        temperature = "80 C"
        throttled = "yes"
        disk = "/var/lib below 500MiB"
        every = "10s"
        """
    )
    assert settings.noticed
    assert pressure.read(settings.pressure) == (
        {"memory": (False, 2000, 10), "cpu": (False, 9950, 300), "io": (True, 500, 60)},
        80_000,
        True,
        ("/var/lib", None, 500 << 20),
        10.0,
    )
