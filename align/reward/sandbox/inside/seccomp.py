"""System calls that the code may not make: a seccomp filter that it cannot take off.

No sockets, no new processes, no other program, no signals to others, no look into other processes, none
of the calls that have been ways out of sandboxes. Threads are allowed. What is refused fails with
EPERM; it does not kill.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from . import kernel

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_PR_SET_SECCOMP, _FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGS = 0, 4, 16  # offsets in struct seccomp_data
_CLONE_THREAD = 0x00010000
_OWN_PID = 0xA11C0DE5  # stands for it in the compiled filter

_COMMON = frozenset({436, 437, 439, 441, 449})
"""Above 423 all machines share their numbers; of these close_range, openat2, faccessat2, epoll_pwait2
and futex_waitv are known and harmless. The rest (io_uring, clone3, pidfds, mounting, and whatever later
kernels bring) is answered as an old kernel would: the C library then takes the older call."""
_FIRST_COMMON = 424

# name: (x86_64, aarch64)
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "setpriority": (141, 140),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "personality": (135, 92),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
}
# Where files are guarded by Landlock alone: it does not govern their owner, mode, times and attributes.
_REFUSED_ON_FILES: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
}
_KILL, _TGKILL, _PRLIMIT = (62, 129), (234, 131), (302, 261)
_CLONE, _FCNTL, _IOCTL, _PRCTL = (56, 220), (72, 25), (16, 29), (157, 167)
_SET_PDEATHSIG = 1  # without it a process could outlive the sandbox
_FCNTL_SIGNALS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals by way of a descriptor
_IOCTL_SIGNALS = (0x8901, 0x8902, 0x5410, 0x5412)  # FIOSETOWN, SIOCSPGRP, TIOCSPGRP, TIOCSTI


def supported() -> bool:
    """Whether this machine's system call numbers are known."""
    return os.uname().machine in _ARCHITECTURES


class Filter:
    """A compiled filter, to be put on by copies of the process that compiled it.

    Args:
        files: also refuse changes of mode, owner, times and attributes of files.
    """

    def __init__(self, *, files: bool) -> None:
        program = _program(files)
        self._instructions = ctypes.create_string_buffer(program, len(program))
        constants = range(4, len(program), 8)
        self._own_pid = [at for at in constants if program[at : at + 4] == _OWN_PID.to_bytes(4, "little")]
        header = struct.pack("@HP", len(program) // 8, ctypes.addressof(self._instructions))
        self._header = ctypes.create_string_buffer(header, len(header))

    def restrict(self) -> None:
        """Put this process under the filter, for good. ``no_new_privs`` must be set.

        Raises:
            OSError: the kernel refuses.
        """
        for at in self._own_pid:
            struct.pack_into("=I", self._instructions, at, os.getpid())
        kernel.prctl(_PR_SET_SECCOMP, _FILTER, self._header)


def _program(files: bool) -> bytes:
    machine = os.uname().machine
    column = list(_ARCHITECTURES).index(machine)
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    unknown = (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)
    allow = (_RETURN, 0, 0, _ALLOW)
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        refuse,
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, len(_COMMON) + 2, _FIRST_COMMON),
        *((_EQUAL, len(_COMMON) - place, 0, number) for place, number in enumerate(sorted(_COMMON))),
        unknown,
        allow,
    ]

    def where(number: tuple[int | None, int | None], *block: tuple[int, int, int, int]) -> None:
        """Decide a call by its arguments; the block ends in a return."""
        code.extend([(_EQUAL, 0, len(block), number[column] or 0), *block])

    where(_KILL, (_LOAD, 0, 0, _ARGS), (_EQUAL, 1, 0, _OWN_PID), refuse, allow)
    where(_TGKILL, (_LOAD, 0, 0, _ARGS), (_EQUAL, 1, 0, _OWN_PID), refuse, allow)
    where(_PRLIMIT, (_LOAD, 0, 0, _ARGS), (_EQUAL, 2, 0, 0), (_EQUAL, 1, 0, _OWN_PID), refuse, allow)
    where(_CLONE, (_LOAD, 0, 0, _ARGS), (_ANY_BIT, 1, 0, _CLONE_THREAD), refuse, allow)
    where(_PRCTL, (_LOAD, 0, 0, _ARGS), (_EQUAL, 0, 1, _SET_PDEATHSIG), refuse, allow)
    for call, commands in ((_FCNTL, _FCNTL_SIGNALS), (_IOCTL, _IOCTL_SIGNALS)):
        tests = [(_EQUAL, len(commands) - place, 0, command) for place, command in enumerate(commands)]
        where(call, (_LOAD, 0, 0, _ARGS + 8), *tests, allow, refuse)
    refused = [*_REFUSED.values(), *(_REFUSED_ON_FILES.values() if files else ())]
    numbers = [number for pair in refused if (number := pair[column]) is not None]
    code += [step for number in numbers for step in ((_EQUAL, 0, 1, number), refuse)]
    code.append(allow)
    return b"".join(struct.pack("=HBBI", *step) for step in code)
