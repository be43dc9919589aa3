"""The sandbox of a compiler's process, entered before it reads a module: docs/adr/0038.

    another user and group    that no file and no other process belongs to
    a filter of system calls  nothing but memory, threads and what is open (seccomp(2))
    no new privileges         whatever it could start

What this kernel, container or user does not allow is named, and compiling goes on: a board that
cannot confine its compiler must not lose its plugins.

Compiling takes memory, threads, and the three descriptors that are open; everything that reaches
other processes, files, the network or the kernel's rarer parts gives EPERM. A list of what is
forbidden rather than of what is allowed: a C library or an engine that asks for something new
goes on, on every architecture, and what is newer than this list gives ENOSYS.

Numbers: Linux 6.18, arch/x86/entry/syscalls/syscall_64.tbl, scripts/syscall.tbl (64-bit ARM and
RISC-V), arch/arm/tools/syscall.tbl.
"""

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

# Nobody's: beyond what systemd and Debian give to users and services (up to 65535), and below
# where containers' ids begin (100000, subuid(5)). Needs no entry in /etc/passwd.
COMPILER_ID = 74_747

_CAP_KILL, _CAP_SETGID, _CAP_SETUID = 5, 6, 7  # linux/capability.h
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_SET_MODE_FILTER, _ALL_THREADS = 1, 1  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine(dies_with_parent: Callable[[], None]) -> list[str]:
    """Give up all of it, in all threads (engines have some); what could not be given up, for
    people.

    `dies_with_parent` is called once the user has changed, which makes the kernel forget that
    this process is to be killed when its parent ends (prctl(2), PR_SET_PDEATHSIG).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    lacking = []
    reason = _change_user()
    if reason:
        lacking.append(f"it runs as the agent's user ({reason})")
    dies_with_parent()
    reason = filter_calls(libc)
    if reason:
        lacking.append(f"its system calls are not filtered ({reason})")
    return lacking


def _change_user() -> str:
    """Why not, or ""."""
    capabilities = _capabilities()
    needed = {"CAP_SETUID": _CAP_SETUID, "CAP_SETGID": _CAP_SETGID, "CAP_KILL": _CAP_KILL}
    # Without the last the agent could not end a compiler that takes too long.
    missing = [name for name, bit in needed.items() if not capabilities >> bit & 1]
    if missing:
        return f"{', '.join(missing)} missing"
    try:
        os.setgroups([])
        os.setresgid(COMPILER_ID, COMPILER_ID, COMPILER_ID)
        os.setresuid(COMPILER_ID, COMPILER_ID, COMPILER_ID)
    except OSError as error:  # such as an id that this container does not map
        return os.strerror(error.errno or 0)
    return ""


def _capabilities() -> int:
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123 - no pathlib in this process
            lines = status.read().splitlines()
        for line in lines:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    except (OSError, ValueError):
        pass  # no /proc: nothing is known to be allowed
    return 0


def filter_calls(libc: ctypes.CDLL) -> str:
    """Why not, or ""."""
    known = architecture(os.uname().machine, struct.calcsize("P"))
    if known is None:
        return f"none is known for {os.uname().machine}"
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return os.strerror(ctypes.get_errno())
    code = program(known, os.getpid())
    wanted = _Program(len(code) // 8, code)
    number = SECCOMP[known.column]
    if libc.syscall(number, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(wanted)):
        return f"{os.strerror(ctypes.get_errno())}; a kernel without CONFIG_SECCOMP_FILTER?"
    return ""


# name x86-64/generic/arm
_FORBIDDEN = """
the network: socket 41/198/281, socketpair 53/199/288, connect 42/203/283, bind 49/200/282,
listen 50/201/284, accept 43/202/285, accept4 288/242/366, sendto 44/206/290, sendmsg 46/211/296,
sendmmsg 307/269/374

programs and processes: execve 59/221/11, execveat 322/281/387, fork 57/-/2, vfork 58/-/190,
ptrace 101/117/26, process_vm_readv 310/270/376, process_vm_writev 311/271/377,
process_madvise 440/440/440, process_mrelease 448/448/448, kcmp 312/272/378, kill 62/129/37,
tkill 200/130/238, rt_sigqueueinfo 129/138/178, rt_tgsigqueueinfo 297/240/363,
pidfd_open 434/434/434, pidfd_send_signal 424/424/424, pidfd_getfd 438/438/438,
setpriority 141/140/97, ioprio_set 251/30/314, sched_setaffinity 203/122/241,
sched_setscheduler 144/119/156, sched_setparam 142/118/154, sched_setattr 314/274/380,
migrate_pages 256/238/400, move_pages 279/239/344, setsid 112/157/66, setpgid 109/154/57

