"""rules: the language, its order and conflicts, and what is wrong with a configuration."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.pb import nri_pb2
from edge_agent.wasm.imports import MAX_KIND_BYTES

from .guest import Guest, GuestError, capture, plugin
from .messages import told

# memory 64Mi, cpu 512 shares and 50000/100000; no pids; image localhost/busybox:1
CREATE = nri_pb2.CreateContainerRequest.FromString(capture("create_container"))
MI = 1 << 20
YES = "- rule: r\n  deny: it fits\n  when: "


def configured(text: str) -> Guest:
    guest = Guest(plugin("rules"))
    guest.configure(text)
    return guest


def request(
    namespace: str = "default",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    env: Sequence[str] | None = None,
    args: Sequence[str] | None = None,
    image: str = "",
) -> nri_pb2.CreateContainerRequest:
    made = nri_pb2.CreateContainerRequest()
    made.CopyFrom(CREATE)
    made.pod.namespace = namespace
    made.pod.labels.update(labels or {})
    made.pod.annotations.update(annotations or {})
    if env is not None:
        made.container.env[:] = env
    if args is not None:
        made.container.args[:] = args
    if image:
        made.container.image.name = image
    return made


def adjusted(text: str, of: nri_pb2.CreateContainerRequest = CREATE) -> nri_pb2.ContainerAdjustment:
    return configured(text).create(of).adjust


def fits(when: str, of: nri_pb2.CreateContainerRequest = CREATE) -> bool:
    """Whether a rule with these conditions fits; GuestError when it cannot be decided."""
    try:
        configured(YES + when).create(of)
    except GuestError as error:
        if str(error) == "it fits (rule r, line 1)":
            return True
        raise
    return False


# ---- conditions ----


@pytest.mark.parametrize(
    ("when", "is_so"),
    [
        ("{}", True),
        ("{namespace: default}", True),
        ("{namespace: [kube-*, def*]}", True),
        ("{namespace: def}", False),
        ("{namespace: 'default '}", False),
        ("{pod: pod-0, container: main}", True),
        ("{pod: pod-0, container: other}", False),
        ("{label: {app: bed}}", True),
        ("{label: {app: '*', tier: '*'}}", False),
        ("{label: {'*': b?d}}", True),
        ("{runtime: test}", True),
        ("{runtime-handler: ''}", True),
        ("{container-annotation: {example.com/c: '*'}}", True),
        ("{annotation: {example.com/c: '*'}}", False),
        ("{env: {FOO: bar}}", True),
        ("{env: {FOO: ba}}", False),
        ("{env: {F*: '*r'}}", True),
        ("{argv: [/bin/sh, -c, '*']}", True),
        ("{argv: [/bin/sh, ...]}", True),
        ("{argv: [/bin/sh, -c, '*', ...]}", True),
        ("{argv: [/bin/sh, -c]}", False),
        ("{argv: [/bin/sh, -c, '*', '*']}", False),
        ("{any-arg: '*sleep*'}", True),
        ("{any-arg: sleep}", False),
        ("{mount: /dev/shm}", True),
        ("{mount-source: '*/hosts'}", True),
        ("{image: busybox}", False),
        ("{image: localhost/busybox}", True),
        ("{memory: any}", True),
        ("{memory: none}", False),
        ("{memory: over 63Mi}", True),
        ("{memory: over 64Mi}", False),
        ("{memory: under 65Mi}", True),
        ("{memory: [under 1Mi, over 1Mi]}", True),
        ("{cpu: under 501m}", True),
        ("{cpu: over 0.5}", False),
        ("{pids: none}", True),
        ("{pids: over 1000}", True),  # of what is unlimited
        ("{shares: under 513}", True),
    ],
)
def test_conditions(when: str, is_so: bool) -> None:
    labelled = request(labels={"app": "bed"})
    assert fits(when, labelled) is is_so


def test_all_of_when_and_none_of_unless() -> None:
    for when, unless, refused in [
        ("{namespace: default, pod: pod-0}", "{}", True),
        ("{namespace: default, pod: other}", "{}", False),
        ("{namespace: default}", "{pod: other}", True),
        ("{namespace: default}", "{pod: other, container: main}", False),
    ]:
        guest = configured(f"- rule: r\n  when: {when}\n  unless: {unless}\n  deny: no")
        if refused:
            with pytest.raises(GuestError, match="no"):
                guest.create(CREATE)
        else:
            guest.create(CREATE)


# ---- patterns ----


@given(st.text("ab*?\u00e9", max_size=8), st.text("ab\u00e9", max_size=12))
def test_globs_match_as_regular_expressions_say(pattern: str, text: str) -> None:
    translated = "".join({"*": ".*", "?": "."}.get(char, char) for char in pattern)
    expected = re.fullmatch(translated, text, re.DOTALL) is not None
    assert fits(f"{{namespace: {json.dumps(pattern)}}}", request(text)) is expected


EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "\\w", "\u00e9"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "{0}"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
    ),
    max_leaves=6,
)


@contextmanager
def suppress_too_large() -> Iterator[None]:
    """Nested {m,n} may be."""
    try:
        yield
    except GuestError as error:
        if "it becomes too large" not in str(error):
            raise


@given(EXPRESSIONS, st.text("ab\u00e9-", max_size=8))
def test_regular_expressions_match_as_pythons_do(expression: str, text: str) -> None:
    expected = re.fullmatch(expression, text, re.DOTALL | re.ASCII) is not None
    with suppress_too_large():
        assert fits(f"{{namespace: {json.dumps('re:' + expression)}}}", request(text)) is expected


@pytest.mark.parametrize(
    ("expression", "text", "is_so"),
    [
        ("^ab$", "ab", True),
        ("a|b|c", "c", True),
        ("a|b|", "", True),
        ("(?i)Web-[a-c]", "wEB-B", True),
        ("(?i)[^a]", "A", False),
        (r"\d{2,3}\.\x41", "123.A", True),
        (r"[\]\-\\x-z]+", "]-\\y", True),
        (r"[\D]+", "ab", True),
        (r"[\D]+", "a1", False),
        (r"\S\s\W", "a -", True),
        ("(a*)*b", "a" * 40 + "b", True),
        ("(a*)*b", "a" * 40, False),
        ("a{3}", "aaaa", False),
        ("x{0}y", "y", True),
        (".", "\n", True),
    ],
)
def test_regular_expressions(expression: str, text: str, is_so: bool) -> None:
    assert fits(f"{{namespace: {json.dumps('re:' + expression)}}}", request(text)) is is_so


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("a{256}", "at most 255 repetitions"),
        ("(a{255}){255}", "it becomes too large; at most 512 steps"),
        ("a{2,1}", "the repetition is upside down"),
        ("a{x}", "wanted is {m}, {m,} or {m,n}"),
        ("a{3", "wanted is {m}, {m,} or {m,n}"),
        ("a{3,", "wanted is {m}, {m,} or {m,n}"),
        ("(a{3,4", "wanted is {m}, {m,} or {m,n}"),
        ("a**", "a repetition of a repetition"),
        ("*a", "nothing is there to be repeated"),
        ("(a", "a ) is missing"),
        ("a)", "a ) without its ("),
        ("(" * 17 + "a" + ")" * 17, "groups deeper than 16"),
        ("(?=a)", "of (?...) only (?:...) is understood"),
        ("(?P<x>a)", "of (?...) only (?:...) is understood"),
        ("a^b", "^ and $ stand at the ends only"),
        (r"(a)\1", "this escape is not understood"),
        (r"\pL", "this escape is not understood"),
        ("a\\", "it ends with a backslash"),
        ("[a", "the class is not closed by ]"),
        ("[]", "an empty class"),
        ("[[a]]", "a [ in a class is written \\["),
        ("[z-a]", "the range is upside down"),
    ],
)
def test_expressions_that_are_wrong_or_too_large_are_refused(expression: str, says: str) -> None:
    with pytest.raises(GuestError) as caught:
        configured(YES + f"{{pod: {json.dumps('re:' + expression)}}}")
    assert re.match(r"line 3, column 15: the regular expression, behind ", str(caught.value))
    assert says in str(caught.value)


def test_all_expressions_together_are_bounded() -> None:
    many = "".join(f"- rule: r{i}\n  log: x\n  when: {{pod: 're:a{{200}}'}}\n" for i in range(30))
    with pytest.raises(GuestError, match="too large together; at most 4096 steps"):
        configured(many)


# ---- order and conflicts ----


def test_the_later_rule_decides_thing_by_thing() -> None:
    adjust = adjusted("""
