"""validator: which adjustments a policy rejects, and what it says."""

import pytest
from google.protobuf.message import Message

from edge_agent.pb import nri_pb2

from .guest import PLUGINS, Guest, GuestError, capture, plugin

# memory 64Mi, cpu 512 shares and 50000/100000; no pids
CREATE = nri_pb2.CreateContainerRequest.FromString(capture("create_container"))
MI = 1 << 20
ACCEPTED = ""


def configured(text: str) -> Guest:
    guest = Guest(plugin("validator"))
    guest.configure(text)
    return guest


class Adjusted:
    """A request to validate, put together step by step."""

    def __init__(self) -> None:
        self.request = nri_pb2.ValidateContainerAdjustmentRequest(
            pod=CREATE.pod, container=CREATE.container
        )
        self.adjust = self.request.adjust
        # As the runtime sends it: an empty message where nothing was adjusted.
        self.adjust.hooks.SetInParent()
        self.adjust.linux.resources.memory.SetInParent()
        self.adjust.linux.resources.cpu.SetInParent()

    def owner(self, field: int, owner: str, name: str | None = None) -> "Adjusted":
        owners = self.request.owners.owners[CREATE.container.id]
        if name is None:
            owners.simple[field] = owner
        else:
            owners.compound[field].owners[name] = owner
        return self

    def mount(self, source: str, destination: str = "/mnt") -> "Adjusted":
        self.adjust.mounts.add(source=source, destination=destination, type="bind")
        return self

    def device(self, path: str, kind: str = "c", major: int = 1, minor: int = 3) -> "Adjusted":
        self.adjust.linux.devices.add(path=path, type=kind, major=major, minor=minor)
        return self

    def env(self, name: str) -> "Adjusted":
        self.adjust.env.add(key=name, value="x")
        return self

    def hook(self) -> "Adjusted":
        self.adjust.hooks.prestart.add(path="/bin/hook")
        return self

    def memory(self, limit: int) -> "Adjusted":
        self.adjust.linux.resources.memory.limit.value = limit
        return self

    def cpu(self, quota: int, period: int | None = None) -> "Adjusted":
        self.adjust.linux.resources.cpu.quota.value = quota
        if period is not None:
            self.adjust.linux.resources.cpu.period.value = period
        return self

    def shares(self, shares: int) -> "Adjusted":
        self.adjust.linux.resources.cpu.shares.value = shares
        return self

    def pids(self, limit: int) -> "Adjusted":
        self.adjust.linux.resources.pids.limit = limit
        return self

    def update(self, container: str, memory: int) -> "Adjusted":
        update = self.request.update.add(container_id=container)
        update.linux.resources.memory.limit.value = memory
        return self

    def plugin(self, index: str, name: str) -> "Adjusted":
        self.request.plugins.add(index=index, name=name)
        return self


def ask(guest: Guest, request: Message) -> str:
    """Why it was rejected; empty if it was not."""
    kind = nri_pb2.ValidateContainerAdjustmentResponse
    reply = guest.ask("validate_container_adjustment", request, kind)
    assert reply.reject == bool(reply.reason)
    return reply.reason


def verdict(text: str, adjusted: Adjusted) -> str:
    return ask(configured(text), adjusted.request)


def test_without_rules_or_adjustments_all_is_accepted() -> None:
    everything = Adjusted().mount("/").device("/dev/sda", "b", 8, 0).env("LD_PRELOAD").hook()
    assert verdict("", everything) == ACCEPTED
    guest = configured((PLUGINS / "validator" / "validator.conf").read_text())
    assert ask(guest, Adjusted().request) == ACCEPTED
    assert guest.call("validate_container_adjustment", b"") == b""
    assert guest.lines == []


