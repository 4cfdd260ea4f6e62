"""Memory, cores, disk space and compilers of machines and containers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
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

GIB = 2**30


def cgroups(root: Path, **files: str) -> Path:
    """Write files of /sys/fs/cgroup; __ in a name is a slash, _DOT_ a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total=16 * GIB, available=12 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Memory(16 * GIB, 12 * GIB)),
        ({"memory_DOT_max": "max\n"}, Memory(16 * GIB, 12 * GIB)),
        (
            {"memory_DOT_max": f"{2 * GIB}\n", "memory_DOT_current": f"{GIB}\n"},
            Memory(2 * GIB, GIB, contained=True),
        ),
        (
            {"memory__memory_DOT_limit_in_bytes": f"{2**63 - 4096}"},  # version 1, no limit
            Memory(16 * GIB, 12 * GIB),
        ),
        (
            {
                "memory__memory_DOT_limit_in_bytes": f"{4 * GIB}",
                "memory__memory_DOT_usage_in_bytes": "0",
            },
            Memory(4 * GIB, 4 * GIB, contained=True),
        ),
    ],
)
def test_memory_of_machines_and_containers(
    tmp_path: Path, files: dict[str, str], expected: Memory
) -> None:
    assert memory_size(cgroups(tmp_path, **files)) == expected


@pytest.mark.parametrize(
    ("files", "limit", "cores"),
    [
        ({}, None, cpu_count()),
        ({"cpu_DOT_max": "max 100000\n"}, None, cpu_count()),
        ({"cpu_DOT_max": "50000 100000\n"}, 0.5, 1),
        ({"cpu_DOT_max": "900000000 100000\n"}, 9000, cpu_count()),
        (
            {"cpu__cpu_DOT_cfs_quota_us": "-1", "cpu__cpu_DOT_cfs_period_us": "100000"},
            None,
            cpu_count(),
        ),
        (
            {"cpu__cpu_DOT_cfs_quota_us": "150000", "cpu__cpu_DOT_cfs_period_us": "100000"},
            1.5,
            min(2, cpu_count()),
        ),
    ],
)
def test_cores_that_a_container_may_use(
    tmp_path: Path, files: dict[str, str], limit: float | None, cores: int
) -> None:
    cgroups(tmp_path, **files)
    assert container_cpu_limit(tmp_path) == limit
    assert cpu_cores(tmp_path) == cores


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
