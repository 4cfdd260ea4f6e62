"""What this machine gives: processors, memory, disks, a compiler. Of a container, what it may use.

Nothing here needs torch. Sizes are in bytes.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from fullconv.inference.sharding import processors

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


def memory(root: Path = Path("/")) -> Memory:
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


def granted(root: Path = Path("/")) -> float | None:
    """How many processors' time a container may take, such as 1.5; None where nothing limits it."""
    groups = root / "sys/fs/cgroup"
    words = _text(groups / "cpu.max").split()
    if len(words) == 2 and all(word.isdecimal() for word in words):
        return int(words[0]) / int(words[1])
    quota, period = (_number(groups / f"cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    return quota / period if quota and period else None


def cores(root: Path = Path("/")) -> int:
    """Processors that can be kept busy at the same time."""
    share = granted(root)
    return processors() if share is None else max(1, min(processors(), round(share)))


def free(folder: Path) -> int:
    """Bytes that can be written there; of a folder that is not there yet, where it would be made.

    Raises:
        OSError: the disk does not say.
    """
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def compiler() -> str | None:
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