- rule: first
  set: {memory: 100Mi, env: {A: "1", B: "1"}}
- rule: second
  set: {pids: 7, env: {B: "2"}}
  add: {devices: [{path: /dev/a, type: c, major: 1, minor: 3}]}
- rule: does not fit
  when: {pod: other}
  set: {memory: 1Mi, env: {A: "3"}}
- rule: third
  add: {devices: [{path: /dev/a, type: c, major: 1, minor: 5}]}
""")
    assert adjust.linux.resources.memory.limit.value == 100 * MI
    assert adjust.linux.resources.pids.limit == 7
    assert {pair.key: pair.value for pair in adjust.env} == {"A": "1", "B": "2"}
    assert [device.minor for device in adjust.linux.devices] == [5]


def test_set_then_default_then_cap_wherever_they_stand() -> None:
    resources = adjusted("""
- rule: caps
  cap: {memory: 50Mi, pids: 20, cpu: 0.25}
- rule: values
  set: {memory: 80Mi}
  default: {pids: 30, cpu: 0.1}
""").linux.resources
    assert resources.memory.limit.value == 50 * MI
    assert resources.pids.limit == 20
    assert resources.cpu.quota.value == 25000  # it had 0.5: lowered, and no default


def test_none_takes_back() -> None:
    text = "- rule: a\n  set: {memory: 1Gi}\n  deny: no\n- rule: b\n  when: {namespace: %s}\n"
    text += "  set: {memory: none}\n  deny: none\n"
    assert adjusted(text % "default") == nri_pb2.ContainerAdjustment()
    with pytest.raises(GuestError, match=re.escape("no (rule a, line 1)")):
        adjusted(text % "other")


def test_defaults_are_for_what_is_not_there() -> None:
    adjust = adjusted("""
