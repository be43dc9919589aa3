"""What a board's kernel says of its memory, read."""

from __future__ import annotations

from tests.boards.memory import Killed, fields, killed, shares

# mm/oom_kill.c, Linux 6.12, as Debian's kernel printed it.
LOG = """\
python3 invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=1000
Memory cgroup out of memory: Killed process 812 (python3) total-vm:91012kB, anon-rss:23552kB, \
file-rss:1024kB, shmem-rss:0kB, UID:74747 pgtables:140kB oom_score_adj:1000
Out of memory: Killed process 700 (tail (a) b) total-vm:400000kB, anon-rss:1536kB, \
file-rss:128kB, shmem-rss:0kB, UID:0 pgtables:60kB oom_score_adj:-999
oom_reaper: reaped process 700 (tail), now anon-rss:0kB, file-rss:128kB, shmem-rss:0kB
"""


def test_what_the_kernel_ended_is_read_with_the_reason() -> None:
    found = killed(LOG)
    assert found == [
        Killed(by_cgroup=True, name="python3", mib=23, score=1000),
        Killed(by_cgroup=False, name="tail (a) b", mib=1, score=-999),
    ]
    assert str(found[0]) == "python3, 23 MiB, score 1000: its cgroup's limit"
    assert str(found[1]) == "tail (a) b, 1 MiB, score -999: the board's memory"
    assert killed("") == []


def test_the_kernels_files_are_read() -> None:
    assert fields("MemTotal:         191488 kB\nMemFree: 7 kB\n") == {
        "MemTotal": 191488,
        "MemFree": 7,
    }
    assert fields("anon 4096\nfile 8192\n\n") == {"anon": 4096, "file": 8192}


def test_shares_are_summed_by_name() -> None:
    said = (
        "2048 1 systemd\n1024 33 (sd-pam)\n3072 40 containerd\n512 41 containerd\n5120 77 python3\n"
    )
    found = shares(said, "77", ("systemd", "containerd"))
    assert found == {"systemd": 2.0, "others": 1.0, "containerd": 3.5, "edge-agent": 5.0}
    assert shares(said, "0", ())["others"] == 11.5