@pytest.mark.parametrize(
    ("rule", "source", "rejected"),
    [
        ("deny mount /etc", "/etc", True),
        ("deny mount /etc", "/etc/shadow", True),
        ("deny mount /etc/", "/etc/ssl/certs/", True),
        ("deny mount /etc", "/etcetera", False),
        ("deny mount /etc", "/srv", False),
        ("deny mount /etc", "/srv/../etc", True),
        ("deny mount /etc", "//./etc/.", True),
        ("deny mount /etc", "/../../etc", True),
        ("deny mount /etc", "/", True),  # brings /etc along
        ("deny mount /var/lib/kubelet", "/var/lib", True),
        ("deny mount /var/lib/kubelet", "/var/li", False),
        ("deny mount /home/*/.ssh", "/home/pi/.ssh/id", True),
        ("deny mount /home/*/.ssh", "/home/a/b/.sshd/.ssh", True),
        ("deny mount /home/*/.ssh", "/home/pi/.sshd", False),
        ("deny mount */secret", "/srv/secret/x/y", True),
        ("deny mount /home/?", "/home/a/b", True),
        ("deny mount /home/?", "/home/ab", False),
        ("deny mount /home/*/.ssh", "/home/pi", False),
        ("deny mount /", "/anything", True),
        ("deny mount *", "tmpfs", True),
        ("deny mount /", "tmpfs", False),
        ("allow mount /etc/hosts\ndeny mount /etc", "/etc/hosts", False),
        ("allow mount /srv/a\ndeny mount /", "/srv", True),  # allowed is not what is above
        ("deny mount-at /proc", "/srv", False),
    ],
)
def test_mounts_by_source(rule: str, source: str, rejected: bool) -> None:
    assert bool(verdict(rule, Adjusted().mount(source))) is rejected


@pytest.mark.parametrize(
    ("destination", "rejected"),
    [("/proc", True), ("/proc/sys", True), ("/x/../proc", True), ("-/proc", True), ("/", False)],
)
def test_mounts_by_destination(destination: str, rejected: bool) -> None:
    adjusted = Adjusted().mount("/srv", destination)
    assert bool(verdict("deny mount-at /proc", adjusted)) is rejected


@pytest.mark.parametrize(
    ("rules", "rejected"),
    [
        ("deny device *", True),
        ("allow device /dev/gpio*\ndeny device *", False),
        ("deny device b *:* *", False),
        ("deny device c 254:* *", True),
        ("deny device c 25:* *", False),
        ("allow device c 254:0 /dev/gpiochip?\ndeny device *", False),
        ("allow device c 254:1 /dev/gpiochip?\ndeny device *", True),
        ("deny device ? *:* /dev/gpio*", True),
    ],
)
def test_devices(rules: str, rejected: bool) -> None:
    adjusted = Adjusted().device("/dev/gpiochip0", "c", 254, 0)
    assert bool(verdict(rules, adjusted)) is rejected


def test_a_name_that_is_longer_than_any_path_is_denied() -> None:
    adjusted = Adjusted().mount("/" + "a" * 4096)
    assert verdict("deny mount /etc", adjusted) == "mount name of 4097 bytes is denied"
    assert verdict("deny env *", adjusted) == ACCEPTED


def test_a_removed_device_is_no_device() -> None:
    assert verdict("deny device *", Adjusted().device("-/dev/null")) == ACCEPTED


def test_every_other_subject() -> None:
    adjusted = Adjusted()
    adjusted.adjust.annotations["io.kubernetes.cri.x"] = "1"
    adjusted.adjust.linux.sysctl["kernel.shm_rmid_forced"] = "1"
    adjusted.adjust.linux.namespaces.add(type="network", path="/proc/1/ns/net")
    adjusted.adjust.CDI_devices.add(name="vendor.com/gpu=0")
    adjusted.adjust.rlimits.add(type="RLIMIT_NOFILE", hard=1, soft=1)
    adjusted.adjust.args.append("sh")
    adjusted.adjust.linux.seccomp_policy.default_action = "SCMP_ACT_ALLOW"
    adjusted.env("LD_PRELOAD").hook()
    for rule, says in [
        ("deny annotation io.kubernetes.*", "annotation io.kubernetes.cri.x is denied"),
        ("deny sysctl kernel.*", "sysctl kernel.shm_rmid_forced is denied"),
        ("deny namespace network", "namespace network is denied"),
        ("deny cdi-device vendor.com/*", "cdi-device vendor.com/gpu=0 is denied"),
        ("deny rlimit *", "rlimit RLIMIT_NOFILE is denied"),
        ("deny args", "args is denied"),
        ("deny seccomp", "seccomp is denied"),
        ("deny hooks", "hooks is denied"),
        ("deny env LD_*", "env LD_PRELOAD is denied"),
    ]:
        assert verdict(rule, adjusted) == f"{says}, by the rule in line 1 ({rule})"
        assert verdict(rule.replace("deny", "allow") + "\n" + rule, adjusted) == ACCEPTED
        assert verdict(rule, Adjusted()) == ACCEPTED


