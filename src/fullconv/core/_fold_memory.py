"""Large pages for large tensors, on Linux; and memory given back.

By default the C library gives every tensor of some ten megabytes back to the system when it is
freed, and the system hands it out anew in pages of 4 KB, each cleared first: a seventh of a
training step on a CPU. Told to keep what was freed, in a heap of 2 MB pages, it does neither.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import re
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_MADV_HUGEPAGE = 14  # sys/mman.h
_PAGE = 2 * 2**20
_LARGEST = 8 * 2**30


@functools.cache
def use_large_pages() -> bool:
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


def give_back(*, kept: bool = False) -> None:
    """What was freed goes back to the system; the C library would keep much of it, for each thread
    apart. In a process that keeps it on purpose only if `kept`: where tensors of other sizes come,
    for which its holes are too small."""
    if use_large_pages.cache_info().currsize and not kept:
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _available() -> int:
    """Bytes of memory that can be had without swapping."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return 1024 * int(found[1]) if found else 0
