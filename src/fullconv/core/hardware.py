"""The cores, memory, disk space and compiler of this machine; in a container, those it may use.

Nothing here needs torch. Sizes are in bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")
_CGROUPS = Path("/sys/fs/cgroup")
_LIMITS = (  # cgroups version 2, then 1
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class Memory:
    """The memory of the machine, or of the container if that has less."""

    total: int
    available: int  # without swapping
    contained: bool = False  # a container's limit applies


def memory_size(cgroups: Path = _CGROUPS) -> Memory:
    """Return how much memory this process may use."""
    import psutil

    machine = psutil.virtual_memory()
    for limit_file, usage_file in _LIMITS:
        limit = _read_number(cgroups / limit_file)
        if limit is not None and limit < machine.total:  # without a limit: a huge number
            left = limit - (_read_number(cgroups / usage_file) or 0)
            return Memory(limit, min(left, machine.available), contained=True)
    return Memory(machine.total, machine.available)


def cpu_count() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def container_cpu_limit(cgroups: Path = _CGROUPS) -> float | None:
    """Return how many cores' time a container may use, such as 1.5; None without a limit."""
    words = _read(cgroups / "cpu.max").split()
    if len(words) == 2 and all(word.isdecimal() for word in words):
        return int(words[0]) / int(words[1])
    quota = _read_number(cgroups / "cpu/cpu.cfs_quota_us")
    period = _read_number(cgroups / "cpu/cpu.cfs_period_us")
    return quota / period if quota and period else None


def cpu_cores(cgroups: Path = _CGROUPS) -> int:
    """Return the number of cores that can be kept busy at the same time."""
    limit = container_cpu_limit(cgroups)
    return cpu_count() if limit is None else max(1, min(cpu_count(), round(limit)))


def free_disk_space(folder: Path) -> int:
    """Return the bytes that can be written to a folder, which need not exist yet."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def find_cpp_compiler() -> str | None:
    """Return the path of a C++ compiler, $CXX first; None if there is none."""
    names = (os.environ.get("CXX", ""), *COMPILERS)
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _read_number(path: Path) -> int | None:
    """Return the number in a file; None if there is no file or it contains "max"."""
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_MADV_HUGEPAGE = 14  # sys/mman.h
_PAGE = 2 * 2**20
_LARGEST_HEAP = 8 * 2**30


@functools.cache
def use_huge_pages() -> bool:
    """Put this process's heap into 2 MiB pages, and return whether the system agreed (Linux only).

    Call it before the first large tensor, and only in a process of our own: the command line's, not
    a notebook's. The heap grows by a quarter of the available memory, at most 8 GiB; that takes up
    memory only where it is used.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError, ValueError):  # another C library
        libc = ctypes.CDLL(None)
        libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
        libc.malloc.argtypes = [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        libc.sbrk.argtypes = [ctypes.c_ssize_t]
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if not (libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, -1)):
            return False
        heap_end = libc.sbrk(0)
        libc.free(libc.malloc(min(_LARGEST_HEAP, memory_size().available // 4)))
        start, end = -(-heap_end // _PAGE) * _PAGE, libc.sbrk(0)
        return bool(end > start and libc.madvise(start, end - start, _MADV_HUGEPAGE) == 0)
    return False


def release_memory(*, force: bool = False) -> None:
    """Return freed memory to the system, which the C library otherwise keeps for each thread.

    After `use_huge_pages` it is kept on purpose, and released only with `force`: before tensors of
    other sizes, which do not fit into its gaps.
    """
    if use_huge_pages.cache_info().currsize and not force:
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
