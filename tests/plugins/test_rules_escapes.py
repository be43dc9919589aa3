"""rules: what a pod's author might try to get around a rule (docs/rules.md has the list)."""

import json
from collections.abc import Sequence

import pytest

from edge_agent.pb import nri_pb2

from .guest import Guest, GuestError, plugin
from .images import BESIDE, DIGEST, LISTED, NO_REFERENCE, ONE_IMAGE, OTHER, image
from .test_docker import docker_request
from .test_rules import CREATE, configured, fits, request

LIST = f"""\
- rule: r
  unless: {{image: [nginx, 'registry.example/app:1.*', '*@{DIGEST}']}}
  deny: no
"""
UNDECIDED = "cannot be decided"
REFUSED = "no (rule r, line 1)"


def verdict(text: str, of: nri_pb2.CreateContainerRequest) -> str:
    """The refusal; empty when the container passes."""
    try:
        configured(text).create(of)
    except GuestError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ONE_IMAGE)
def test_every_form_of_a_name_is_one_image(name: str) -> None:
    assert fits("{image: nginx}", image(name))
    assert fits("{image: docker.io/library/nginx}", image(name))
    assert fits("{image: 'index.docker.io/nginx'}", image(name))
    assert fits("{image: 're:docker\\.io/library/nginx[:@].*'}", image(name))


@pytest.mark.parametrize("name", BESIDE)
def test_an_image_beside_the_list_is_refused(name: str) -> None:
    assert verdict(LIST, image(name)) != ""


@pytest.mark.parametrize("name", LISTED)
def test_an_image_of_the_list_passes(name: str) -> None:
    assert verdict(LIST, image(name)) == ""


@pytest.mark.parametrize("name", NO_REFERENCE)
def test_what_is_no_reference_is_refused_and_not_taken_for_another(name: str) -> None:
    for text in (LIST, "- rule: r\n  when: {image: nginx}\n  deny: no"):
        made = image("x")
        made.container.image.name = name
        if not name:
            del made.container.annotations["io.kubernetes.cri.image-name"]
        said = verdict(text, made)
        assert UNDECIDED in said or said.startswith("no "), name


def test_an_undecided_rule_lets_pass_only_if_it_says_so() -> None:
    made = image(DIGEST)
    assert UNDECIDED in verdict("- rule: r\n  when: {image: a}\n  log: x", made)
    assert verdict("- rule: r\n  unknown: skip\n  when: {image: a}\n  deny: x", made) == ""
    # What is decided without it, is decided.
    assert verdict("- rule: r\n  when: {image: a, namespace: other}\n  deny: x", made) == ""
    assert verdict("- rule: r\n  unless: {image: a, namespace: default}\n  deny: x", made) == ""


def test_the_digest_is_what_the_runtime_resolved_before_what_the_name_says() -> None:
    rule = f"- rule: r\n  unless: {{image-digest: '{DIGEST}'}}\n  deny: no\n"
    assert verdict(rule, image("a:1", digest=DIGEST)) == ""
    assert verdict(rule, image(f"a@{DIGEST}")) == ""
    assert verdict(rule, image(f"a@{DIGEST}", digest=OTHER)) == REFUSED
    assert UNDECIDED in verdict(rule, image("a:1"))


def test_at_docker_engine_the_annotation_with_the_image_proves_nothing() -> None:
    forged = docker_request({"io.kubernetes.cri.image-name": "nginx"})
    assert UNDECIDED in verdict(LIST, forged)
    forged.container.image.name = "evil"  # as Docker Engine will tell it with NRI 0.13
    assert verdict(LIST, forged) == REFUSED


def test_of_two_images_that_are_told_the_runtimes_own_field_counts() -> None:
    made = image("evil/x")
    made.container.annotations["io.kubernetes.cri.image-name"] = "nginx"
    assert verdict(LIST, made) == REFUSED


CRI = "io.kubernetes.cri.image-name"
CRI_O = "io.kubernetes.cri-o.ImageName"


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({CRI: "nginx"}, ""),
        ({CRI_O: "nginx"}, ""),
        ({CRI_O: "evil/x"}, REFUSED),
        # CRI-O copies the pod's annotations into the container's (SpecAddAnnotations), containerd
        # those that its configuration names: so the other runtime's key is the pod's author's.
        ({CRI_O: "evil/x", CRI: "nginx"}, UNDECIDED),
        ({CRI_O: "nginx", CRI: "evil/x"}, UNDECIDED),
        ({CRI_O: "", CRI: "nginx"}, UNDECIDED),
        ({CRI_O: ""}, UNDECIDED),
    ],
)
def test_an_annotation_of_the_pod_does_not_tell_the_image(told: dict[str, str], says: str) -> None:
    made = request()
    del made.container.annotations[CRI]
    made.container.annotations.update(told)
    said = verdict(LIST, made)
    assert says in said
    assert bool(says) == bool(said)


