"""image-policy: the list, what is on it, and what a pod's author might try (its README's table)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.pb import nri_pb2

from .guest import Guest, GuestError, capture, plugin
from .images import BESIDE, DIGEST, LISTED, NO_REFERENCE, ONE_IMAGE, OTHER, image
from .messages import told
from .test_docker import docker_request

# localhost/busybox:1, in the namespace `default`, with the arguments /bin/sh -c "..."
CREATE = nri_pb2.CreateContainerRequest.FromString(capture("create_container"))
LIST = f"nginx\nregistry.example/app:1.*\n*@{DIGEST}\n"
CRI, CRI_O = "io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"
UNTOLD = "the runtime does not tell the image, so it is on no list"
NO_DIGEST = "is not on the list by its name, and the runtime does not tell its digest"


def configured(text: str) -> Guest:
    guest = Guest(plugin("image-policy"))
    guest.configure(text)
    return guest


def refusal(text: str, of: nri_pb2.CreateContainerRequest = CREATE) -> str:
    """Its text; empty when the container may run."""
    try:
        reply = configured(text).create(of)
    except GuestError as error:
        return str(error)
    assert reply == nri_pb2.CreateContainerResponse()
    return ""


def running(
    *args: str, name: str = "nginx", namespace: str = "default"
) -> nri_pb2.CreateContainerRequest:
    made = image(name)
    made.container.args[:] = args
    made.pod.namespace = namespace
    return made


# ---- images ----


@pytest.mark.parametrize("name", [*ONE_IMAGE, *LISTED])
def test_an_image_of_the_list_runs_by_each_of_its_names(name: str) -> None:
    assert refusal(LIST, image(name)) == ""


@pytest.mark.parametrize("name", BESIDE)
def test_an_image_beside_the_list_is_refused(name: str) -> None:
    said = refusal("nginx\nregistry.example/app:1.*", image(name))
    assert said.startswith((f"{name} is not on the list", f"{name} is no name of an image"))
    assert refusal(LIST, image(name)) != ""


@pytest.mark.parametrize("name", NO_REFERENCE)
def test_what_is_no_reference_is_refused_and_not_taken_for_another(name: str) -> None:
    made = image(name)
    del made.container.annotations[CRI]
    assert refusal("nginx\nre:.*@.*\nre:docker.*", made) != ""


def test_every_image_is_a_line_of_its_own_and_needs_no_name() -> None:
    for made in (CREATE, image(DIGEST), docker_request(), image("evil/x")):
        assert refusal("*", made) == ""


def test_refusals_say_why_and_are_logged() -> None:
    guest = configured("nginx")
    for name in ("evil/x", "e" * 5000):
        with pytest.raises(GuestError):
            guest.create(image(name))
    first, second = guest.lines
    assert first == "pod-0/main: evil/x is not on the list of images"
    assert second == f"pod-0/main: {'e' * 200} is not on the list of images"


# ---- digests ----


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (image("evil.example/x:1", digest=DIGEST), ""),
        (image("evil.example/x:1", digest=OTHER, config_digest=DIGEST), ""),
        (image(f"evil.example/x@{DIGEST}"), ""),
        (image(DIGEST, digest=DIGEST), ""),  # no name is needed where the digest is told
        # What the runtime resolved counts, not what the name says.
        (image(f"evil.example/x@{DIGEST}", digest=OTHER), "is not on the list of images"),
        (image("evil.example/x:1", digest=OTHER), "is not on the list of images"),
        (image("evil.example/x:1"), NO_DIGEST),
    ],
)
def test_a_digest_is_that_of_the_runtime_or_else_of_the_name(
    made: nri_pb2.CreateContainerRequest, says: str
) -> None:
    said = refusal(f"*@{DIGEST}", made)
    assert says in said
    assert bool(says) == bool(said)


def test_name_and_digest_of_a_line_both_have_to_fit() -> None:
    line = f"registry.example/app:1.2@{DIGEST}"
    assert refusal(line, image("registry.example/app:9", digest=DIGEST)) == ""
    assert "is not on the list of" in refusal(line, image("registry.example/app:1.2", digest=OTHER))
    assert "is not on the list of" in refusal(line, image("evil.example/app:1.2", digest=DIGEST))
    assert NO_DIGEST in refusal(line, image("registry.example/app:1.2"))
    assert refusal(f"{line}\nregistry.example/app:1.2", image("registry.example/app:1.2")) == ""


# ---- what older runtimes tell ----


def test_at_docker_engine_the_annotation_with_the_image_proves_nothing() -> None:
    forged = docker_request({CRI: "nginx", CRI_O: "nginx"})
    assert refusal(LIST, forged) == UNTOLD
    forged.container.image.name = "evil"  # as Docker Engine will tell it with NRI 0.13
    assert "evil is not on the list" in refusal(LIST.splitlines()[0], forged)


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        ({CRI: "nginx"}, ""),
        ({CRI_O: "nginx"}, ""),
        ({CRI_O: "evil/x"}, "evil/x is not on the list of images"),
        # One of the two is the pod's author's.
        ({CRI_O: "evil/x", CRI: "nginx"}, UNTOLD),
        ({CRI_O: "nginx", CRI: "evil/x"}, UNTOLD),
        ({CRI_O: ""}, UNTOLD),
        ({}, UNTOLD),
    ],
)
def test_the_image_of_the_runtimes_annotation(annotations: dict[str, str], says: str) -> None:
    made = nri_pb2.CreateContainerRequest()
    made.CopyFrom(CREATE)
    made.container.annotations.clear()
    made.container.annotations.update(annotations)
    assert refusal("nginx", made) == says


def test_the_runtimes_own_field_counts_before_an_annotation() -> None:
    made = image("evil/x")
    made.container.annotations[CRI] = "nginx"
    assert refusal("nginx", made) == "evil/x is not on the list of images"


# ---- namespaces ----


@pytest.mark.parametrize(
    ("namespace", "runs"),
    [
        ("kube-system", True),
        ("team-a", True),
        *((other, False) for other in ("default", "kube-system-x", "Kube-System", "xteam-a", "")),
        *((other, False) for other in ("kube-system\n", "kube-system\0", "kube-\u0455ystem")),
    ],
)
def test_lines_below_a_section_are_for_its_namespaces(namespace: str, runs: bool) -> None:
    text = "nginx\n[namespace kube-system  re:team-[a-z]]\nspecial\n[namespace other]\nelse"
    assert (refusal(text, running(name="special", namespace=namespace)) == "") is runs
    assert refusal(text, running(name="nginx", namespace=namespace)) == ""
    assert refusal(text, running(name="else", namespace=namespace)) != ""


# ---- arguments ----


@pytest.mark.parametrize(
    ("line", "args", "runs"),
    [
        ("nginx", (), True),
        ("nginx", ("/bin/sh",), True),
        ("nginx nginx -g *", ("nginx", "-g", "daemon off;"), True),
        ("nginx nginx -g *", ("nginx", "-g"), False),
        ("nginx nginx -g *", ("nginx", "-g", "a", "b"), False),
        ("nginx nginx -g *", ("nginx -g a",), False),
        ("nginx nginx -g *", ("", "nginx", "-g", "a"), False),
        ("nginx nginx", ("nginx", ""), False),
        ("nginx nginx", ("nginx\n",), False),
        ("nginx nginx", (), False),
        ("nginx nginx ...", ("nginx", "x", "y"), True),
        ("nginx nginx ...", ("nginx",), True),
        ("nginx nginx ...", ("sh", "nginx"), False),
        ("nginx ...", ("anything",), True),
        ("nginx ... x", ("...", "x"), True),
        ("nginx re:(nginx|httpd) hello?world", ("httpd", "hello world"), True),
        ("* /pause", ("/pause",), True),
        ("* /pause", ("/bin/sh",), False),
    ],
)
def test_arguments_are_compared_one_by_one(line: str, args: tuple[str, ...], runs: bool) -> None:
    said = refusal(line, running(*args))
    assert (said == "") is runs
    assert runs or said.startswith("nginx is on the list, but not with the arguments")


def test_another_line_may_allow_what_the_first_one_does_not() -> None:
    text = "nginx nginx\nnginx sh -c *"
    assert refusal(text, running("sh", "-c", "x")) == ""
    said = refusal(text, running("sh", "a", "b", "c", "d" * 200))
    assert said == "nginx is on the list, but not with the arguments sh a b c ..."


# ---- containers that run already ----


def synchronized(text: str, *containers: nri_pb2.CreateContainerRequest) -> list[str]:
    """What is said of these containers, each in its own pod."""
    guest, asked = configured(text), nri_pb2.SynchronizeRequest()
    for number, each in enumerate(containers):
        pod, container = asked.pods.add(), asked.containers.add()
        pod.CopyFrom(each.pod)
        container.CopyFrom(each.container)
        pod.id = container.pod_sandbox_id = f"pod {number}"
    assert guest.call("synchronize", asked.SerializeToString()) == b""
    return guest.lines


def test_what_runs_already_and_is_not_on_the_list_is_told() -> None:
    stopped = running(name="evil/x")
    stopped.container.state = nri_pb2.CONTAINER_STOPPED
    special, other = running(name="special", namespace="a"), running(name="special", namespace="b")
    made = (running(), running(name="evil/x"), stopped, special, other)
    assert synchronized("nginx\n[namespace a]\nspecial", *made) == [
        "pod-0/main runs already: evil/x is not on the list of images",
        "pod-0/main runs already: special is not on the list of images",
    ]
    assert synchronized("nginx") == []


def test_many_that_run_already_are_bounded() -> None:
    many = [running(name=f"evil/x-{number}") for number in range(50)]
    lines = synchronized("nginx", *many)
    assert len(lines) == 21
    assert lines[-1] == "30 more run that are not allowed"
    slow = [running("a" * 16_000, name="nginx")] * 300
    lines = synchronized("nginx re:(a|aa|a?)*b\n" * 100, *slow)
    assert lines[-1] == "too many run to compare them all with the list"
    assert len(lines) < 25


# ---- what is long or slow ----


def test_long_and_many_arguments_are_bounded_and_refused() -> None:
    """The guest here has 200,000,000 instructions for a call."""
    slow = "nginx re:(a|aa|a?)*b\n" * 100
    for args in (("a" * 17_000,), ("a" * 16_000,) * 20, ("a" * 16_000,)):
        said = refusal(slow, running(*args))
        assert said in (
            "nginx has arguments that take too long to compare",
            f"nginx is on the list, but not with the arguments {'a' * 80}",
        )
    many = running(*[""] * 16_000)
    assert "take too long" in refusal("nginx x ...\n" * 1000, many)
    assert refusal("nginx", many) == ""
    for count in (17_000, 400_000):
        assert refusal("nginx", running(*[""] * count)) == "more than 16384 entries"


def test_a_long_list_is_read_and_compared() -> None:
    text = "".join(f"registry.example/app-{number}:1.*\n" for number in range(1024))
    assert refusal(text, image("registry.example/app-1023:1.2")) == ""
    assert "is not on the list" in refusal(text, image("registry.example/app-1024:1.2"))


# ---- the list's form ----


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\n\n  nginx   # another one\n",
        "nginx\r\n",
        "\tnginx\n",
        "[namespace *]\nnginx",
    ],
)
def test_forms_of_the_same_list(text: str) -> None:
    assert refusal(text, image("nginx")) == ""
    assert refusal(text, image("x")) != ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: the list names no image; the line * allows every image"),
        ("# nginx\n[namespace a]", "line 1: the list names no image"),
        ("nginx\n  team*/app", "line 2, column 3: team*/app is no image; such are nginx"),
        (f"sha256:{'1' * 64}", "line 1, column 1: sha256:1111"),
        (":1", "line 1, column 1: :1 is no image"),
        ("nginx  re:a{3", "line 1, column 8: the regular expression, behind its character 3"),
        ("\u00e9 re:(", "line 1, column 3: the regular expression, behind"),
        ("[namespace]\nnginx", "line 1, column 1: a section is [namespace PATTERN ...]"),
        ("[namespace ]\nnginx", "line 1, column 1: a section is [namespace PATTERN ...]"),
        ("[namespace a\nnginx", "line 1, column 1: a section is [namespace PATTERN ...]"),
        ("[namespace ...]\nnginx", "line 1, column 1: a section is [namespace PATTERN ...]"),
        ("[pod a]\nnginx", "line 1, column 1: a section is [namespace PATTERN ...]"),
        ("nginx\n" * 1025, "line 1025: more than 1024 images"),
        ("#" * 65537, "line 1: the list has 65537 bytes, at most 65536"),
    ],
)
def test_a_wrong_list_fails_configure_with_its_line(text: str, says: str) -> None:
    with pytest.raises(GuestError) as caught:
        configured(text)
    assert str(caught.value)[: len(says)] == says


def test_of_a_wrong_list_nothing_counts() -> None:
    guest = configured("nginx")
    with pytest.raises(GuestError, match="line 2"):
        guest.configure("evil/x\nteam*/app")
    for name in ("nginx", "evil/x"):
        with pytest.raises(GuestError, match="is not on the list"):
            guest.create(image(name))


WORDS = st.sampled_from(
    [
        *(
            "nginx",
            "*",
            "\n",
            " ",
            "[namespace ",
            "]",
            "...",
            "@",
            ":",
            "/",
            "re:",
            "(a|b)*",
            "{2}",
        ),
        *("sha256:", DIGEST, "localhost/busybox", "/bin/sh", "#", "\t", "\r", "?", "\0", "default"),
    ]
)


@given(st.lists(WORDS, max_size=30).map("".join))
def test_any_words_are_a_list_or_refused_with_their_line(text: str) -> None:
    guest = Guest(plugin("image-policy"))
    asked = nri_pb2.ConfigureRequest(config=text).SerializeToString()
    refused = told(guest, "configure", asked)
    assert not refused or refused.startswith("line ")
    said = told(guest, "create_container", CREATE.SerializeToString())
    assert said == "" or said.startswith("localhost/busybox:1 ")
    assert not refused or said
