import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.pb import nri_pb2
from edge_agent.wasm.guestlog import DEBUG, ERROR, INFO, WARN, GuestLog


class Recorder:
    """A log with a clock that the test moves."""

    def __init__(self, lines_per_s: int = 1000, line_bytes: int = 20) -> None:
        self.lines: list[tuple[int, str]] = []
        self.now = 100.0
        self.log = GuestLog(
            lambda *line: self.lines.append(line), lines_per_s, line_bytes, lambda: self.now
        )

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.lines]

    def request(self, message: bytes) -> None:
        """As the host does it: read what is worth reading, and tell how much there was."""
        self.log.request(message[: self.log.request_bytes], len(message))


def message(text: str, level: int = 0) -> bytes:
    return nri_pb2.LogRequest(
        msg=text, level=nri_pb2.LogRequest.Level.Name(level)
    ).SerializeToString()


@pytest.mark.parametrize(
    ("level", "shown"), [(0, INFO), (1, DEBUG), (2, INFO), (3, WARN), (4, ERROR)]
)
def test_a_request_is_a_line_of_its_level(level: int, shown: int) -> None:
    recorder = Recorder()
    recorder.request(message("text", level))
    assert recorder.lines == [(shown, "text")]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('time="2026-11-29T10:00:00Z" level=info msg="Registering plugin"', INFO),
        ("time=2026-11-29T10:00:00.000Z level=INFO msg=slog", INFO),
        ("level=debug msg=x", DEBUG),
        ("level=trace", DEBUG),
        ("level=warning msg=x", WARN),
        ('level="warn"', WARN),
        ("level=error msg=x", ERROR),
        ("level=fatal msg=x", ERROR),
        ("level=panic msg=x", ERROR),
        # None of these tells its own level.
        ("level=loud msg=x", None),
        ("level=information", None),
        ("the level=info is elsewhere", None),
        ('time="' + "x" * 65 + '" level=info', None),
        ("panic: runtime error", None),
    ],
)
def test_a_printed_line_has_the_level_that_it_begins_with(line: str, shown: int | None) -> None:
    recorder = Recorder(line_bytes=1000)
    recorder.log.stream(2, line[:7].encode())
    recorder.log.stream(2, line[7:].encode() + b"\n")
    recorder.log.stream(1, line.encode() + b"\n")
    assert recorder.lines == [(shown or WARN, line), (shown or INFO, line)]


