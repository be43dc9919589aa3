"""WASI preview 1 on every engine: all of it is there, and what a plugin has not is refused
in a way that a C library and Go's runtime understand."""

import struct
import time

import pytest

from edge_agent.errors import GuestFault
from edge_agent.wasm import wasi
from edge_agent.wasm.guestlog import INFO, WARN
from tests.support.assembler import DROP, call, i32, i64
from tests.wasm.lab import Lab, Running, guest
from tests.wasm.plugins import NOTHING, WASI, asking, packed, plugin

# The functions of wasi_snapshot_preview1.witx, written down apart from the table under test.
PREVIEW_1 = {
    *("args_get", "args_sizes_get", "environ_get", "environ_sizes_get"),
    *("clock_res_get", "clock_time_get"),
    *("fd_advise", "fd_allocate", "fd_close", "fd_datasync", "fd_fdstat_get"),
    *("fd_fdstat_set_flags", "fd_fdstat_set_rights", "fd_filestat_get"),
    *("fd_filestat_set_size", "fd_filestat_set_times", "fd_pread", "fd_prestat_get"),
    *("fd_prestat_dir_name", "fd_pwrite", "fd_read", "fd_readdir", "fd_renumber"),
    *("fd_seek", "fd_sync", "fd_tell", "fd_write"),
    *("path_create_directory", "path_filestat_get", "path_filestat_set_times"),
    *("path_link", "path_open", "path_readlink", "path_remove_directory", "path_rename"),
    *("path_symlink", "path_unlink_file"),
    *("poll_oneoff", "proc_exit", "proc_raise", "sched_yield", "random_get"),
    *("sock_accept", "sock_recv", "sock_send", "sock_shutdown"),
}
AT, RESULT = 1024, 2048  # addresses: data that a test lays down, and where results go
TYPES = {
    name.removeprefix(f"{WASI}."): "".join(
        {"i32": "i", "i64": "I"}[one] for one in function.type.params
    )
    for (_, name), function in wasi.functions(lambda *_: None).items()
}


def ask(
    lab: Lab, name: str, *arguments: int, data: bytes = b"", deadline_s: float = 60.0
) -> tuple[int, Running]:
    """Call one function in a guest: its errno, and the guest."""
    kind = TYPES[name] + "i"
    code = [
        i64(value) if letter == "I" else i32(value)
        for letter, value in zip(TYPES[name], arguments, strict=True)
    ]
    running = lab.start(asking(WASI, name, kind, *code, data=data), log_lines_per_s=20)
    (errno,) = struct.unpack("<I", running.call("configure", deadline_s=deadline_s))
    return errno, running


def looking(name: str, *arguments: int, at: int, size: int, data: bytes = b"") -> bytes:
    """A guest that calls a function and answers the memory at `at`."""
    kind = TYPES[name]
    code = b"".join(
        i64(value) if letter == "I" else i32(value)
        for letter, value in zip(kind, arguments, strict=True)
    )
    return plugin(
        {"configure": code + call(0) + DROP + packed(i32(at), i32(size))},
        imports=((WASI, name, kind + "i"),),
        data={AT: data},
    )