def test_what_is_removed_is_adjusted_too() -> None:
    assert verdict("deny env LD_*", Adjusted().env("-LD_PRELOAD"))


# ---- limits ----


@pytest.mark.parametrize(
    ("rule", "adjusted", "says"),
    [
        ("limit memory 512Mi", Adjusted().memory(512 * MI), ACCEPTED),
        ("limit memory 512Mi", Adjusted().memory(513 * MI), "memory limit 537919488 is too high"),
        ("limit memory 512Mi", Adjusted().memory(-1), "memory limit removed"),
        ("limit memory 512Mi", Adjusted().memory(0), "memory limit removed"),
        ("limit memory 32Mi", Adjusted().memory(64 * MI), ACCEPTED),  # no more than it had
        ("limit memory 32Mi", Adjusted().memory(48 * MI), ACCEPTED),
        ("limit memory 32Mi", Adjusted().memory(65 * MI), "memory limit 68157440 is too high"),
        ("limit cpu 2", Adjusted().cpu(200000), ACCEPTED),
        ("limit cpu 2", Adjusted().cpu(200001), "cpu limit 2001m is too high"),
        ("limit cpu 2", Adjusted().cpu(200000, 50000), "cpu limit 4000m is too high"),
        ("limit cpu 2", Adjusted().cpu(-1), "cpu limit removed"),
        ("limit shares 1024", Adjusted().shares(1024), ACCEPTED),
        ("limit shares 1024", Adjusted().shares(2000), "shares limit 2000 is too high"),
        ("limit pids 64", Adjusted().pids(64), ACCEPTED),
        ("limit pids 64", Adjusted().pids(65), ACCEPTED),  # it had none: this lowers it
        ("limit pids 64", Adjusted().pids(-1), ACCEPTED),
    ],
)
def test_limits(rule: str, adjusted: Adjusted, says: str) -> None:
    assert verdict(rule, adjusted) == (f"{says}, by the rule in line 1 ({rule})" if says else "")


def test_a_limit_that_was_there_may_not_be_raised() -> None:
    adjusted = Adjusted().pids(65)
    adjusted.request.container.linux.resources.pids.limit = 10
    assert verdict("limit pids 64", adjusted).startswith("pids limit 65 is too high")


def test_updates_of_other_containers_are_held_to_the_limits() -> None:
    adjusted = Adjusted().update("other", 65 * MI)
    adjusted.request.owners.owners["other"].simple[nri_pb2.MemLimit] = "20-greedy"
    assert verdict("limit memory 64Mi", adjusted) == (
        "memory limit 68157440 is too high, by the rule in line 1 (limit memory 64Mi), "
        "wanted by plugin 20-greedy, for container other"
    )


# ---- plugins ----


def test_the_reason_names_the_owner() -> None:
    for adjusted, rule in [
        (Adjusted().mount("/etc").owner(nri_pb2.Mounts, "10-m", "/mnt"), "deny mount /etc"),
        (
            Adjusted().mount("/etc", "/x/../m").owner(nri_pb2.Mounts, "10-m", "/x/../m"),
            "deny mount-at /m",
        ),
        (Adjusted().device("/dev/a").owner(nri_pb2.Devices, "10-m", "/dev/a"), "deny device *"),
        (Adjusted().env("A").owner(nri_pb2.Env, "10-m", "A"), "deny env A"),
        (Adjusted().env("-A").owner(nri_pb2.Env, "-10-m", "A"), "deny env A"),
        (Adjusted().hook().owner(nri_pb2.OciHooks, "10-m"), "deny hooks"),
        (Adjusted().memory(65 * MI).owner(nri_pb2.MemLimit, "10-m"), "limit memory 1"),
        (Adjusted().cpu(100000).owner(nri_pb2.CPUQuota, "10-m"), "limit cpu 0.5"),
    ]:
        assert verdict(rule, adjusted).endswith(", wanted by plugin 10-m")