def test_an_unknown_level_is_information() -> None:
    recorder = Recorder()
    recorder.request(b"\x0a\x01x\x10\x63")
    recorder.request(b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x0a\x01y")
    assert recorder.lines == [(INFO, "x"), (INFO, "y")]


@given(st.text(max_size=60), st.integers(0, 4))
def test_a_line_is_whole_or_says_how_much_was_cut(text: str, level: int) -> None:
    recorder = Recorder()
    recorder.request(message(text, level))
    raw = text.encode()
    (shown,) = recorder.texts
    if len(raw) <= 20:
        assert recorder.lines == [(level or INFO, text)]
    else:
        head, _, tail = shown.rpartition(" [cut, ")
        assert tail == f"{len(raw) - 20} bytes more]"
        assert head == raw[:20].decode(errors="backslashreplace")


@given(st.binary(max_size=80))
def test_any_bytes_are_one_line_of_bounded_length(raw: bytes) -> None:
    recorder = Recorder()
    recorder.request(raw)
    assert len(recorder.lines) == 1
    assert len(recorder.texts[0]) <= 4 * 20 + 40


def test_bytes_that_are_no_request_are_shown_as_a_warning() -> None:
    recorder = Recorder()
    recorder.request(b"\x1fgarbage")
    assert recorder.lines == [(WARN, "\x1fgarbage")]


@given(st.lists(st.binary(max_size=12), max_size=12))
def test_printed_lines_do_not_depend_on_how_they_were_written(parts: list[bytes]) -> None:
    whole, split = Recorder(), Recorder()
    whole.log.stream(1, b"".join(parts))
    for part in parts:
        split.log.stream(1, part)
    for recorder in (whole, split):
        recorder.log.flush()
    assert whole.lines == split.lines
    expected = [line.removesuffix(b"\r") for line in b"".join(parts).split(b"\n")]
    assert len(whole.lines) == len([line for line in expected if line])


def test_streams_are_apart() -> None:
    recorder = Recorder()
    recorder.log.stream(1, b"out")
    recorder.log.stream(2, b"error\n")
    recorder.log.stream(1, b"put\n")
    assert recorder.lines == [(WARN, "error"), (INFO, "output")]


def test_a_line_that_never_ends_is_kept_only_as_far_as_it_is_shown() -> None:
    recorder = Recorder()
    for _ in range(1000):
        recorder.log.stream(1, b"x" * 1000)
    assert recorder.lines == []
    recorder.log.stream(1, b"y" * 10, cut=5)
    recorder.log.flush()
    assert recorder.texts == ["x" * 20 + " [cut, 999995 bytes more]"]
    recorder.log.flush()
    assert len(recorder.lines) == 1


def test_what_was_not_read_of_a_write_is_told() -> None:
    recorder = Recorder()
    recorder.log.stream(1, b"one\n", cut=100)
    recorder.log.stream(1, b"\ntwo\n")
    assert recorder.texts == ["one", " [cut, 100 bytes more]", "two"]


def test_a_burst_passes_and_a_flood_is_counted_and_told() -> None:
    recorder = Recorder(lines_per_s=10)
    for number in range(100):
        recorder.request(message(f"line {number}"))
    assert recorder.texts == [f"line {number}" for number in range(10)]
    assert recorder.log.dropped == 90
    recorder.now += 0.5
    recorder.request(message("after"))
    assert recorder.lines[10:] == [
        (WARN, "90 log lines dropped: more than 10 a second"),
        (INFO, "after"),
    ]


def test_a_flood_that_lasts_is_told_now_and_then_and_at_the_end() -> None:
    recorder = Recorder(lines_per_s=10)
    for _ in range(200):  # twenty seconds
        recorder.now += 0.1
        for _ in range(5):
            recorder.request(message("x"))
    told = [text for text in recorder.texts if "dropped" in text]
    assert 3 <= len(told) <= 5
    recorder.log.flush()
    told = [text for text in recorder.texts if "dropped" in text]
    assert sum(int(text.split()[0]) for text in told) == recorder.log.dropped
    assert recorder.texts.count("x") + recorder.log.dropped == 1000


def test_a_flood_in_one_write_is_counted_line_by_line() -> None:
    recorder = Recorder(lines_per_s=10)
    recorder.log.stream(1, b"x\n\n" * 20_000 + b"rest")
    assert recorder.texts == ["x"] * 10
    assert recorder.log.dropped == 20_000 - 10
    recorder.now += 1
    recorder.log.stream(1, b" of it\n")
    assert recorder.texts[-1] == "rest of it"


def test_time_gives_tokens_back_up_to_one_second() -> None:
    recorder = Recorder(lines_per_s=10)
    recorder.now += 1000
    for _ in range(50):
        recorder.request(message("x"))
    assert recorder.texts.count("x") == 10


def test_the_host_may_say_something_within_the_same_rate() -> None:
    recorder = Recorder(lines_per_s=2)
    for _ in range(5):
        recorder.log.say(WARN, "refused")
    assert recorder.lines == [(WARN, "refused")] * 2
    assert recorder.log.dropped == 3


def test_a_log_without_any_lines_drops_them_all() -> None:
    recorder = Recorder(lines_per_s=0)
    recorder.request(message("x"))
    recorder.log.stream(2, b"y\nz\n")
    recorder.log.flush()
    assert recorder.lines == [(WARN, "3 log lines dropped: more than 0 a second")]
