"""What this machine gives: processors, memory, disks, a compiler. Of a container, what it may use.

Nothing here needs torch. Sizes are in bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")
_ENDLESS = 1 << 60  # what a group without a limit says, or more


@dataclass(frozen=True)
class Memory:
    """Of the machine, or of the container where that has less.

    Attributes:
        total: bytes; 0 where nobody says.
        available: bytes that can be had without swapping; None where nobody says.
        contained: a container's limit is what counts.
    """

    total: int
    available: int | None
    contained: bool = False


def memory_size(root: Path = Path("/")) -> Memory:
    """How much there is; `root` is where proc and sys lie."""
    told = _text(root / "proc/meminfo")
    rows = {name: 1024 * int(count) for name, count in re.findall(r"(\w+):\s+(\d+) kB", told)}
    total, available = rows.get("MemTotal", 0), rows.get("MemAvailable")
    if not rows and hasattr(os, "sysconf"):  # macOS
        with contextlib.suppress(OSError, ValueError):
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    groups = root / "sys/fs/cgroup"
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        most, now = _number(groups / limit), _number(groups / used)
        if most is not None and most < min(total or _ENDLESS, _ENDLESS):
            left = most - (now or 0)
            return Memory(most, left if available is None else min(left, available), True)
    return Memory(total, available)


def container_cpu_limit(root: Path = Path("/")) -> float | None:
    """How many processors' time a container may take, such as 1.5; None where nothing limits it."""
    groups = root / "sys/fs/cgroup"
    words = _text(groups / "cpu.max").split()
    if len(words) == 2 and all(word.isdecimal() for word in words):
        return int(words[0]) / int(words[1])
    quota, period = (_number(groups / f"cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    return quota / period if quota and period else None


def cpu_cores(root: Path = Path("/")) -> int:
    """Processors that can be kept busy at the same time."""
    share = container_cpu_limit(root)
    return cpu_count() if share is None else max(1, min(cpu_count(), round(share)))


def free_disk_space(folder: Path) -> int:
    """Bytes that can be written there; of a folder that is not there yet, where it would be made.

    Raises:
        OSError: the disk does not say.
    """
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def find_cpp_compiler() -> str | None:
    """Where a C++ compiler is; None: there is none."""
    named = os.environ.get("CXX", "")
    return next(
        (path for name in (named, *COMPILERS) if name and (path := shutil.which(name))), None
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    """None where there is none, or where it says max."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_MADV_HUGEPAGE = 14  # sys/mman.h
_PAGE = 2 * 2**20
_LARGEST = 8 * 2**30


@functools.cache
def use_huge_pages() -> bool:
    """For the rest of this process, so for one that is ours alone: the command line's, not a
    notebook. To be called before the first large tensor. Whether the system agreed.

    The heap is stretched by up to a quarter of the memory that is available, at most 8 GiB; it
    takes up memory only where it is used.
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
        before = libc.sbrk(0)
        libc.free(libc.malloc(min(_LARGEST, _available() // 4)))
        start, end = -(-before // _PAGE) * _PAGE, libc.sbrk(0)
        return bool(end > start and libc.madvise(start, end - start, _MADV_HUGEPAGE) == 0)
    return False


def release_memory(*, kept: bool = False) -> None:
    """What was freed goes back to the system; the C library would keep much of it, for each thread
    apart. In a process that keeps it on purpose only if `kept`: where tensors of other sizes come,
    for which its holes are too small."""
    if use_huge_pages.cache_info().currsize and not kept:
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _available() -> int:
    """Bytes of memory that can be had without swapping."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return 1024 * int(found[1]) if found else 0


def cpu_count() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
