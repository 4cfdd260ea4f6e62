from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from fullconv.core.files import cache_dir
from fullconv.data.io.scan_cache import ScanCache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fullconv"


def test_what_was_put_is_there_the_next_time(folder: Path) -> None:
    with ScanCache() as known:
        known.put("a", {"b": [1, 2.5, "é", None]})
        assert known.get("c") is None
    with ScanCache() as known:
        assert known.get("a") == {"b": [1, 2.5, "é", None]}
        known.put("a", 7)
    with ScanCache() as known:
        assert known.get("a") == 7
    assert cache_dir() == folder


def test_without_a_folder_of_ones_own_it_lies_below_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "fullconv"


@pytest.mark.parametrize("trouble", ["damaged", "file in the way", "read-only"])
def test_trouble_costs_nothing_but_time(folder: Path, trouble: str) -> None:
    if trouble == "damaged":
        folder.mkdir()
        (folder / "scans.sqlite").write_bytes(b"no database" * 1000)
    elif trouble == "file in the way":
        folder.write_text("")
    else:
        folder.mkdir()
        (folder / "scans.sqlite").mkdir()
    for again in range(2):
        with ScanCache() as known:
            assert known.get("a") == (1 if again and trouble == "damaged" else None)
            known.put("a", 1)


def test_many_threads_and_two_at_once(folder: Path) -> None:
    def work(known: ScanCache, start: int) -> None:
        for key in range(start, start + 50):
            known.put(str(key), key)
            assert known.get(f"no {key}") is None

    with ScanCache() as one, ScanCache() as other:
        threads = [
            threading.Thread(target=work, args=(known, 50 * k))
            for k, known in enumerate((one, other, one, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with ScanCache() as known:
        assert [known.get(str(key)) for key in range(200)] == list(range(200))


def test_the_older_half_is_forgotten_where_the_file_is_too_large(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the rows hold, not by how many there are."""
    monkeypatch.setattr("fullconv.data.io.scan_cache._MAX_BYTES", 200_000)
    values = {f"{key:02}": f"{key:02}" * 5_000 for key in range(18)}
    for key, value in values.items():
        with ScanCache() as known:
            known.put(key, value)
    with ScanCache() as known:  # 18 x 10 kB are not too much
        assert [known.get(key) for key in values] == list(values.values())
        known.put("x", "x" * 30_000)
    with ScanCache() as known:
        kept = [key for key in values if known.get(key) is not None]
        assert known.get("x") == "x" * 30_000
    assert kept == [f"{key:02}" for key in range(12, 18)]  # 30 kB and 6 x 10 kB; 7 would be more
    assert os.listdir(folder) == ["scans.sqlite"]
    for number in range(60):
        with ScanCache() as known:
            known.put(f"more {number}", "y" * 10_000)
    assert (folder / "scans.sqlite").stat().st_size < 300_000


@pytest.mark.parametrize("part", ["all", "header", "middle"])
def test_a_damaged_file_is_replaced(folder: Path, part: str) -> None:
    with ScanCache() as known:
        for key in range(200):
            known.put(str(key), "x" * 1000)
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
        with ScanCache() as known:
            found = [known.get(str(key)) for key in range(200)]
            known.put("new", 7)
    assert set(found) == {None}
    with ScanCache() as known:
        assert known.get("new") == 7
        known.put("more", 8)
    with ScanCache() as known:
        assert (known.get("new"), known.get("more")) == (7, 8)


def test_a_locked_file_is_waited_for_once(folder: Path) -> None:
    with ScanCache() as known:
        known.put("a", 1)
    other = sqlite3.connect(folder / "scans.sqlite")
    other.execute("BEGIN EXCLUSIVE")
    try:
        with ScanCache() as known:
            started = time.monotonic()
            assert [known.get("a") for _ in range(20)] == [None] * 20
            assert time.monotonic() - started < 5  # 20 waits of half a second would be 10
            known.put("b", 2)
    finally:
        other.rollback()
        other.close()
    with ScanCache() as known:
        assert known.get("a") == 1


def test_much_that_is_new_is_written_before_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullconv.data.io.scan_cache._MAX_PENDING", 1000)
    with ScanCache() as known:
        for key in range(10):
            known.put(str(key), "x" * 300)
        assert known.get("0") == "x" * 300
        assert known.get("9") is None  # not yet
    with ScanCache() as known:
        assert known.get("9") == "x" * 300