@pytest.mark.parametrize(
    ("pattern", "name", "is_so"),
    [
        ("*.example.com/*", "a.example.com/x", True),
        ("*.example.com/*", "evil.io/a.example.com/x", False),
        ("registry.?/app", "registry.x/app", True),
        ("registry.*/app", "registry.x/evil/app", False),
        ("registry.*/team/*", "registry.x/team/a/b", True),
        ("*/app", "evil.io/any/app", True),  # any registry, as `*` says
        ("*app", "evil.io/any/app", True),
    ],
)
def test_a_star_for_a_registry_fits_no_path(pattern: str, name: str, is_so: bool) -> None:
    assert fits(f"{{image: '{pattern}'}}", image(name)) is is_so


@pytest.mark.parametrize("pattern", ["team*/app", "*corp/app", "t?am/*"])
def test_a_star_that_may_be_a_registrys_or_a_users_is_refused(pattern: str) -> None:
    """`team*/app` would fit team.evil.example/app."""
    with pytest.raises(GuestError, match="is no image"):
        configured(f"- rule: r\n  when: {{image: '{pattern}'}}\n  deny: x")


def test_a_pattern_with_tag_and_digest_is_about_the_digest_as_a_reference_is() -> None:
    for name in (f"app:1.2@{DIGEST}", f"app@{DIGEST}", f"app:9@{DIGEST}"):
        assert fits(f"{{image: 'app:1.2@{DIGEST}'}}", image(name))
    assert not fits(f"{{image: 'app:1.2@{DIGEST}'}}", image(f"app:1.2@{OTHER}"))
    assert not fits(f"{{image: 'app:1.2@{DIGEST}'}}", image("app:1.2"))


# ---- annotations ----


@pytest.mark.parametrize(
    ("pods", "own", "when", "says"),
    [
        # CRI-O: the container's annotations are the pod's, and above them its own.
        ({}, {"a": "yes"}, "{a: 'yes'}", REFUSED),
        ({"a": "yes"}, {}, "{a: 'yes'}", "annotation a is the pod's, too, and may be a copy of it"),
        ({"a": "yes"}, {}, "{'*': 'yes'}", "annotation a is the pod's, too"),
        ({"a": "yes"}, {"b": "yes"}, "{'*': 'yes'}", REFUSED),
        ({"a": "yes"}, {"a": "no"}, "{a: 'yes'}", ""),
        ({"a": "no"}, {"a": "yes"}, "{a: 'yes'}", REFUSED),
        ({"a": "no"}, {}, "{a: 'yes'}", ""),
        # Nor does a pod hide a container's own by having the same.
        ({"a": "yes"}, {"a": "yes"}, "{a: 'yes'}", UNDECIDED),
    ],
)
def test_an_annotation_of_the_pod_is_none_of_the_container(
    pods: dict[str, str], own: dict[str, str], when: str, says: str
) -> None:
    made = request(annotations=pods)
    made.container.annotations.update({**pods, **own})
    said = verdict(f"- rule: r\n  when: {{container-annotation: {when}}}\n  deny: no", made)
    assert says in said
    assert bool(says) == bool(said)


# ---- texts ----


@pytest.mark.parametrize(
    "text",
    [
        *("Default", "DEFAULT", "default ", " default", "default\0", "default\n", "\u202edefault"),
        *("d\u0435fault", "default\0x", "", "defaultx"),
    ],
)
def test_another_text_is_another_text(text: str) -> None:
    """So an exception for `default` is not to be had by a name that looks like it."""
    rule = "- rule: r\n  unless: {namespace: default, label: {tier: default}}\n  deny: no"
    assert verdict(rule, request(text, labels={"tier": text})) == REFUSED


@pytest.mark.parametrize("around", ["\n", "\0", "\u2028", "x\r\n", " " * 1000, "\u00e9", "*?"])
def test_nothing_around_it_hides_what_is_looked_for(around: str) -> None:
    for pattern in ("*miner*", "re:.*miner.*", "re:(?i).*MINER.*"):
        when = f"{{any-arg: {json.dumps(pattern)}}}"
        for arg in (f"{around}miner", f"miner{around}", f"{around}miner{around}"):
            assert fits(when, request(args=["a", arg]))