who it is: setuid 105/146/23, setgid 106/144/46, setreuid 113/145/70, setregid 114/143/71,
setresuid 117/147/164, setresgid 119/149/170, setgroups 116/159/81, setfsuid 122/151/138,
setfsgid 123/152/139, setuid32 -/-/213, setgid32 -/-/214, setreuid32 -/-/203, setregid32 -/-/204,
setresuid32 -/-/208, setresgid32 -/-/210, setgroups32 -/-/206, setfsuid32 -/-/215,
setfsgid32 -/-/216, capset 126/91/185

namespaces and mounts: unshare 272/97/337, setns 308/268/375, mount 165/40/21, umount2 166/39/52,
pivot_root 155/41/218, chroot 161/51/61, move_mount 429/429/429, fsopen 430/430/430,
fsconfig 431/431/431, fsmount 432/432/432, fspick 433/433/433, open_tree 428/428/428,
mount_setattr 442/442/442

files: open 2/-/5, openat 257/56/322, openat2 437/437/437, creat 85/-/8,
open_by_handle_at 304/265/371, name_to_handle_at 303/264/370, link 86/-/9, linkat 265/37/330,
symlink 88/-/83, symlinkat 266/36/331, unlink 87/-/10, unlinkat 263/35/328, rename 82/-/38,
renameat 264/38/329, renameat2 316/276/382, mkdir 83/-/39, mkdirat 258/34/323, rmdir 84/-/40,
mknod 133/-/14, mknodat 259/33/324, truncate 76/45/92, truncate64 -/-/193, chmod 90/-/15,
fchmod 91/52/94, fchmodat 268/53/333, fchmodat2 452/452/452, chown 92/-/182, lchown 94/-/16,
fchown 93/55/95, fchownat 260/54/325, chown32 -/-/212, lchown32 -/-/198, fchown32 -/-/207,
utime 132/-/30, utimes 235/-/269, futimesat 261/-/326, utimensat 280/88/348,
utimensat_time64 -/-/412, setxattr 188/5/226, lsetxattr 189/6/227, fsetxattr 190/7/228,
removexattr 197/14/235, lremovexattr 198/15/236, fremovexattr 199/16/237, inotify_init 253/-/316,
inotify_init1 294/26/360, inotify_add_watch 254/27/317, fanotify_init 300/262/367,
fanotify_mark 301/263/368, quotactl 179/60/131, quotactl_fd 443/443/443, swapon 167/224/87,
swapoff 168/225/115, acct 163/89/51, chdir 80/49/12, fchdir 81/50/133

the kernel: bpf 321/280/386, perf_event_open 298/241/364, io_uring_setup 425/425/425,
io_uring_enter 426/426/426, io_uring_register 427/427/427, io_setup 206/0/243,
io_submit 209/2/246, userfaultfd 323/282/388, add_key 248/217/309, request_key 249/218/310,
keyctl 250/219/311, init_module 175/105/128, finit_module 313/273/379, delete_module 176/106/129,
kexec_load 246/104/347, kexec_file_load 320/294/401, reboot 169/142/88, syslog 103/116/103,
settimeofday 164/170/79, clock_settime 227/112/262, clock_settime64 -/-/404,
clock_adjtime 305/266/372, clock_adjtime64 -/-/405, adjtimex 159/171/124, stime -/-/25,
sethostname 170/161/74, setdomainname 171/162/121, iopl 172/-/-, ioperm 173/-/-,
modify_ldt 154/-/-, personality 135/92/136, vhangup 153/58/111, lookup_dcookie 212/18/249,
nfsservctl 180/42/169

