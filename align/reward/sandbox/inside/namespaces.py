"""A file system, network and process table of one's own, by user namespaces. Needs no privileges."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from . import kernel

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_MOUNT_SETATTR, _PIVOT_ROOT = 442, {"x86_64": 155, "aarch64": 41}
_ATTR_RDONLY, _ATTR_NOSUID, _AT_RECURSIVE, _AT_FDCWD = 1, 2, 0x8000, -100
_NOBODY = 65534

SCRATCH = "/tmp"
"""The scratch folder in the new file system."""
SCRATCH_BYTES = 16 << 20
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


def readable() -> list[str]:
    """What the code may read: the interpreter, its standard library and shared libraries."""
    prefixes = {sys.base_prefix, sys.base_exec_prefix}
    prefixes |= {os.path.realpath(prefix) for prefix in prefixes}
    system = {"/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo"}
    files = {"/etc/ld.so.cache", "/etc/localtime"}
    return sorted(path for path in prefixes | system | files if os.path.exists(path))


def enter(folder: str) -> None:
    """Move this process to new namespaces; only its children are in the new process table.

    Afterwards ``/`` has nothing but ``readable()``, three devices and an empty scratch folder of
    ``SCRATCH_BYTES`` in memory, the only place that can be written.

    Args:
        folder: an empty folder to build the new file system on.

    Raises:
        OSError: the machine does not allow it.
    """
    machine = os.uname().machine
    if machine not in _PIVOT_ROOT:
        raise OSError(f"system call numbers of {machine} are not known")
    user, group = os.geteuid(), os.getegid()
    kernel.call("unshare", _NEWUSER | _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{_NOBODY} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{_NOBODY} {group} 1")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", folder, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")
    for path in (*readable(), *DEVICES):
        _bind(path, folder)
    scratch = folder + SCRATCH
    os.mkdir(scratch)
    options = f"size={SCRATCH_BYTES},nr_inodes=4096,mode=700"
    os.chdir(folder)
    kernel.syscall(_PIVOT_ROOT[machine], b".", b".")
    kernel.call("umount2", b".", _MNT_DETACH)
    os.chdir("/")
    _read_only("/", recursive=True)
    _mount("tmpfs", SCRATCH, "tmpfs", _MS_NOSUID | _MS_NODEV, options)


def _bind(source: str, folder: str) -> None:
    target = folder + source
    if os.path.exists(target):  # inside of a folder that is there already: outer ones come first
        return
    if os.path.isdir(source):
        os.makedirs(target)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(target).touch()
    _mount(source, target, None, _MS_BIND | _MS_REC)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    encoded = None if kind is None else kind.encode()
    kernel.call(
        "mount", source.encode(), target.encode(), encoded, ctypes.c_ulong(flags), options.encode() or None
    )


def _read_only(path: str, *, recursive: bool) -> None:
    attributes = (ctypes.c_uint64 * 4)(_ATTR_RDONLY | _ATTR_NOSUID, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    kernel.syscall(_MOUNT_SETATTR, _AT_FDCWD, path.encode(), flags, ctypes.byref(attributes), 32)
