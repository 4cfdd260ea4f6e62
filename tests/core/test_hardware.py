"""What a machine and a container give, read from drawn files of the kernel."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fullconv.core.hardware import (
    Memory,
    container_cpu_limit,
    cpu_cores,
    cpu_count,
    find_cpp_compiler,
    free_disk_space,
    memory_size,
)

KIB = 1024


def machine(root: Path, **files: str) -> Path:
    """A tree with files of proc and sys; __ in a name is a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:   12000000 kB\n"


def test_memory_of_a_machine_and_of_a_container(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__meminfo=MEMINFO)
    assert memory_size(root) == Memory(16_000_000 * KIB, 12_000_000 * KIB)
    machine(root, sys__fs__cgroup__memory_DOT_max="max\n")
    assert memory_size(root) == Memory(16_000_000 * KIB, 12_000_000 * KIB)
    machine(root, sys__fs__cgroup__memory_DOT_max=f"{2**31}\n")
    machine(root, sys__fs__cgroup__memory_DOT_current=f"{2**30}\n")
    assert memory_size(root) == Memory(2**31, 2**30, contained=True)


def test_memory_of_an_older_container(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__meminfo=MEMINFO)
    older = "sys__fs__cgroup__memory__memory_DOT_limit_in_bytes"
    machine(root, **{older: f"{2**63 - 4096}"})  # no limit
    assert not memory_size(root).contained
    machine(root, **{older: f"{2**32}", "sys__fs__cgroup__memory__memory_DOT_usage_in_bytes": "0"})
    assert memory_size(root) == Memory(2**32, 2**32, contained=True)


def test_memory_of_this_machine_is_what_the_system_says() -> None:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = memory_size()
    assert 0 < (found.available or 1) <= found.total <= pages


def test_processors_that_a_container_may_keep_busy(tmp_path: Path) -> None:
    assert (container_cpu_limit(tmp_path), cpu_cores(tmp_path)) == (None, cpu_count())
    machine(tmp_path, sys__fs__cgroup__cpu_DOT_max="max 100000\n")
    assert container_cpu_limit(tmp_path) is None
    machine(tmp_path, sys__fs__cgroup__cpu_DOT_max="50000 100000\n")
    assert (container_cpu_limit(tmp_path), cpu_cores(tmp_path)) == (0.5, 1)
    machine(tmp_path, sys__fs__cgroup__cpu_DOT_max="900000000 100000\n")
    assert cpu_cores(tmp_path) == cpu_count()


def test_an_older_container(tmp_path: Path) -> None:
    machine(tmp_path, sys__fs__cgroup__cpu__cpu_DOT_cfs_quota_us="-1")
    machine(tmp_path, sys__fs__cgroup__cpu__cpu_DOT_cfs_period_us="100000")
    assert container_cpu_limit(tmp_path) is None
    machine(tmp_path, sys__fs__cgroup__cpu__cpu_DOT_cfs_quota_us="150000")
    assert container_cpu_limit(tmp_path) == 1.5


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    there = stat.f_bavail * stat.f_frsize
    assert free_disk_space(tmp_path / "a/b/c") == pytest.approx(there, rel=0.05)


def test_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_cpp_compiler() is None
    for name in ("clang++", "my-cxx"):
        shutil.copy("/bin/sh", tmp_path / name)
    assert find_cpp_compiler() == str(tmp_path / "clang++")
    monkeypatch.setenv("CXX", "my-cxx")
    assert find_cpp_compiler() == str(tmp_path / "my-cxx")