def test_bytes_that_are_no_utf8_hide_nothing() -> None:
    guest = configured("- rule: r\n  when: {any-arg: ['*miner*']}\n  deny: no")
    raw = request(args=["XXminerX"]).SerializeToString()
    assert raw.count(b"XXminerX") == 1
    for evil in (b"\xff\xfeminer\x80", b"\xe2\x82miner\xf0", b"\xc0\x80miner\xed"):
        with pytest.raises(GuestError, match="no"):
            guest.call("create_container", raw.replace(b"XXminerX", evil))


@pytest.mark.parametrize(("value", "pattern", "is_so"), [("", "*", True), ("", "?*", False)])
def test_an_empty_label_is_there(value: str, pattern: str, is_so: bool) -> None:
    assert fits(f"{{label: {{tier: '{pattern}'}}}}", request(labels={"tier": value})) is is_so
    assert not fits(f"{{label: {{other: '{pattern}'}}}}", request(labels={"tier": value}))


def _doubled(field: bytes, key: bytes, values: Sequence[bytes]) -> bytes:
    entries = [b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(v)]) + v for v in values]
    return b"".join(field + bytes([len(each)]) + each for each in entries)


def test_one_label_twice_cannot_be_decided() -> None:
    guest = configured("- rule: r\n  unless: {label: {tier: ok}}\n  deny: no")
    for values, says in (
        ((b"ok", b"evil"), "label tier is there twice"),
        ((b"evil", b"ok"), "label tier is there twice"),
        ((b"ok", b"ok"), ""),
    ):
        pod = CREATE.pod.SerializeToString() + _doubled(b"\x2a", b"tier", values)
        container = CREATE.container.SerializeToString()
        message = b"".join(
            tag + _varint(len(part)) + part for tag, part in ((b"\x0a", pod), (b"\x12", container))
        )
        if says:
            with pytest.raises(GuestError, match=says):
                guest.call("create_container", message)
        else:
            assert guest.call("create_container", message) == b""


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def test_one_variable_twice_cannot_be_decided() -> None:
    when = "- rule: r\n  unless: {env: {MODE: safe}}\n  deny: no"
    assert verdict(when, request(env=["MODE=safe"])) == ""
    assert "env MODE is there twice" in verdict(when, request(env=["MODE=safe", "MODE=evil"]))
    assert verdict(when, request(env=["mode=safe", "MODE = safe"])) == REFUSED


@pytest.mark.parametrize(
    "source", ["//etc/shadow", "/etc/./shadow", "/srv/../etc//shadow", "/../etc"]
)
def test_paths_are_compared_without_their_detours(source: str) -> None:
    made = request()
    made.container.mounts.add(destination="/x", source=source, type="bind")
    assert fits("{mount-source: [/etc, /etc/*]}", made)
    assert not fits("{mount-source: '/srv/*'}", made)


@pytest.mark.parametrize("pattern", ["/etc/", "//etc", "/srv/../etc", "/etc/."])
def test_paths_of_patterns_are_compared_so_too(pattern: str) -> None:
    made = request()
    made.container.mounts.add(destination="/x", source="/etc", type="bind")
    assert fits(f"{{mount-source: {pattern}}}", made)
    assert fits(f"{{mount-source: '{pattern}/../etc*'}}", made)


@pytest.mark.parametrize("path", ["/secret", "//secret", "/secret/", "/a/../secret", "secret"])
def test_a_detour_saves_no_mount_from_being_removed(path: str) -> None:
    made = request()
    made.container.mounts.add(destination=path, source="/x", type="bind")
    assert fits("{mount: /secret}", made)
    for pattern in ("/secret", "/secret/"):
        adjust = configured(f"- rule: r\n  remove: {{mounts: {pattern}}}").create(made).adjust
        assert [each.destination for each in adjust.mounts] == [f"-{path}"]


@pytest.mark.parametrize(
    "change", ["remove: {env: 'LD_*'}", "set: {env: {LD_PRELOAD: ''}}", "remove: {env: LD_PRELOAD}"]
)
def test_a_variable_that_is_there_twice_outlives_no_change(change: str) -> None:
    """NRI's generator (AdjustEnv, 0.12.5 was read) changes the first one; the second one stays."""
    rule = f"- rule: r\n  {change}"
    assert verdict(rule, request(env=["LD_PRELOAD=/a", "PATH=/bin", "PATH=/bin"])) == ""
    for second in ("LD_PRELOAD=/b", "LD_PRELOAD=/a", "LD_PRELOAD="):
        said = verdict(rule, request(env=["LD_PRELOAD=/a", "X=y", second]))
        assert said == "rule r (line 1) cannot be decided: env LD_PRELOAD is there twice"