memory that others have: shmget 29/194/307, shmat 30/196/305, shmctl 31/195/308,
msgget 68/186/303, msgsnd 69/189/301, msgrcv 70/188/302, msgctl 71/187/304, semget 64/190/299,
semop 65/193/298, semtimedop 220/192/312, semctl 66/191/300, mq_open 240/180/274,
mq_unlink 241/181/275
"""
# What an argument decides.
_CLONE, _TGKILL, _PRLIMIT, _PRCTL = (
    (56, 220, 120),
    (234, 131, 268),
    (302, 261, 369),
    (157, 167, 172),
)
SECCOMP = (317, 277, 383)
_CLONE3 = 435  # its flags are in memory; without it the C library takes clone
_NEWER = 463  # the first after mseal: nothing here knows what it does
_ARM_OWN = 0x0F0000  # cacheflush and set_tls, which machine code and threads need there

_CLONE_THREAD = 0x10000
_CLONE_NEW = 0x7E020080  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME
_PR_SET_NAME, _PR_SET_VMA = 15, 0x53564D41  # threads and memory get their names with these

_EPERM, _ENOSYS = 1, 38
_ALLOW, _KILL = 0x7FFF0000, 0x80000000  # SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS
_ERROR = 0x00050000  # SECCOMP_RET_ERRNO
_LOAD, _RETURN = 0x20, 0x06  # BPF_LD | BPF_W | BPF_ABS; BPF_RET | BPF_K
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45  # BPF_JMP | BPF_K with JEQ, JGE, JSET
_NUMBER_AT, _ARCH_AT, _ARGUMENT_AT = 0, 4, 16  # struct seccomp_data; the lower half, little-endian

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter


class Architecture(NamedTuple):
    """How the kernel calls it (AUDIT_ARCH_..., linux/audit.h), and its column above."""

    audit: int
    column: int


_X86_64, _AARCH64 = Architecture(0xC000003E, 0), Architecture(0xC00000B7, 1)
_RISCV64, _ARM = Architecture(0xC00000F3, 1), Architecture(0x40000028, 2)


def architecture(machine: str, pointer_bytes: int) -> Architecture | None:
    """The architecture of a process with pointers of this size on this machine (uname); None: it
    is none that is supported."""
    if pointer_bytes == 8:
        return {"x86_64": _X86_64, "aarch64": _AARCH64, "riscv64": _RISCV64}.get(machine)
    return _ARM if machine.startswith(("arm", "aarch64")) else None


def forbidden(column: int) -> dict[str, int]:
    """name -> number."""
    found = {}
    for group in _FORBIDDEN.strip().split("\n\n"):
        for entry in group.partition(": ")[2].replace("\n", " ").split(","):
            name, numbers = entry.split()
            number = numbers.split("/")[column]
            if number != "-":
                found[name] = int(number)
    return found


def program(architecture: Architecture, pid: int) -> bytes:
    """The filter for the process with this id: instructions of struct sock_filter."""
    return b"".join(_INSTRUCTION.pack(*each) for each in _program(architecture, pid))


def _program(architecture: Architecture, pid: int) -> Iterator[tuple[int, int, int, int]]:
    column = architecture.column
    refuse = (_RETURN, 0, 0, _ERROR | _EPERM)
    unknown = (_RETURN, 0, 0, _ERROR | _ENOSYS)
    allow = (_RETURN, 0, 0, _ALLOW)
    yield _LOAD, 0, 0, _ARCH_AT
    yield _EQUAL, 1, 0, architecture.audit
    yield _RETURN, 0, 0, _KILL
    yield _LOAD, 0, 0, _NUMBER_AT
    if architecture is _ARM:
        yield _AT_LEAST, 0, 1, _ARM_OWN
        yield allow
    yield _AT_LEAST, 0, 1, _NEWER
    yield unknown
    yield _EQUAL, 0, 1, _CLONE3
    yield unknown
    for number in forbidden(column).values():
        yield _EQUAL, 0, 1, number
        yield refuse
    # A thread of its own, in no new namespace.
    yield _EQUAL, 0, 5, _CLONE[column]
    yield _LOAD, 0, 0, _ARGUMENT_AT
    yield _ANY_BIT, 2, 0, _CLONE_NEW
    yield _ANY_BIT, 0, 1, _CLONE_THREAD
    yield allow
    yield refuse
    # A signal to itself, which is what abort() is; limits of itself, which only become lower.
    for number, values in (
        (_TGKILL[column], (pid, pid)),
        (_PRLIMIT[column], (0, pid)),
        (_PRCTL[column], (_PR_SET_NAME, _PR_SET_VMA)),
    ):
        yield _EQUAL, 0, 5, number
        yield _LOAD, 0, 0, _ARGUMENT_AT
        yield _EQUAL, 1, 0, values[0]
        yield _EQUAL, 0, 1, values[1]
        yield allow
        yield refuse
    yield allow