- rule: r
  default: {env: {FOO: mine, NEW: mine}, annotations: {example.com/c: mine, new: mine}}
""")
    assert [(pair.key, pair.value) for pair in adjust.env] == [("NEW", "mine")]
    assert dict(adjust.annotations) == {"new": "mine"}


def test_removing_takes_what_the_container_has_and_what_earlier_rules_gave() -> None:
    adjust = adjusted(
        """
- rule: gives
  set: {env: {LD_A: "1", LD_B: "1"}}
- rule: takes
  remove: {env: ["LD_*", FOO], mounts: /dev/shm, annotations: example.com/*}
- rule: gives again
  set: {env: {LD_B: "2"}}
""",
        request(env=["FOO=bar", "LD_PRELOAD=x", "LD_A=0", "PATH=/bin"]),
    )
    # A runtime takes no removal of a variable alone.
    assert [(pair.key, pair.value) for pair in adjust.env] == [
        *(("-LD_A", ""), ("LD_A", ""), ("LD_B", "2")),
        *(("-FOO", ""), ("FOO", ""), ("-LD_PRELOAD", ""), ("LD_PRELOAD", "")),
    ]
    assert [mount.destination for mount in adjust.mounts] == ["-/dev/shm"]
    assert set(adjust.annotations) == {"-example.com/c"}


def test_everything_that_can_be_given() -> None:
    adjust = adjusted("""
- rule: r
  set:
    cpus: "0-1,3"
    mems: "0"
    oom-score-adj: -17
    blockio-class: slow
    rdt-class: gold
    args: [/bin/true, ""]
    annotations: {a: "$(namespace)/$(pod)/$(container) $(image) $(label none)$ $(annotation b)"}
    sysctl: {net.core.somaxconn: "1024"}
    unified: {memory.high: "1000"}
    rlimits: {nofile: "1:2", core: unlimited}
    net-devices: {eth1: lan0}
  add:
    mounts:
      - {source: /a, destination: /b, type: bind, options: [ro, rbind]}
    devices: [{path: /dev/x, type: b, major: 8, minor: 1, file_mode: 0640, uid: 1, gid: 2}]
    cdi-devices: [v/c=n]
""")
    want = nri_pb2.ContainerAdjustment(
        annotations={"a": "default/pod-0/main localhost/busybox:1 $ "},
        args=["/bin/true", ""],
    )
    want.mounts.add(source="/a", destination="/b", type="bind", options=["ro", "rbind"])
    want.rlimits.add(type="RLIMIT_NOFILE", soft=1, hard=2)
    want.rlimits.add(type="RLIMIT_CORE", soft=2**64 - 1, hard=2**64 - 1)
    want.CDI_devices.add(name="v/c=n")
    linux = want.linux
    linux.resources.cpu.cpus = "0-1,3"
    linux.resources.cpu.mems = "0"
    linux.resources.blockio_class.value = "slow"
    linux.resources.rdt_class.value = "gold"
    linux.resources.unified["memory.high"] = "1000"
    linux.oom_score_adj.value = -17
    linux.sysctl["net.core.somaxconn"] = "1024"
    linux.net_devices["eth1"].name = "lan0"
    device = linux.devices.add(path="/dev/x", type="b", major=8, minor=1)
    device.file_mode.value, device.uid.value, device.gid.value = 0o640, 1, 2
    assert adjust == want


def _device(**numbers: str) -> str:
    given = {"path": "/dev/x", "type": "c", "major": "1", "minor": "3", **numbers}
    device = ", ".join(f"{key}: {value}" for key, value in given.items())
    return f"- rule: r\n  add: {{devices: [{{{device}}}]}}"


@pytest.mark.parametrize(
    ("mode", "bits"),
    [("0660", 0o660), ("0o660", 0o660), ('"0660"', 0o660), ("04755", 0o4755), ("0", 0)],
)
def test_a_mode_is_octal_with_a_zero_in_front(mode: str, bits: int) -> None:
    (device,) = adjusted(_device(file_mode=mode)).linux.devices
    assert device.file_mode.value == bits


@pytest.mark.parametrize(
    "mode", ["660", "432", '"660"', "0x1b0", "0668", "010000", "0o", "-1", "rw"]
)
def test_a_mode_that_others_may_read_otherwise_is_refused(mode: str) -> None:
    with pytest.raises(GuestError, match=r"^line 2, column [0-9]+: file_mode is .*such as 0660$"):
        configured(_device(file_mode=mode))


@pytest.mark.parametrize("key", ["major", "minor", "uid", "gid"])
def test_other_numbers_of_devices_are_decimal(key: str) -> None:
    for number in ("010", "0x1", "4294967296", "-1"):
        with pytest.raises(
            GuestError, match=f"^line 2, column [0-9]+: {key} is {number}, not a dec"
        ):
            configured(_device(**{key: number}))


def test_the_longest_name_of_a_rule_may_be_reported() -> None:
    name = "\u00e9" * (MAX_KIND_BYTES // 2)
    guest = configured(f"- rule: {name}\n  report: x")
    guest.create(CREATE)
    assert [report.kind for report in guest.reports] == [name]
    with pytest.raises(
        GuestError, match="line 1, column 9: the rule's name has 65 bytes, at most 64"
    ):
        configured(f"- rule: {name}x\n  report: x")


def test_what_was_done_is_logged_with_its_rule() -> None:
    guest = configured("""
- rule: r
  set: {env: {A: x}, cpus: "0", pids: 5}
  remove: {env: FOO}
  log: "seen in $(namespace)"
  report: "of $(image)"
""")
    guest.create(CREATE)
    assert guest.lines == [
        "pod-0/main: seen in default (rule r)",
        "pod-0/main: env FOO removed (rule r)",
        "pod-0/main: env A given (rule r)",
        "pod-0/main: cpus 0 set (rule r)",
        "pod-0/main: pids set to 5 (rule r)",
    ]
    (report,) = guest.reports
    assert (report.kind, report.payload) == ("r", b"pod-0/main: of localhost/busybox:1")


# ---- events ----


def test_an_update_is_held_to_set_and_cap_and_to_nothing_else() -> None:
    guest = configured("""
- rule: r
  cap: {memory: 1Mi}
  set: {pids: 5, env: {A: x}}
  deny: no
""")
    update = nri_pb2.UpdateContainerRequest(pod=CREATE.pod, container=CREATE.container)
    update.linux_resources.memory.limit.value = 2 * MI
    update.linux_resources.pids.limit = 9
    (got,) = guest.ask("update_container", update, nri_pb2.UpdateContainerResponse).update
    want = nri_pb2.LinuxResources(pids=nri_pb2.LinuxPids(limit=5))
    want.memory.limit.value = MI
    assert (got.container_id, got.linux.resources) == (CREATE.container.id, want)


def test_a_rule_may_refuse_updates() -> None:
    guest = configured("- rule: r\n  on: update_container\n  when: {memory: over 1Gi}\n  deny: no")
    assert guest.create(CREATE) == nri_pb2.CreateContainerResponse()
    update = nri_pb2.UpdateContainerRequest(pod=CREATE.pod, container=CREATE.container)
    guest.ask("update_container", update, nri_pb2.UpdateContainerResponse)  # it has 64 Mi
    update.linux_resources.memory.limit.value = 2048 * MI
    with pytest.raises(GuestError, match="no"):
        guest.call("update_container", update.SerializeToString())


EVENTS = {
    name.lower(): 1 << number - 1
    for name, number in nri_pb2.Event.items()
    if nri_pb2.UNKNOWN < number < nri_pb2.LAST
}


@pytest.mark.parametrize("event", sorted(EVENTS))
def test_each_event_is_subscribed_to_by_its_rule_and_told(event: str) -> None:
    guest = Guest(plugin("rules"))
    assert guest.configure(f"- rule: r\n  on: [{event}]\n  log: seen") == EVENTS[event]
    guest.call(event, CREATE.SerializeToString())
    who = "pod-0" if "pod_sandbox" in event else "pod-0/main"
    assert guest.lines == [f"{who}: seen (rule r)"]
    guest.configure("- rule: r\n  log: seen")
    if event != "create_container":
        guest.call(event, CREATE.SerializeToString())
        assert len(guest.lines) == 1


def test_events_of_older_runtimes_come_through_state_change() -> None:
    guest = configured("- rule: r\n  on: [run_pod_sandbox, start_container]\n  deny: no")
    for event in (nri_pb2.RUN_POD_SANDBOX, nri_pb2.START_CONTAINER):
        told = nri_pb2.StateChangeEvent(event=event, pod=CREATE.pod, container=CREATE.container)
        with pytest.raises(GuestError, match="no"):
            guest.call("state_change", told.SerializeToString())
    told.event = nri_pb2.REMOVE_CONTAINER
    assert guest.call("state_change", told.SerializeToString()) == b""


def test_a_validator_answers_with_a_verdict() -> None:
    guest = configured("- rule: r\n  on: validate_container_adjustment\n  deny: no")
    asked = nri_pb2.ValidateContainerAdjustmentRequest(pod=CREATE.pod, container=CREATE.container)
    kind = nri_pb2.ValidateContainerAdjustmentResponse
    assert guest.ask("validate_container_adjustment", asked, kind) == kind(
        reject=True, reason="no (rule r, line 1)"
    )


def test_without_rules_creations_alone_are_subscribed_to_and_pass() -> None:
    for text in ("", "# nothing yet\n", "---\n", "[]"):
        guest = Guest(plugin("rules"))
        assert guest.configure(text) == EVENTS["create_container"]  # 0 would be all events
        assert guest.call("create_container", capture("create_container")) == b""


# ---- the text ----


@pytest.mark.parametrize(
    "text",
    [
        "- rule: a b\n  set:\n    env:\n      K: v\n",
        "-   rule: 'a b'\r\n    set: {env: {K: v}}\r\n",
        '[{"rule":"a b","set":{"env":{"K":"v"}}}]',
        "---\n# x\n- rule: a b # c\n  set:\n\n    # d\n    env: {\n      K: v,\n    }\n",
        "-\n  rule: a b\n  set: {env: {'K': \"\\x76\"}}",
        "\ufeff- {rule: a b, set: {env: {K: v}}}",
    ],
)
def test_styles_of_the_same_rule(text: str) -> None:
    guest = configured(text)
    assert [(pair.key, pair.value) for pair in guest.create(CREATE).adjust.env] == [("K", "v")]
    assert guest.lines == ["pod-0/main: env K given (rule a b)"]


@given(st.text(max_size=20).filter(lambda text: text and "$" not in text and "\0" not in text))
def test_any_text_in_quotes_is_what_it_says(text: str) -> None:
    pieces = json.dumps(text, ensure_ascii=True)
    try:
        pieces.encode().decode("unicode_escape").encode("utf-8")
        text.encode()
    except UnicodeEncodeError:
        return  # surrogates: not in any message
    if any(ord(char) > 0xFFFF or char in "\b\f" for char in text):
        return  # JSON writes them as what is refused here
    adjust = adjusted(f"- rule: r\n  set: {{env: {{K: {pieces}}}}}")
    assert adjust.env[0].value == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rule: x", "line 1, column 1: a list of rules is wanted"),
        ("- x", "line 1, column 3: this wants `rule: NAME` and what belongs to it"),
        ("- set: {pids: 1}", "line 1, column 3: the rule has no name"),
        ("- rule: a\n  sett: 1", "line 2, column 3: unknown key sett; known are rule on when"),
        ("- rule: a\n  rule: b", "line 2, column 3: rule is given twice, first in line 1"),
        (
            "- rule: a\n  log: x\n- rule: a\n  log: x",
            "line 3, column 9: two rules have the name a, the first in li",
        ),
        (f"- rule: {'x' * 65}\n  log: y", "line 1, column 9: the rule's name has 65 bytes, at mo"),
        ("- rule: a", "line 1, column 3: the rule does nothing: none of set default cap add rem"),
        (
            "- rule: a\n  on: create_container\n  when: {pod: x}\n  unknown: skip",
            "line 1, column 3: the rule does nothing",
        ),
        ("- rule: a\n  set:", "line 2, column 3: a value is missing for set"),
        ("- rule: a\n  set:\n  cap: {pids: 1}", "line 2, column 3: a value is missing for set"),
        ("- rule: a\n  set: {}", "line 2, column 8: set is empty"),
        ("- rule: a\n set: x", "line 2, column 2: the indentation fits nothing above"),
        ("- rule: a\n   set: x", "line 2, column 4: the indentation fits nothing above"),
        ("  - rule: a\n- rule: b", "line 2, column 1: the indentation fits nothing above"),
        ("- rule: a\n\tset: x", "line 2, column 1: a tab; YAML indents with blanks"),
        ("- rule: \x07", "line 1, column 9: a control character (7)"),
        ("- rule: 'a", "line 1, column 11: the quote is not closed in this line"),
        ('- rule: "\\q"', "line 1, column 12: this escape is not understood"),
        ('- rule: "\\x00"', "line 1, column 12: this escape is not understood"),
        ("- rule: 'a' b", "line 1, column 13: the line goes on where it should end"),
        ("- rule: 'a'b", "line 1, column 12: text follows the closing quote"),
        ("- rule: a: b", "line 1, column 10: the line goes on where it should end"),
        ("- rule: &a b", "line 1, column 9: YAML's & is not understood here"),
        ("- rule: *a", "line 1, column 9: YAML's * is not understood here"),
        ("- rule: |\n    a", "line 1, column 9: YAML's | is not understood here"),
        ("- rule: !x a", "line 1, column 9: YAML's ! is not understood here"),
        ("- - rule: a", "line 1, column 3: a list in a list is not understood"),
        ("- rule: a\n  set: {pids: 1", "line 2, column 16: a comma or } is wanted"),
        ("- rule: a\n  set: {pids: 1 cap: 2}", "line 2, column 20: a comma or } is wanted"),
        ("- rule: a\n  set: {pids}", "line 2, column 13: a key, a colon and a blank are wanted"),
        ("- rule: a\n  set:{pids: 1}", "line 2, column 3: unknown key set:{pids; known are rule"),
        (
            "- rule: a\n  set: {pids: many}",
            "line 2, column 15: pids is many; wanted is a number a",
        ),
        ("- rule: a\n  cap: {memory: 1Mo}", "line 2, column 17: memory is 1Mo; wanted is a size"),
        ("- rule: a\n  cap: {env: {A: b}}", "line 2, column 9: cap what? env is none of memory c"),
        ("- rule: a\n  set: {ram: 1}", "line 2, column 9: set what? ram is none of memory cpu s"),
        (
            "- rule: a\n  default: {pids: 9}\n  cap: {pids: 8}",
            "line 1, column 3: the default of pids is above its cap",
        ),
        ("- rule: a\n  set: {env: {A=B: c}}", "line 2, column 15: `A=B` is no name for env"),
        ("- rule: a\n  set: {env: {-A: c}}", "line 2, column 15: `-A` is no name for env"),
        ("- rule: a\n  set: {rlimits: {fd: 1}}", "line 2, column 19: unknown limit fd; known are"),
        ("- rule: a\n  set: {rlimits: {nofile: 2:1}}", "line 2, column 27: nofile is 2:1, not NUM"),
        ("- rule: a\n  set: {oom-score-adj: 1001}", "line 2, column 24: oom-score-adj is 1001"),
        ("- rule: a\n  set: {cpus: all}", "line 2, column 15: cpus is all, not such as 0-1,3"),
        ("- rule: a\n  set: {args: x}", "line 2, column 15: args wants a list of arguments"),
        ("- rule: a\n  add: {disks: x}", "line 2, column 9: add what? disks is none of mounts"),
        ("- rule: a\n  add: {devices: []}", "line 2, column 18: an empty list"),
        ("- rule: a\n  add: {devices: [{path: a}]}", "line 2, column 26: path is a, not an abso"),
        (
            "- rule: a\n  add: {devices: [{path: /a, type: x}]}",
            "line 2, column 36: type is c (character), b (block), u or p",
        ),
        (
            "- rule: a\n  add: {devices: [{path: /a, type: c}]}",
            "line 2, column 19: major is missing",
        ),
        (
            "- rule: a\n  add: {devices: [{path: /a, type: p, mode: 1}]}",
            "line 2, column 39: unknown key mode of a device; known are path type major",
        ),
        (
            "- rule: a\n  add: {devices: {from-annotations: [a], allowed: [x]}}",
            "line 2, column 52: x is not TYPE MAJOR:MINOR PATH",
        ),
        ("- rule: a\n  add: {mounts: [{source: /a}]}", "line 2, column 18: destination is missing"),
        (
            "- rule: a\n  on: update_container\n  set: {memory: 1Gi, cpus: '0'}",
            "line 3, column 22: none of the rule's events takes `cpus`",
        ),
        ("- rule: a\n  remove: {rlimits: x}", "line 2, column 12: remove what? rlimits is none o"),
        ("- rule: a\n  on: start", "line 2, column 7: unknown event start; known are run_pod_sa"),
        ("- rule: a\n  on: []", "line 2, column 7: on wants an event"),
        (
            "- rule: a\n  on: stop_container\n  deny: x",
            "line 3, column 3: none of the rule's events takes `deny`",
        ),
        (
            "- rule: a\n  on: update_container\n  add: {cdi-devices: [x]}",
            "line 3, column 3: none of the rule's events takes `add`",
        ),
        (
            "- rule: a\n  on: run_pod_sandbox\n  when: {image: x}",
            "line 3, column 10: an event of a pod has no container: image cannot be asked",
        ),
        ("- rule: a\n  when: {name: x}", "line 2, column 10: unknown condition name; known are"),
        ("- rule: a\n  when: {label: x}", "line 2, column 17: label wants keys with patterns"),
        ("- rule: a\n  when: {pod: []}", "line 2, column 15: an empty list fits nothing"),
        ("- rule: a\n  when: {pod: {a: b}}", "line 2, column 15: pod wants a pattern, or a list"),
        ("- rule: a\n  when: {memory: 5}", "line 2, column 18: memory is asked as none, any, over"),
        ("- rule: a\n  when: {image: ':1'}", "line 2, column 17: :1 is no image"),
        ("- rule: a\n  log: $(home)", "line 2, column 8: $(home) is not understood; known are"),
        ("- rule: a\n  log: $(pod", "line 2, column 8: $(pod is not understood; known are"),
        ("- rule: a\n  deny: ''", "line 2, column 9: deny wants a text"),
        ("- rule: a\n  unknown: maybe", "line 2, column 12: unknown is refuse or skip"),
        (
            "".join(f"- {{rule: {n}, log: x}}\n" for n in range(257)),
            "line 257, column 3: more than 2",
        ),
        ("[" * 9 + "]" * 9, "line 1, column 9: deeper than 8 levels"),
        ("[" + "a," * 5000 + "]", "line 1, column 8192: more than 4096 values"),
        ("#" * 65537, "line 1: the configuration has 65537 bytes, at most 65536"),
    ],
)
def test_wrong_configurations_fail_configure_with_line_and_column(text: str, says: str) -> None:
    with pytest.raises(GuestError) as caught:
        configured(text)
    assert str(caught.value)[: len(says)] == says


def test_a_broken_configuration_leaves_nothing_of_it_behind() -> None:
    guest = configured("- rule: a\n  set: {pids: 5}")
    before = guest.memory_size()
    for _ in range(30):
        with pytest.raises(GuestError, match="line 4"):
            guest.configure("- rule: b\n  set: {pids: 6}\n- rule: c\n  sett: x")
        assert guest.call("create_container", CREATE.SerializeToString()) == b""
    guest.configure("- rule: a\n  set: {pids: 5}")
    assert guest.create(CREATE).adjust.linux.resources.pids.limit == 5
    assert guest.memory_size() == before


WORDS = st.sampled_from(
    [
        *("- rule: a", "\n  ", "\n    ", "\n- ", "when: ", "unless:", "set: ", "cap:", "default: "),
        *("{", "}", "[", "]", ", ", ": ", "'", '"', "\\", "#", "\n", "$(pod)", "re:", "(a|b)*{2}"),
        *("memory", "env", "label", "devices", "add: ", "remove: ", "deny: x", "1Gi", "none", "*"),
        *("on: create_container", "from-annotations", "path", "/dev/a", "image", "argv", "..."),
    ]
)


@given(st.lists(WORDS, max_size=40).map("".join))
def test_any_words_are_a_configuration_or_refused_with_their_place(text: str) -> None:
    guest = Guest(plugin("rules"))
    refused = told(guest, "configure", nri_pb2.ConfigureRequest(config=text).SerializeToString())
    if refused:
        assert re.match(r"line \d+(, column \d+)?: ", refused)
        return
    refused = told(guest, "create_container", CREATE.SerializeToString())
    assert not refused or re.search(r"\(rule .*, line \d+\)$|cannot be decided", refused)
