from __future__ import annotations

import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fullconv.data.io.scan_cache import ScanCache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fullconv"


def test_values_are_kept_until_the_next_time(folder: Path) -> None:
    value = {"b": [1, 2.5, "é", None]}
    with ScanCache() as cache:
        cache.put("a", value)
        assert cache.get("c") is None
    with ScanCache() as cache:
        assert cache.get("a") == value
        cache.put("a", 7)
    with ScanCache() as cache:
        assert cache.get("a") == 7


@pytest.mark.parametrize("in_the_way", ["file", "folder"])
def test_without_a_usable_file_nothing_is_cached(folder: Path, in_the_way: str) -> None:
    if in_the_way == "file":
        folder.write_text("")
    else:
        (folder / "scans.sqlite").mkdir(parents=True)
    for _ in range(2):
        with ScanCache() as cache:
            assert cache.get("a") is None
            cache.put("a", 1)


def test_many_threads_and_two_at_once(folder: Path) -> None:
    def work(cache: ScanCache, start: int) -> None:
        for key in range(start, start + 50):
            cache.put(str(key), key)
            assert cache.get(f"no {key}") is None

    with ScanCache() as first, ScanCache() as second, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, (first, second, first, second), range(0, 200, 50)))
    with ScanCache() as cache:
        assert [cache.get(str(key)) for key in range(200)] == list(range(200))


def test_the_older_half_is_deleted_if_the_file_is_too_large(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullconv.data.io.scan_cache._MAX_BYTES", 200_000)
    values = {f"{key:02}": f"{key:02}" * 5_000 for key in range(18)}
    for key, value in values.items():
        with ScanCache() as cache:
            cache.put(key, value)
    with ScanCache() as cache:  # 18 x 10 kB are not too much
        assert [cache.get(key) for key in values] == list(values.values())
        cache.put("x", "x" * 30_000)
    with ScanCache() as cache:
        kept = [key for key in values if cache.get(key) is not None]
        assert cache.get("x") == "x" * 30_000
    assert kept == [f"{key:02}" for key in range(12, 18)]  # 30 kB and 6 x 10 kB; 7 would be more
    assert os.listdir(folder) == ["scans.sqlite"]
    for number in range(60):
        with ScanCache() as cache:
            cache.put(f"more {number}", "y" * 10_000)
    assert (folder / "scans.sqlite").stat().st_size < 300_000


@pytest.mark.parametrize("part", ["all", "header", "middle"])
def test_a_damaged_file_is_replaced(folder: Path, part: str) -> None:
    with ScanCache() as cache:
        for key in range(200):
            cache.put(str(key), "x" * 1000)
    file = folder / "scans.sqlite"
    content = bytearray(file.read_bytes())
    if part == "all":
        content = bytearray(b"no database" * 1000)
    elif part == "header":
        content[:100] = b"y" * 100
    else:
        content[4096:] = b"\xff" * (len(content) - 4096)
    file.write_bytes(content)
    for _ in range(2):  # the first finds out, at the latest when it reads
        with ScanCache() as cache:
            values = [cache.get(str(key)) for key in range(200)]
            cache.put("new", 7)
    assert set(values) == {None}
    with ScanCache() as cache:
        assert cache.get("new") == 7
        cache.put("more", 8)
    with ScanCache() as cache:
        assert (cache.get("new"), cache.get("more")) == (7, 8)


def test_a_locked_file_is_waited_for_once(folder: Path) -> None:
    with ScanCache() as cache:
        cache.put("a", 1)
    other = sqlite3.connect(folder / "scans.sqlite")
    other.execute("BEGIN EXCLUSIVE")
    try:
        with ScanCache() as cache:
            started = time.monotonic()
            assert [cache.get("a") for _ in range(20)] == [None] * 20
            assert time.monotonic() - started < 5  # 20 waits of half a second would be 10
            cache.put("b", 2)
    finally:
        other.rollback()
        other.close()
    with ScanCache() as cache:
        assert cache.get("a") == 1


def test_many_new_entries_are_written_before_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullconv.data.io.scan_cache._MAX_PENDING", 1000)
    with ScanCache() as cache:
        for key in range(10):
            cache.put(str(key), "x" * 300)
        assert cache.get("0") == "x" * 300
        assert cache.get("9") is None  # not yet
    with ScanCache() as cache:
        assert cache.get("9") == "x" * 300