def test_a_mount_that_is_there_twice_outlives_no_removal() -> None:
    made = request()
    for source in ("/a", "/b"):
        made.container.mounts.add(destination="/secret", source=source, type="bind")
    said = verdict("- rule: r\n  remove: {mounts: /secret}", made)
    assert said == "rule r (line 1) cannot be decided: mounts /secret is there twice"


def test_a_text_of_others_is_shown_as_it_is_and_not_expanded_again() -> None:
    guest = configured("- rule: r\n  set: {env: {A: '$(label x)'}}\n  log: '$(label x)'")
    made = request(labels={"x": "$(pod) $(label x) $("})
    assert guest.create(made).adjust.env[0].value == "$(pod) $(label x) $("
    assert guest.lines[0] == "pod-0/main: $(pod) $(label x) $( (rule r)"


# ---- what is long or slow ----


def test_a_value_beyond_what_is_compared_cannot_be_decided() -> None:
    rule = "- rule: r\n  when: {annotation: {a: '*evil*'}}\n  deny: no"
    assert verdict(rule, request(annotations={"a": "x" * 16000 + "evil"})) == REFUSED
    said = verdict(rule, request(annotations={"a": "x" * 20000 + "evil"}))
    assert said == (
        "rule r (line 1) cannot be decided: a value has 20004 bytes, and at most 16384 are compared"
    )


@pytest.mark.parametrize(
    "pattern", ["re:(a|aa|a?)*b", "re:(a*)*(a*)*(a*)*b", "re:(?:a?){100}a{100}b", "*a*a*a*a*a*b"]
)
def test_no_text_makes_a_pattern_slow(pattern: str) -> None:
    """The guest here has 200,000,000 instructions for a call; 2 to the power of 40 are more."""
    rule = f"- rule: r\n  when: {{any-arg: {json.dumps(pattern)}}}\n  deny: no"
    for size in (40, 1000, 16000):
        said = verdict(rule, request(args=["a" * size]))
        assert said == "" or "takes too long" in said
    assert verdict(rule, request(args=["a" * 200 + "b"])) == REFUSED


def test_many_entries_and_many_rules_are_bounded() -> None:
    labels = {f"label-{number}": "x" for number in range(16_000)}
    rules = "".join(
        f"- rule: r{number}\n  when: {{label: {{'*x': '*'}}}}\n  deny: no\n"
        for number in range(200)
    )
    assert "too long" in verdict(rules, request(labels=labels))


def test_many_empty_texts_are_bounded() -> None:
    rules = "- rule: r\n  when: {any-arg: [a" + ", a" * 99 + "]}\n  deny: no\n"
    assert verdict(rules, request(args=[""] * 1000)) == ""
    assert "takes too long" in verdict(rules, request(args=[""] * 10_000))


@pytest.mark.parametrize(
    "rules",
    [
        "- rule: r\n  default: {memory: 1Gi}",
        "".join(f"- rule: r{n}\n  when: {{container: x}}\n  deny: no\n" for n in range(200)),
        "".join(f"- rule: r{n}\n  when: {{mount: /x}}\n  deny: no\n" for n in range(200)),
        "- rule: r\n  remove: {env: LD_*}\n  log: x",
        "- rule: r\n  default:\n    env:\n" + "".join(f"      A{n}: x\n" for n in range(200)),
    ],
)
def test_many_entries_make_no_rules_slow(rules: str) -> None:
    """Beyond 200,000,000 instructions the guest here fails with something else than GuestError."""
    env = [f"LD_{number}=x" for number in range(400)]
    for count in (15_000, 400_000):
        made = request(args=[""] * count, env=env)
        made.container.mounts.add(destination="/y/" * 20_000)
        said = verdict(rules, made)
        assert said == "" or UNDECIDED in said or said == "more than 16384 entries"
        assert count == 15_000 or said == "more than 16384 entries"


def test_more_removals_than_a_reply_should_have_are_refused() -> None:
    env = [f"LD_{number}=x" for number in range(513)]
    rule = "- rule: r\n  remove: {env: 'LD_*'}"
    guest = configured(rule)
    assert len(guest.create(request(env=env[:-1])).adjust.env) == 2 * 512
    assert "more than 512 changes" in verdict(rule, request(env=env))


def test_a_malformed_request_is_no_way_around() -> None:
    guest = Guest(plugin("rules"))
    guest.configure("- rule: r\n  when: {namespace: default}\n  deny: no")
    with pytest.raises(GuestError, match="malformed message"):
        guest.call("create_container", CREATE.SerializeToString()[:-1])