def vectors(*parts: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<II", *part) for part in parts)


def test_every_function_of_preview_1_is_there() -> None:
    assert TYPES.keys() == PREVIEW_1


@pytest.mark.parametrize("name", sorted(PREVIEW_1 - {"proc_exit"}))
def test_a_function_answers_an_errno_and_no_fault(name: str, lab: Lab) -> None:
    errno, running = ask(lab, name, *[AT] * len(TYPES[name]))
    assert 0 <= errno <= 76
    running.call("configure")


# ---- output ----


def test_printed_lines_are_the_plugins_log(lab: Lab) -> None:
    text = b"one\ntwo\r\n\nthree"
    data = vectors((AT + 16, 4), (AT + 20, len(text) - 4)) + text
    for fd, level in ((1, INFO), (2, WARN)):
        errno, running = ask(lab, "fd_write", fd, AT, 2, RESULT, data=data)
        assert errno == wasi.SUCCESS
        assert running.lines == [(level, "one"), (level, "two")]
        running.services.log.flush()
        assert running.lines[2:] == [(level, "three")]


def test_a_write_tells_how_much_was_written(lab: Lab) -> None:
    data = vectors((AT, 5), (AT, 7), (AT, 0))
    running = lab.start(looking("fd_write", 1, AT, 3, RESULT, at=RESULT, size=4, data=data))
    assert struct.unpack("<I", running.call("configure")) == (12,)


@pytest.mark.parametrize("fd", [0, 3, 4, 0xFFFFFFFF])
def test_nothing_else_can_be_written_to(fd: int, lab: Lab) -> None:
    errno, running = ask(lab, "fd_write", fd, AT, 1, RESULT, data=vectors((AT, 4)))
    assert (errno, running.lines) == (wasi.BADF, [])


def test_overlapping_and_huge_vectors_cost_no_more_than_one_write(lab: Lab) -> None:
    # A thousand times the same 128 KiB: 64 KiB are looked at, the rest is counted.
    data = vectors(*[(65536, 131072)] * 1000)
    errno, running = ask(lab, "fd_write", 1, AT, 1000, RESULT, data=data)
    assert errno == wasi.SUCCESS
    running.services.log.flush()
    text = running.texts[0]
    assert text.startswith("\0" * 4096 + " [cut, ")
    assert text.endswith(f"{131072 * 1000 - 4096} bytes more]")


def test_more_vectors_than_a_system_takes_are_invalid(lab: Lab) -> None:
    assert ask(lab, "fd_write", 1, AT, wasi.MAX_VECTORS + 1, RESULT)[0] == wasi.INVAL
    assert ask(lab, "fd_write", 1, 8192, wasi.MAX_VECTORS, RESULT)[0] == wasi.SUCCESS


@pytest.mark.parametrize(
    ("at", "count", "data"),
    [
        (0xFFFFFFF8, 1, b""),
        (262140, 1, b""),
        (AT, 1, vectors((0xFFFFFFFF, 0x7FFFFFFF))),
        (AT, 2, vectors((AT, 1), (262143, 2))),
    ],
    ids=["list far outside", "list over the end", "bytes far outside", "bytes over the end"],
)
def test_vectors_outside_the_memory_end_the_guest(
    at: int, count: int, data: bytes, lab: Lab
) -> None:
    with pytest.raises(GuestFault, match="the memory has 262144 bytes") as caught:
        ask(lab, "fd_write", 1, at, count, RESULT, data=data)
    assert caught.value.kind == "abi"


def test_a_result_outside_the_memory_ends_the_guest(lab: Lab) -> None:
    for name, arguments in (
        ("fd_write", (1, AT, 0, 262142)),
        ("clock_time_get", (0, 0, 262140)),
        ("args_sizes_get", (262144, 0)),
        ("fd_fdstat_get", (1, 0xFFFFFFFF)),
        ("random_get", (262140, 8)),
    ):
        with pytest.raises(GuestFault, match="write of") as caught:
            ask(lab, name, *arguments)
        assert caught.value.kind == "abi"


def test_a_flood_of_printed_lines_is_counted(lab: Lab) -> None:
    data = vectors((8192, 65536))
    module = lab.start(
        plugin(
            {"configure": i32(1) + i32(AT) + i32(1) + i32(RESULT) + call(0) + DROP + NOTHING},
            imports=((WASI, "fd_write", "iiiii"),),
            data={AT: data, 8192: b"x\n" * 32768},
        ),
        log_lines_per_s=20,
    )
    module.call("configure")
    assert module.texts[:20] == ["x"] * 20
    assert len(module.lines) + module.services.log.dropped == 32768


# ---- descriptors ----


@pytest.mark.parametrize(("fd", "rights"), [(0, 1 << 1), (1, 1 << 6), (2, 1 << 6)])
def test_the_standard_streams_are_a_terminal_that_cannot_seek(
    fd: int, rights: int, lab: Lab
) -> None:
    running = lab.start(looking("fd_fdstat_get", fd, RESULT, at=RESULT, size=24))
    filetype, flags, base, inheriting = struct.unpack("<BxHxxxxQQ", running.call("configure"))
    assert (filetype, flags, base, inheriting) == (2, 0, rights, 0)
    running = lab.start(looking("fd_filestat_get", fd, RESULT, at=RESULT, size=64))
    assert running.call("configure")[16] == 2
    assert ask(lab, "fd_seek", fd, 0, 0, RESULT)[0] == wasi.SPIPE
    assert ask(lab, "fd_tell", fd, RESULT)[0] == wasi.SPIPE
    assert ask(lab, "fd_readdir", fd, AT, 10, 0, RESULT)[0] == wasi.NOTCAPABLE
    assert ask(lab, "fd_filestat_set_size", fd, 0)[0] == wasi.NOTCAPABLE


def test_there_are_no_files_and_no_folders(lab: Lab) -> None:
    assert ask(lab, "fd_prestat_get", 3, RESULT)[0] == wasi.BADF  # ends a libc's search
    for name in sorted(PREVIEW_1):
        if name.startswith(("fd_", "path_")):
            errno = ask(lab, name, *[3] * len(TYPES[name]))[0]
            assert errno == wasi.BADF, name


def test_stdin_is_empty(lab: Lab) -> None:
    data = b"\xff" * 8
    running = lab.start(looking("fd_read", 0, AT, 1, AT, at=AT, size=4, data=data))
    assert running.call("configure") == bytes(4)
    assert ask(lab, "fd_read", 1, AT, 1, RESULT)[0] == wasi.BADF


def test_there_are_no_arguments_and_no_environment(lab: Lab) -> None:
    for name in ("args_sizes_get", "environ_sizes_get"):
        data = b"\xff" * 8
        running = lab.start(looking(name, AT, AT + 4, at=AT, size=8, data=data))
        assert running.call("configure") == bytes(8)


# ---- clocks, random numbers, sleep ----


@pytest.mark.parametrize(("clock", "now"), [(0, time.time_ns), (1, time.monotonic_ns)])
def test_clocks_tell_the_hosts_time(clock: int, now: object, lab: Lab) -> None:
    assert callable(now)
    running = lab.start(looking("clock_time_get", clock, 0, RESULT, at=RESULT, size=8))
    before = now()
    (told,) = struct.unpack("<Q", running.call("configure"))
    assert before <= told <= now()
    running = lab.start(looking("clock_res_get", clock, RESULT, at=RESULT, size=8))
    assert struct.unpack("<Q", running.call("configure")) == (1,)


@pytest.mark.parametrize("clock", [2, 3, 0xFFFFFFFF])
def test_there_are_no_clocks_of_the_processors_time(clock: int, lab: Lab) -> None:
    assert ask(lab, "clock_time_get", clock, 0, RESULT)[0] == wasi.INVAL
    assert ask(lab, "clock_res_get", clock, RESULT)[0] == wasi.INVAL


def test_random_bytes_fill_what_was_asked_and_no_more(lab: Lab) -> None:
    wasm = looking("random_get", 8192, 200_000, at=8192, size=200_008)
    first, second = (lab.start(wasm).call("configure") for _ in range(2))
    assert first[200_000:] == bytes(8)
    assert first != second
    for at in range(0, 200_000, 1000):
        assert first[at : at + 1000] != bytes(1000)
    assert ask(lab, "random_get", 0xFFFFFFFF, 0)[0] == wasi.SUCCESS


def test_random_bytes_take_no_longer_than_a_call(lab: Lab) -> None:
    more = i32(8192) + i32(200_000) + call(0) + DROP + b"\x0c\x00"  # again
    wasm = plugin(
        {"configure": b"\x03\x40" + more + b"\x0b" + NOTHING},
        imports=((WASI, "random_get", "iii"),),
    )
    with pytest.raises(GuestFault) as caught:
        lab.start(wasm).call("configure", deadline_s=0.1)
    assert caught.value.kind == "timeout"


def clock_subscription(
    timeout_ns: int, clock: int = 1, *, absolute: bool = False, userdata: int = 7
) -> bytes:
    return struct.pack("<QB7xI4xQQH6x", userdata, 0, clock, timeout_ns, 0, absolute)


def events(raw: bytes) -> list[tuple[int, int, int]]:
    """(userdata, errno, type) of each event, after the count."""
    (count,) = struct.unpack_from("<I", raw)
    return [struct.unpack_from("<QHB", raw, 8 + 32 * at) for at in range(count)]


def polled(lab: Lab, *subscriptions: bytes) -> list[tuple[int, int, int]]:
    data = b"".join(subscriptions)
    count = len(subscriptions)
    at = 100_000
    arguments = (AT, at + 8, count, at)
    wasm = looking("poll_oneoff", *arguments, at=at, size=8 + 32 * count, data=data)
    return events(lab.start(wasm).call("configure"))


def test_a_sleep_lasts_as_long_as_it_was_asked_for(lab: Lab) -> None:
    before = time.monotonic_ns()
    assert polled(lab, clock_subscription(30_000_000)) == [(7, 0, 0)]
    assert time.monotonic_ns() - before >= 30_000_000
    until = time.time_ns() + 30_000_000
    assert polled(lab, clock_subscription(until, 0, absolute=True)) == [(7, 0, 0)]
    assert time.time_ns() >= until
    past = clock_subscription(1, 0, absolute=True)
    assert polled(lab, past) == [(7, 0, 0)]


def test_the_first_clock_that_is_due_ends_a_sleep(lab: Lab) -> None:
    hour = clock_subscription(3600 * 10**9, userdata=1)
    moment = clock_subscription(1000, userdata=2)
    assert polled(lab, hour, moment) == [(2, 0, 0)]
    assert polled(lab, moment, clock_subscription(0, userdata=3), hour) == [(3, 0, 0)]


def test_waiting_for_a_descriptor_or_a_strange_clock_is_answered_at_once(lab: Lab) -> None:
    hour = clock_subscription(3600 * 10**9)
    readable = struct.pack("<QB7xI28x", 8, 1, 0)
    assert polled(lab, hour, readable) == [(8, wasi.NOTSUP, 1)]
    assert polled(lab, hour, clock_subscription(1, 3, userdata=9)) == [(9, wasi.INVAL, 0)]


def test_a_sleep_beyond_the_deadline_ends_the_call(lab: Lab) -> None:
    data = clock_subscription(3600 * 10**9)
    with pytest.raises(GuestFault, match=r"sleep for 3.6e\+03 s and has .* s left") as caught:
        ask(lab, "poll_oneoff", AT, 4096, 1, RESULT, data=data)  # of a minute
    assert caught.value.kind == "timeout"


@pytest.mark.parametrize("count", [0, wasi.MAX_SUBSCRIPTIONS + 1, 0xFFFFFFFF])
def test_no_or_too_many_subscriptions_are_invalid(count: int, lab: Lab) -> None:
    assert ask(lab, "poll_oneoff", AT, 4096, count, RESULT)[0] == wasi.INVAL


def test_as_many_subscriptions_as_are_taken(lab: Lab) -> None:
    found = polled(lab, *[clock_subscription(0)] * wasi.MAX_SUBSCRIPTIONS)
    assert found == [(7, 0, 0)] * wasi.MAX_SUBSCRIPTIONS


def test_short_sleeps_in_a_loop_end_with_the_call(lab: Lab) -> None:
    once = i32(AT) + i32(4096) + i32(1) + i32(RESULT) + call(0) + DROP
    wasm = plugin(
        {"configure": b"\x03\x40" + once + b"\x0c\x00\x0b" + NOTHING},
        imports=((WASI, "poll_oneoff", "iiiii"),),
        data={AT: clock_subscription(1_000_000)},
    )
    with pytest.raises(GuestFault) as caught:
        lab.start(wasm).call("configure", deadline_s=0.1)
    assert caught.value.kind == "timeout"


# ---- a C library ----


def libc(lab: Lab, what: str) -> Running:
    running = lab.start(guest("wasi/libc"))
    running.configure(what)
    running.services.log.flush()
    return running


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("print", [(INFO, "to stdout 42"), (WARN, "to stderr 0.5"), (INFO, "no newline")]),
        ("getenv", [(INFO, "HOME is not set")]),
        ("open", [(INFO, "fopen: no file"), (INFO, "opendir: no folder")]),
        ("stdin", [(INFO, "end of file")]),
        ("clock", [(INFO, "time passes")]),
        ("random", [(INFO, "random")]),
        ("sleep", [(INFO, "slept")]),
        ("time", [(INFO, "after 2020")]),
    ],
)
def test_a_c_library_works(what: str, said: list[tuple[int, str]], lab: Lab) -> None:
    assert libc(lab, what).lines == said


@pytest.mark.parametrize(
    ("what", "kind", "says"),
    [
        ("exit", "trap", r"proc_exit\(3\)"),
        ("abort", "trap", "unreachable"),
        ("sleep long", "timeout", "it would sleep for 1e"),
    ],
)
def test_a_c_library_that_gives_up_is_a_fault(what: str, kind: str, says: str, lab: Lab) -> None:
    with pytest.raises(GuestFault, match=says) as caught:
        libc(lab, what)
    assert caught.value.kind == kind


def test_a_guest_finds_every_function_with_the_types_of_wasi_libc(lab: Lab) -> None:
    # libc.c takes the address of each: the module would be refused otherwise.
    _, info = lab.bench.module(guest("wasi/libc"))
    imported = {one.name for one in info.imports if one.module == WASI}
    # wasi-libc has no proc_raise any more.
    assert PREVIEW_1 - imported == {"proc_raise"}
