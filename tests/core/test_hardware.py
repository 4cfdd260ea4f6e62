"""Memory, cores, disk space and compilers of machines and containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from fullconv.core import hardware
from fullconv.core.hardware import (
    Memory,
    container_cpu_limit,
    cpu_cores,
    cpu_count,
    find_cpp_compiler,
    free_disk_space,
    memory_size,
)

GIB = 2**30


V1 = "memory/memory.limit_in_bytes"
QUOTA, PERIOD = "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"


def cgroups(root: Path, files: dict[str, str]) -> Path:
    """Write files of /sys/fs/cgroup."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Memory(16 * GIB, 12 * GIB)),
        ({"memory.max": "max\n"}, Memory(16 * GIB, 12 * GIB)),
        (
            {"memory.max": f"{2 * GIB}\n", "memory.current": f"{GIB}\n"},
            Memory(2 * GIB, GIB, contained=True),
        ),
        ({V1: f"{2**63 - 4096}"}, Memory(16 * GIB, 12 * GIB)),  # version 1, no limit
        (
            {V1: f"{4 * GIB}", "memory/memory.usage_in_bytes": "0"},
            Memory(4 * GIB, 4 * GIB, contained=True),
        ),
    ],
)
def test_memory_of_machines_and_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: Memory
) -> None:
    memory = SimpleNamespace(total=16 * GIB, available=12 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert memory_size(cgroups(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("files", "limit", "cores"),
    [
        ({}, None, cpu_count()),
        ({"cpu.max": "max 100000\n"}, None, cpu_count()),
        ({"cpu.max": "50000 100000\n"}, 0.5, 1),
        ({"cpu.max": "900000000 100000\n"}, 9000, cpu_count()),
        ({QUOTA: "-1", PERIOD: "100000"}, None, cpu_count()),
        ({QUOTA: "150000", PERIOD: "100000"}, 1.5, min(2, cpu_count())),
    ],
)
def test_cores_that_a_container_may_use(
    tmp_path: Path, files: dict[str, str], limit: float | None, cores: int
) -> None:
    cgroups(tmp_path, files)
    assert container_cpu_limit(tmp_path) == limit
    assert cpu_cores(tmp_path) == cores


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    expected = stat.f_bavail * stat.f_frsize
    assert free_disk_space(tmp_path / "a/b/c") == pytest.approx(expected, rel=0.05)


def test_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_cpp_compiler() is None
    for name in ("clang++", "my-cxx"):
        shutil.copy("/bin/sh", tmp_path / name)
    assert find_cpp_compiler() == str(tmp_path / "clang++")
    monkeypatch.setenv("CXX", "my-cxx")
    assert find_cpp_compiler() == str(tmp_path / "my-cxx")


CODE = """
import re
from pathlib import Path
from fullconv.core.hardware import use_huge_pages

def huge():
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"AnonHugePages:\\s+(\\d+)", text)[1])

assert use_huge_pages() and use_huge_pages()
before = huge()
block = bytearray(64 * 2**20)
print(huge() - before)
"""


def in_a_process_of_its_own(code: str, *words: str) -> str:
    argv = [sys.executable, "-c", code, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_large_blocks_are_in_large_pages() -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.is_file() or "[never]" in setting.read_text():
        pytest.skip("this system has no transparent huge pages")
    assert int(in_a_process_of_its_own(CODE)) >= 32 * 1024  # of 64 MiB, in KiB


def test_other_systems_have_no_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware.use_huge_pages.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert hardware.use_huge_pages() is False
    monkeypatch.setattr(sys, "platform", "linux")
    hardware.use_huge_pages.cache_clear()

    def another(_: object) -> object:
        raise OSError("no such library")

    monkeypatch.setattr(hardware.ctypes, "CDLL", another)
    assert hardware.use_huge_pages() is False
    hardware.use_huge_pages.cache_clear()


GIVEN_BACK = """
import re, sys, threading
from pathlib import Path
from fullconv.core.hardware import release_memory, use_huge_pages

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def work():
    blocks = [bytearray(100_000) for _ in range(1500)]
    kept.append(blocks.pop())

kept = []
if "pages" in sys.argv:
    use_huge_pages()
thread = threading.Thread(target=work)
thread.start()
thread.join()
before = resident()
release_memory(force="too" in sys.argv)
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("words", "least", "most"),
    [
        ((), 100_000, 200_000),  # KiB of 150 MB
        (("pages",), -100_000, 10_000),  # kept on purpose
        (("pages", "too"), 100_000, 200_000),
    ],
)
def test_memory_that_a_thread_freed_is_released(
    words: tuple[str, ...], least: int, most: int
) -> None:
    assert least < int(in_a_process_of_its_own(GIVEN_BACK, *words)) < most