@pytest.mark.parametrize(
    ("rules", "owners", "rejected"),
    [
        ("deny hooks from 10-*", "10-a", True),
        ("deny hooks from 10-*", "20-b", False),
        ("deny hooks from 10-*", "20-b,10-a", True),
        ("deny hooks from 10-*", None, False),
        ("allow hooks from 10-a\ndeny hooks", "10-a", False),
        ("allow hooks from 10-a\ndeny hooks", "10-a,20-b", True),
        ("allow hooks from 10-a\ndeny hooks", None, True),
    ],
)
def test_rules_for_plugins(rules: str, owners: str | None, rejected: bool) -> None:
    adjusted = Adjusted().hook()
    if owners:
        adjusted.owner(nri_pb2.OciHooks, owners)
    assert bool(verdict(rules, adjusted)) is rejected


def test_required_plugins() -> None:
    adjusted = Adjusted().plugin("10", "guard").plugin("90", "validator")
    for present in ("guard", "10-guard", "*-guard"):
        assert verdict(f"require plugin {present}", adjusted) == ACCEPTED
    rule = "require plugin 20-guard"
    assert verdict(rule, adjusted) == (
        f"plugin 20-guard is not there, by the rule in line 1 ({rule})"
    )


# ---- configuration ----


def test_the_sample_configuration() -> None:
    guest = configured((PLUGINS / "validator" / "validator.conf").read_text())
    for adjusted, says in [
        (Adjusted().device("/dev/i2c-1", "c", 89, 1).env("A").memory(1 << 30), ACCEPTED),
        (Adjusted().device("/dev/i2c-1", "b", 8, 0), "device /dev/i2c-1 (b 8:0) is denied"),
        (Adjusted().device("/dev/mem"), "device /dev/mem (c 1:3) is denied"),
        (Adjusted().mount("/root/.ssh"), "mount /root/.ssh is denied"),
        (Adjusted().cpu(500000), "cpu limit 5000m is too high"),
    ]:
        assert ask(guest, adjusted.request).split(", by")[0] == says
    assert len(guest.lines) == 4
    assert guest.lines[0].startswith("pod-0/main rejected: device /dev/i2c-1 (b 8:0) is denied")


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ("refuse hooks", "line 1: a rule begins with allow, deny, limit or require, not refuse"),
        ("\ndeny files *", "line 2: deny what? files is none of mount mount-at device env"),
        ("deny", "line 1: deny what?  is none of mount"),
        ("deny memory 1Gi", "line 1: deny what? memory is none of"),
        ("limit mount /", "line 1: limit what? mount is none of memory cpu shares pids"),
        ("require hooks", "line 1: require what? hooks is none of plugin"),
        ("deny env", "line 1: deny env wants a pattern; * stands for all"),
        ("limit cpu", "line 1: limit cpu wants an amount, such as 512Mi or 2"),
        ("limit cpu 2Gi", "line 1: 2Gi is no amount of cpu"),
        ("require plugin", "line 1: require plugin wants a plugin's name"),
        ("deny hooks *", "line 1: the rule should end after hooks"),
        ("deny env A B", "line 1: the rule should end after env and its pattern"),
        ("deny env A from", "line 1: the rule should end after env and its pattern"),
        ("deny env A from b c", "line 1: the rule should end after env and its pattern"),
        ("require plugin a from b", "line 1: the rule should end after plugin"),
        ("deny device c 1:3", "line 1: deny device wants a pattern"),
        ("deny hooks\n" * 129, "line 129: more than 128 rules"),
    ],
)
def test_wrong_rules_fail_configure(rules: str, says: str) -> None:
    with pytest.raises(GuestError) as caught:
        configured(rules)
    assert str(caught.value).startswith(says)
